"""Settings of fine-tuning: presets, defaults of each task, and every mistake that they refuse."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from spanelectra.errors import UserError
from spanelectra.finetuning.fine_tuning_args import METRICS, PRESETS, FineTuningArguments

FILES = {"model": "M", "train": "T", "dev": "D", "out_dir": "O"}


def resolved(**settings: Any) -> FineTuningArguments:
    return FineTuningArguments(**{**FILES, **settings}).resolved()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_sets_what_it_says_and_resolves(preset: str) -> None:
    settings = resolved(preset=preset)
    for name, value in PRESETS[preset].items():
        assert getattr(settings, name) == value
    assert settings.task is not None and settings.metric in METRICS[settings.task]


def test_what_is_set_beside_a_preset_wins() -> None:
    settings = resolved(preset="mrpc", metric="accuracy", label_column="0", max_length=64)
    assert (settings.metric, settings.label_column, settings.max_length) == ("accuracy", "0", 64)
    assert settings.text_column == "#1 String" and settings.header == "yes"


@pytest.mark.parametrize(
    ("task", "metric", "epochs", "max_length", "doc_stride"),
    [("classification", "accuracy", 4, 128, None), ("token", "f1", 4, 128, 42), ("qa", "f1", 3, 384, 128)],
)
def test_defaults_of_each_task(task: str, metric: str, epochs: float, max_length: int, doc_stride: int | None) -> None:
    settings = resolved(task=task)
    found = (settings.metric, settings.epochs, settings.max_length, settings.doc_stride)
    assert found == (metric, epochs, max_length, doc_stride)


def test_regression_is_scored_by_a_correlation() -> None:
    assert resolved(task="classification", regression=True).metric == "pearson"


@pytest.mark.parametrize("settings", [{"preset": name} for name in PRESETS] + [{"task": name} for name in METRICS])
def test_resolving_twice_changes_nothing(settings: dict[str, Any]) -> None:
    once = resolved(**settings)
    assert once.resolved() == once


def test_a_preset_may_be_written_as_its_task_is() -> None:
    assert resolved(preset="CoNLL2003") == resolved(preset="conll2003")


def test_resolving_leaves_the_original_as_it_is() -> None:
    settings = FineTuningArguments(preset="cola", **FILES)
    before = dataclasses.asdict(settings)
    settings.resolved()
    assert dataclasses.asdict(settings) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "task is missing: pass --task classification, token or qa, or a --preset."),
        ({"task": "tokens"}, "Did you mean 'token'?"),
        ({"preset": "sst"}, "unknown preset 'sst'"),
        ({"preset": "sst"}, "Did you mean 'sst2'?"),
        ({"preset": "sst2", "task": "token"}, "preset sst2 is for --task classification, not for --task token."),
        ({"task": "classification", "metric": "acuracy"}, "Did you mean 'accuracy'?"),
        ({"task": "classification", "metric": "pearson"}, "metric 'pearson' does not fit the task"),
        ({"task": "classification", "regression": True, "metric": "f1"}, "choose one of pearson, spearman, r2"),
        ({"task": "token", "regression": True}, "regression is for --task classification, not for --task token."),
        ({"task": "qa", "text_pair_column": "1"}, "text_pair_column is for --task classification"),
        ({"task": "qa", "label_column": "1"}, "label_column is for --task classification or token, not for --task qa."),
        ({"task": "token", "header": "yes"}, "header is for --task classification"),
        ({"task": "token", "n_best": 3}, "n_best is for --task qa"),
        ({"task": "classification", "doc_stride": 3}, "doc_stride is for --task token or qa"),
        ({"task": "token", "doc_stride": 128}, "doc_stride must be from 0 to below max_length 128, got 128."),
        ({"task": "token", "doc_stride": -1}, "doc_stride must be from 0"),
        ({"task": "token", "dev": "1.5"}, "dev 1.5 is neither a file nor a fraction between 0 and 1."),
        ({"task": "token", "dev": "0"}, "dev 0 is neither"),
        ({"task": "token", "dev": "nan"}, "dev nan is neither"),
        ({"task": "token", "seeds": 0}, "seeds must be at least 1, got 0."),
        ({"task": "token", "seed": 2**32 - 1, "seeds": 2}, "leaves no room for 2 seeds"),
        ({"task": "token", "batch_size": 0}, "batch_size must be at least 1"),
        ({"task": "token", "epochs": 0}, "epochs must be above 0"),
        ({"task": "token", "learning_rate": -1e-3}, "learning_rate must be above 0"),
        ({"task": "token", "layerwise_lr_decay": 1.1}, "layerwise_lr_decay must be above 0 and at most 1"),
        ({"task": "token", "warmup_ratio": 1}, "warmup_ratio must be a fraction from 0 to below 1"),
        ({"task": "token", "dropout": 1.0}, "dropout must be a fraction from 0 to below 1"),
        ({"task": "token", "max_length": 7}, "max_length must be 8 or more"),
        ({"task": "token", "max_train_examples": 0}, "max_train_examples must be at least 1"),
        ({"task": "token", "patience": -1}, "patience must be 0 or more"),
        ({"task": "token", "learning_rate": "fast"}, "learning_rate: 'fast' is not a number."),
        ({"task": "token", "seeds": 1.5}, "seeds: '1.5' is not a whole number."),
        ({"task": "token", "resume": True, "overwrite": True}, "resume and overwrite exclude one another"),
    ],
)
def test_mistakes(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        resolved(**settings)


@pytest.mark.parametrize("missing", FILES)
def test_what_a_run_needs(missing: str) -> None:
    settings = resolved(task="token", **{missing: ""})
    with pytest.raises(UserError, match=f"{missing} is missing: pass --{missing}."):
        settings.check()
    resolved(task="token").check()


def test_dev_is_a_file_or_a_fraction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolved(task="token", dev="dev.conll").dev_fraction is None
    assert resolved(task="token", dev="0.1").dev_fraction == 0.1
    monkeypatch.chdir(tmp_path)
    Path("2003").touch()
    assert resolved(task="token", dev="2003").dev_fraction is None


def test_a_path_from_home_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = resolved(task="token", train="~/t.conll", test="~/e.conll")
    assert (settings.train, settings.test) == (str(tmp_path / "t.conll"), str(tmp_path / "e.conll"))
    assert settings.model == "M"


def test_settings_fit_an_encoder_that_takes_less() -> None:
    settings = resolved(task="qa")
    assert settings.fitted_to(384) == settings.fitted_to(10**30) == settings
    fitted = settings.fitted_to(120)
    assert (fitted.max_length, fitted.doc_stride) == (120, 40)
    assert resolved(task="qa", doc_stride=10).fitted_to(120).doc_stride == 10
    assert resolved(task="classification").fitted_to(32).doc_stride is None
