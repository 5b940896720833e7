"""Mistakes of users are told from defects of ours, and misspelt names get the right one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from spanelectra.cli import main
from spanelectra.errors import UserError, did_you_mean, reason_of, shortened


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    label = "x" * 5000
    message = str(UserError(f"train.tsv:3: the label '{label}' is unknown. Did you mean 'good'?"))
    assert message.startswith("train.tsv:3: the label 'xxx")
    assert message.endswith("xxx' is unknown. Did you mean 'good'?")
    assert len(message) < 2100 and " … " in message
    assert str(UserError("y" * 2000)) == "y" * 2000


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("mask_ration", " Did you mean 'mask_ratio'?"),
        ("maskratio", " Did you mean 'mask_ratio'?"),
        ("learning", ""),
        ("", ""),
    ],
)
def test_the_nearest_name_is_suggested_and_none_that_is_far(word: str, hint: str) -> None:
    assert did_you_mean(word, ["max_steps", "mask_ratio", "mlm_weight"]) == hint


def test_choices_may_be_of_any_kind() -> None:
    assert did_you_mean("trian", iter(("train", "validation"))) == " Did you mean 'train'?"
    assert did_you_mean("seeed", {"seed": 1}) == " Did you mean 'seed'?"
    assert did_you_mean("x", []) == ""
    assert did_you_mean("--lr", ["--help", "--learning_rate"]) == " Did you mean '--learning_rate'?"
    assert did_you_mean("m", ["help", "model"]) == ""
    assert did_you_mean("--ts", ["--seed"]) == ""


def test_a_users_mistake_ends_with_2_and_a_defect_with_its_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mistaken(*_: object, **__: object) -> None:
        raise UserError("the sentence.")

    def defective(*_: object, **__: object) -> None:
        raise ValueError("of ours")

    command = ["corrupt", "--generator", "a", "--data", "b", "--out_dir", "c"]
    monkeypatch.setattr("spanelectra.corruption._check_numbers", mistaken)
    assert main(command) == 2
    assert capsys.readouterr().err == "error: the sentence.\n"
    monkeypatch.setattr("spanelectra.corruption._check_numbers", defective)
    with pytest.raises(ValueError, match="of ours"):
        main(command)


def test_it_imports_nothing_heavy() -> None:
    code = "import sys, spanelectra.errors; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'rich')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_cell_is_quoted_on_one_line_and_not_for_a_page() -> None:
    assert shortened("a fine\n\n  film ") == "a fine film"
    assert shortened(None) == "None"
    assert shortened("x" * 60) == "x" * 60
    assert shortened("line\n" * 45) == "line " * 11 + "line…"


def test_the_reason_of_a_foreign_error_is_a_line_of_it():
    assert reason_of(ValueError("first\nsecond")) == "first"
    assert reason_of(ValueError("one of:\n (1) this\n\n (2) that")) == "one of: (1) this (2) that"
    assert reason_of(ValueError()) == "ValueError"
    assert len(reason_of(ValueError("one of " + "name, " * 9000))) == 300
