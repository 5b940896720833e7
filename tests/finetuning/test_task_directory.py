"""A fine-tuned model on disk opens as what was saved, with its task, and says nothing of the machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from spanelectra.errors import UserError
from spanelectra.finetuning.encoder_source import open_encoder
from spanelectra.finetuning.task import Task
from spanelectra.finetuning.task_data import read_splits
from spanelectra.finetuning.task_directory import (
    fine_tuned_card,
    holds_task_model,
    make_task,
    open_task_model,
    save_task_model,
    write_predictions,
)
from spanelectra.finetuning.task_models import build_task_model
from tiny_tasks import quick

ENDINGS = {"classification": "tsv", "token": "conll", "qa": "json"}


def save(tiny: Path, kind: str, directory: Path, **settings: Any) -> tuple[Any, Task]:
    """Save an untrained model of a task that has learned its labels."""
    files = {name: str(tiny / kind / f"{name}.{ENDINGS[kind]}") for name in ("train", "dev")}
    resolved = quick(tiny / "bert", files, directory, **settings).resolved()
    task, source = make_task(resolved), open_encoder(str(tiny / "bert"))
    read_splits(task, resolved)
    model = build_task_model(source, task, resolved, 0)
    save_task_model(directory, model, source.tokenizer, task, "the card")
    return model, task


@pytest.mark.parametrize("kind", ENDINGS)
def test_it_opens_as_what_was_saved(kind: str, tiny: Path, tmp_path: Path) -> None:
    settings = {"classification": {"text_column": "sentence"}, "token": {"doc_stride": 5}, "qa": {"n_best": 3}}[kind]
    model, task = save(tiny, kind, tmp_path / "run" / "model", **settings)
    assert holds_task_model(tmp_path / "run") and holds_task_model(tmp_path / "run" / "model")
    for place in (tmp_path / "run", tmp_path / "run" / "model"):
        opened, tokenizer, found = open_task_model(place)
        assert not opened.training
        for name, tensor in opened.state_dict().items():
            assert torch.equal(tensor, model.state_dict()[name])
        assert type(found) is type(task) and found.state() == task.state() and found.metric == task.metric
        assert found.config_changes() == task.config_changes()
        for name in ("max_length", "doc_stride", "text_column", "n_best", "eval_batch_size"):
            assert getattr(found.settings, name) == getattr(task.settings, name)
        assert tokenizer.padding_side == "right"
    assert (tmp_path / "run" / "model" / "README.md").read_text() == "the card"


def test_nothing_of_the_machine_is_in_it(tiny: Path, tmp_path: Path) -> None:
    save(tiny, "classification", tmp_path / "model", test=str(tiny / "classification" / "test.tsv"))
    for file in (tmp_path / "model").iterdir():
        content = file.read_bytes()
        assert str(tiny).encode() not in content and str(tmp_path).encode() not in content, file.name


def test_a_directory_without_one(tmp_path: Path, tiny: Path) -> None:
    assert not holds_task_model(tmp_path) and not holds_task_model(tiny / "bert")
    with pytest.raises(UserError, match="holds no model of `spanelectra finetune`"):
        open_task_model(tiny / "bert")


def test_a_home_directory_is_understood(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tiny, "classification", tmp_path / "model")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert holds_task_model("~/model") and open_task_model("~/model")


@pytest.mark.parametrize("has_manifest", [True, False])
def test_damage_is_named(has_manifest: bool, tiny: Path, tmp_path: Path) -> None:
    def broken(file: str, content: bytes, message: str) -> None:
        directory = tmp_path / file
        save(tiny, "classification", directory)
        if not has_manifest:
            # as after a download
            (directory / "manifest.json").unlink()
        (directory / file).write_bytes(content)
        with pytest.raises(UserError, match="is damaged" if has_manifest else message):
            open_task_model(directory)

    broken("task.json", b"{", "task.json is unreadable")
    broken("task.json", b'{"settings": [], "state": {}}', "task.json is unreadable")
    broken("task.json", b'{"settings": {"task": "poetry"}, "state": {}}', "task.json is unreadable")
    broken("model.safetensors", b"not weights", "holds no model that opens")


def test_weights_without_a_head_are_refused(tiny: Path, tmp_path: Path) -> None:
    save(tiny, "classification", tmp_path)
    (tmp_path / "manifest.json").unlink()
    weights = load_file(tmp_path / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"the weights lack classifier\.weight"):
        open_task_model(tmp_path)


def test_predictions_are_a_json_object_a_line(tmp_path: Path) -> None:
    predictions = [{"text": "a\nb é", "predicted": "x"}, {"text": "", "predicted": "y"}]
    write_predictions(tmp_path / "p.jsonl", predictions)
    lines = (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == predictions and "é" in lines[0]


@pytest.mark.parametrize("kind", ENDINGS)
def test_the_card_says_scores_and_how_to_open(kind: str, tiny: Path, tmp_path: Path) -> None:
    _, task = save(tiny, kind, tmp_path)
    card = fine_tuned_card(task, "discriminator of mine", {"dev": {"f1": 71.236}, "test": None})
    assert "| dev | f1 | 71.24 |" in card and "| test |" not in card and "discriminator of mine" in card
    assert ('pipeline("' in card) == (kind != "qa") and ("AutoModelForQuestionAnswering" in card) == (kind == "qa")
    assert "spanelectra predict" in card and ('aggregation_strategy="first"' in card) == (kind == "token")
