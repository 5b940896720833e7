"""Benches: a task read once for an encoder's tokenizer, all tasks before any is worked on."""

from __future__ import annotations

from pathlib import Path

import pytest

from spanelectra.errors import UserError
from spanelectra.finetuning.task_bench import TaskBench, read_benches
from spanelectra.finetuning.task_folder import read_task_folder
from tiny_tasks import make_tokenizer, write_task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind in ("classification", "token", "qa"):
        write_task(tmp_path / kind, kind, train=30, dev=12)
        (tmp_path / kind / "test.tsv").unlink(missing_ok=True)
    return tmp_path


def test_examples_are_drawn_and_labels_are_there(folder: Path) -> None:
    settings = read_task_folder(str(folder), "M")["token"]
    settings.max_train_examples = 10
    bench = TaskBench.read(settings, make_tokenizer(), dev_examples=5)
    assert bench.data is not None
    assert len(bench.data.train_features) == 10
    assert len(bench.data.dev_examples) == len(bench.data.dev_features) == 5
    assert all("labels" in feature for feature in [*bench.data.train_features, *bench.data.dev_features])
    again = TaskBench.read(settings, make_tokenizer(), dev_examples=5)
    assert again.data is not None and again.data.dev_examples == bench.data.dev_examples
    whole = TaskBench.read(settings, make_tokenizer())
    assert whole.data is not None and len(whole.data.dev_examples) == 12
    assert bench.data.dev_examples != whole.data.dev_examples[:5]


def test_inputs_fit_the_tokenizers_model(folder: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 9
    settings = read_task_folder(str(folder), "M")["classification"]
    bench = TaskBench.read(settings, tokenizer)
    assert bench.data is not None
    assert max(len(feature["input_ids"]) for feature in bench.data.train_features) == 9
    assert any("longer than 9 tokens and are cut" in remark for remark in bench.task.remarks)


def test_every_task_is_read(folder: Path) -> None:
    benches = read_benches(read_task_folder(str(folder), "M"), make_tokenizer())
    assert {name: bench.data is None for name, bench in benches.items()} == {
        "classification": False,
        "qa": True,
        "token": False,
    }
    assert benches["classification"].baseline == 50.0 and benches["token"].baseline == 0.0


def test_a_broken_file_is_named_with_its_task(folder: Path) -> None:
    with open(folder / "token" / "dev.conll", "a") as stream:
        stream.write("alone\n")
    with pytest.raises(UserError, match=r"task token: .*dev.conll"):
        read_benches(read_task_folder(str(folder), "M"), make_tokenizer())
