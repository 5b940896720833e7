"""The quickstart: its text, its verdict, and (slow) the whole road with the learning it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from spanelectra.console import make_console
from spanelectra.errors import UserError
from spanelectra.quickstart import judge, python_prose, quickstart


def test_every_python_carries_the_text() -> None:
    documents = dict(python_prose())
    assert len(documents) > 300
    assert sum(map(len, documents.values())) > 1_500_000
    assert any(name.startswith("topic-") for name in documents) and "argparse" in documents


@pytest.mark.parametrize(("loss", "auc", "learned"), [(5.0, 0.8, True), (6.8, 0.8, False), (5.0, 0.55, False)])
def test_the_verdict_compares_with_the_baselines(loss: float, auc: float, learned: bool) -> None:
    metrics = {"unigram_cross_entropy": 7.0, "held_out": {"mlm_loss": loss, "ato_auc": auc}}
    assert judge(metrics, make_console(quiet=True)) is learned


def test_a_directory_that_exists_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exists already"):
        quickstart(str(tmp_path))


@pytest.mark.slow
def test_the_quickstart_keeps_its_promise(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "spanelectra.cli", "quickstart", "--out_dir", str(tmp_path / "q")]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stderr
    assert "it learned" in finished.stderr
    assert (tmp_path / "q" / "export" / "discriminator" / "config.json").is_file()
