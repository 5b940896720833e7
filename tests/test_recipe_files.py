"""Recipes: what they may say, and that mistakes in them are named with file and field."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from spanelectra.errors import UserError
from spanelectra.recipe_files import RECIPES_DIRECTORY, as_yaml, checked_value, load_recipe
from spanelectra.training_args import PretrainingArguments

PLACES = {"data": "rows", "out_dir": "run"}
Choice = Literal["auto", "true", "false"]


@pytest.mark.parametrize("recipe", sorted(file.stem for file in RECIPES_DIRECTORY.glob("*.yaml")))
def test_every_shipped_recipe_can_be_read_and_passes_the_check(recipe):
    settings = PretrainingArguments(**(load_recipe(recipe) | PLACES), recipe=recipe)
    settings.check()
    settings.resolved().check()


def test_a_recipe_can_extend_another_and_its_own_settings_win(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: tiny-modern\nmax_steps: 7\n")
    parent, child = load_recipe("tiny-modern"), load_recipe(str(tmp_path / "mine.yaml"))
    assert child == parent | {"max_steps": 7}
    assert parent["max_steps"] != 7 and len(parent) > 5


def test_the_case_of_a_name_does_not_matter_where_there_are_few(tmp_path):
    (tmp_path / "mine.yaml").write_text("optimizer: AdamW\nobjectives: [MLM, Sbgo]\nbf16: True\n")
    assert load_recipe(str(tmp_path / "mine.yaml")) == {
        "optimizer": "adamw",
        "objectives": ["mlm", "sbgo"],
        "bf16": "true",
    }
    assert checked_value("bpe", Literal["BPE", "BERT"], "tokenizer_type") == "BPE"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mask_raito: 0.2\n", r"mine\.yaml: unknown field 'mask_raito'\. Did you mean 'mask_ratio'\?"),
        ("max_steps: 5\nmethod: [bert\nseed: 1\n", r"mine\.yaml line [23]: not valid YAML"),
        ("max_steps: 5\n\tseed: 1\n", r"mine\.yaml line 2: not valid YAML"),
        ("- a\n- b\n", "a recipe is a list of 'field: value' lines"),
        ("", "a recipe is a list of 'field: value' lines"),
        ("optimizer: mun\n", r"mine\.yaml: optimizer: 'mun' is not one of adamw, muon\. Did you mean 'muon'\?"),
        ("stage: generater\n", r"mine\.yaml: stage: 'generater' is not one of .* Did you mean 'generator'\?"),
        ("bf16: maybe\n", r"mine\.yaml: bf16: 'maybe' is not one of auto, true, false\."),
        ("warm_start: ful\n", r"mine\.yaml: warm_start: 'ful' is not one of .* Did you mean 'full'\?"),
        ("method: berd\n", r"mine\.yaml: method: 'berd' is not one of .* Did you mean 'bert'\?"),
        ("lr_scheduler_type: lineer\n", r"mine\.yaml: lr_scheduler_type: .* Did you mean 'linear'\?"),
        ("embedding_size: wide\n", r"mine\.yaml: embedding_size: 'wide' is not a whole number\."),
        ("objectives: [mlm, atoo]\n", r"mine\.yaml: objectives: 'atoo' is not one of .* Did you mean 'ato'\?"),
        ("mask_ratio: much\n", r"mine\.yaml: mask_ratio: 'much' is neither a number nor"),
        ("data: 5\n", r"mine\.yaml: data: '5' is not text"),
        ("extends: 5\n", r"mine\.yaml: extends: '5' is not text"),
        ("extends: tiny-moderm\n", r"--recipe tiny-moderm: .* Did you mean 'tiny-modern'\?"),
    ],
)
def test_a_recipe_that_cannot_be_read_says_where_and_why(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        load_recipe(str(file))


def test_an_error_in_the_extended_recipe_names_that_recipe(tmp_path):
    (tmp_path / "parent.yaml").write_text("sede: 1\n")
    (tmp_path / "child.yaml").write_text(f"extends: {tmp_path / 'parent.yaml'}\n")
    with pytest.raises(UserError, match=r"parent\.yaml: unknown field 'sede'\. Did you mean 'seed'"):
        load_recipe(str(tmp_path / "child.yaml"))


def test_bytes_that_are_no_text_are_named_with_their_place(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"seed: 1 # \xff\n")
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 10\)"):
        load_recipe(str(tmp_path / "mine.yaml"))


def test_an_unknown_recipe_lists_the_shipped_ones():
    with pytest.raises(UserError, match=r"--recipe tny: .*tiny-modern"):
        load_recipe("tny")


def test_settings_written_as_yaml_read_back_the_same(tmp_path):
    settings = PretrainingArguments(
        **PLACES, method="electra", mask_ratio="0:0.15 1:0.3", adam_epsilon=1e-8, learning_rate=5e-4, sharing="none"
    ).resolved()
    (tmp_path / "config.yaml").write_text(as_yaml(settings))
    assert PretrainingArguments(**load_recipe(str(tmp_path / "config.yaml"))) == settings


@pytest.mark.parametrize("text", ["mlm", "mlm,ato", "mlm, ato", "[mlm, ato]", "\n- mlm\n- ato"])
def test_objectives_are_a_list_however_they_are_written(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(f"objectives: {text}\n")
    expected = ["mlm"] if text == "mlm" else ["mlm", "ato"]
    assert load_recipe(str(tmp_path / "mine.yaml")) == {"objectives": expected}


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("2e-3", float, 2e-3),
        (1, float, 1.0),
        (np.float32(0.5), float, 0.5),
        (np.int64(3), int, 3),
        (None, int | None, None),
        (4, int | None, 4),
        (True, bool, True),
        (True, Choice, "true"),
        ("auto", Choice, "auto"),
        (None, Choice | None, None),
        ("0:1 1:3", int | str, "0:1 1:3"),
        (5, int | str, 5),
        (2, float | str, 2.0),
        ("2e-1", float | str, 0.2),
        ("0:2 1:1", float | str, "0:2 1:1"),
        (("a", "b"), list[str], ["a", "b"]),
        (Path("rows"), str, "rows"),
    ],
)
def test_a_value_is_taken_as_its_setting_wants_it(value, kind, expected):
    taken = checked_value(value, kind, "field")
    assert taken == expected and type(taken) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ("wide", float, "field: 'wide' is not a number"),
        ("nan", float, "field: 'nan' is not a number"),
        (float("inf"), float, "field: 'inf' is not a number"),
        (True, float, "field: 'True' is not a number"),
        (1.5, int, "field: '1.5' is not a whole number"),
        (True, int, "field: 'True' is not a whole number"),
        (1, bool, "field: '1' is not true or false"),
        ("yes", bool, "field: 'yes' is not true or false"),
        (None, int, "field: 'None' is not a whole number"),
        (None, Choice, "field: 'None' is not one of auto, true, false"),
        ([1], Choice, "is not one of auto, true, false"),
        ([1], int | None, "is not a whole number"),
        (5, list[str] | None, "field: '5' is not a list"),
        ([5], list[str], "field: '5' is not text"),
        (True, float | str, "field: 'True' is neither a number nor"),
        (None, float | str, "field: 'None' is neither a number nor"),
    ],
)
def test_a_value_that_its_setting_cannot_take_is_named(value, kind, message):
    with pytest.raises(UserError) as caught:
        checked_value(value, kind, "field")
    assert message in str(caught.value)
