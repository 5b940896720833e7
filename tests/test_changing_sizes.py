"""Runs whose batch grows and whose rows are cut at first: they count, resume and end as they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prepared_rows import LENGTH
from small_runs import make_trainer, pretrain_with_a_stop, read_lines, small_run, weights
from spanelectra.corrupted_rows import CorruptedRows
from spanelectra.corruption import corrupt
from spanelectra.data.row_dataset import RowDataset
from spanelectra.data.training_rows import RowBatch
from spanelectra.errors import UserError
from spanelectra.evaluation import evaluate
from spanelectra.pretraining import pretrain
from spanelectra.run_data import read_data
from spanelectra.trainer import SpanElectraTrainer

# of six steps
GROWING = {"per_device_train_batch_size": "0:2 0.5:2 0.5:6", "gradient_accumulation_steps": 2}
CUT = {"sequence_length": "0:16 0.5:16 0.5:32"}


def test_tokens_are_those_of_the_rows_that_were_read(rows: Path, tmp_path: Path) -> None:
    metrics = pretrain(small_run(rows, tmp_path / "run", **GROWING))
    assert metrics["tokens"] == (3 * 2 + 3 * 6) * 2 * LENGTH
    lines = read_lines(tmp_path / "run")
    read = [0, 2, 4, 6, 12, 18, 24]
    assert [line["tokens"] / LENGTH / 2 for line in lines] == [read[line["step"]] for line in lines]
    assert lines[-1]["seconds_left"] == 0
    count = len(RowDataset(rows))
    assert [line["epoch"] * count / 2 for line in lines] == pytest.approx([read[line["step"]] for line in lines])


@pytest.mark.parametrize(
    "settings",
    [GROWING, CUT, {**GROWING, **CUT}, {**CUT, "generator_head_start": 0.5}, {"sbpo_weight": "0:10 0.5:10 0.5:0"}],
    ids=str,
)
def test_the_time_left_is_that_of_the_steps_that_are_left(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict
) -> None:
    counted: dict[int, float] = {}
    count = SpanElectraTrainer.floating_point_ops

    def remember(trainer: SpanElectraTrainer, inputs: dict) -> float:
        flops = count(trainer, inputs)
        counted[trainer.state.global_step] = counted.get(trainer.state.global_step, 0.0) + flops
        return flops

    run = small_run(rows, tmp_path / "run", **settings)
    with monkeypatch.context() as patched:
        patched.setattr(SpanElectraTrainer, "floating_point_ops", remember)
        metrics = pretrain(run)
    assert metrics["training_flops"] == sum(counted.values()) and len(counted) == 6
    trainer = make_trainer(run)
    for step in range(7):
        trainer.state.global_step = step
        assert trainer._remaining_flops() == pytest.approx(sum(counted[later] for later in range(step, 6)))
    # of a long run a sample is looked at
    monkeypatch.setattr("spanelectra.trainer.STEPS_SAMPLED", 3)
    trainer.state.global_step = 0
    assert trainer._remaining_flops() == pytest.approx(2 * (counted[0] + counted[2] + counted[4]))


def test_a_line_says_what_its_last_step_read_where_that_changes(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pretrain(small_run(rows, tmp_path / "run", quiet=False, logging_steps=1, **GROWING, **CUT))
    lines = [line for line in read_lines(tmp_path / "run") if "loss" in line]
    assert [line["per_device_train_batch_size"] for line in lines] == [2, 2, 2, 6, 6, 6]
    assert [line["sequence_length"] for line in lines] == [16, 16, 16, 32, 32, 32]
    shown = capsys.readouterr().err
    assert "batch 2  length 16" in shown and "batch 6  length 32" in shown
    # what rounds to the same everywhere changes nothing, nor does one length for all
    steady = {"per_device_train_batch_size": "0:3.6 1:4.4", "sequence_length": 16}
    pretrain(small_run(rows, tmp_path / "steady", **steady))
    assert not {"per_device_train_batch_size", "sequence_length"} & set(read_lines(tmp_path / "steady")[0])


def test_cut_rows_cost_less_and_read_as_many_tokens(rows: Path, tmp_path: Path) -> None:
    whole = pretrain(small_run(rows, tmp_path / "whole"))
    cut = pretrain(small_run(rows, tmp_path / "cut", **CUT))
    assert cut["tokens"] == whole["tokens"] and cut["training_flops"] < whole["training_flops"]


def test_training_rows_are_cut_and_held_out_ones_and_those_of_corrupt_are_whole(rows: Path, tmp_path: Path) -> None:
    run = small_run(rows, tmp_path / "run", stage="generator", sequence_length=16)
    data = read_data(run.resolved())
    batch = RowBatch(np.arange(4), np.zeros(4, np.int64), 0.5)
    assert data.collate(batch)["original_ids"].shape == (8, 16)
    assert data.collate_held_out is not None
    assert data.collate_held_out(batch)["original_ids"].shape == (4, LENGTH)
    pretrain(run)
    corrupt(str(tmp_path / "run"), str(rows), str(tmp_path / "fake"), quiet=True)
    report = evaluate(str(tmp_path / "run"), str(rows), quiet=True)
    fake = CorruptedRows(str(tmp_path / "fake"), "train")
    assert fake.max_seq_length == report["max_seq_length"] == LENGTH


def test_a_frozen_generator_fills_cut_rows(rows: Path, generator_run: Path, tmp_path: Path) -> None:
    settings = {"stage": "discriminator", "generator": str(generator_run), **GROWING, **CUT}
    metrics = pretrain(small_run(rows, tmp_path / "run", **settings))
    assert 0 < metrics["held_out"]["ato_auc"] < 1 and 0 < metrics["held_out"]["sbpo_auc"] < 1


def test_loader_processes_change_nothing(rows: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        settings = {**GROWING, **CUT, "dataloader_num_workers": workers}
        pretrain(small_run(rows, tmp_path / str(workers), **settings))
    assert weights(tmp_path / "0") == weights(tmp_path / "2")


@pytest.mark.parametrize("settings", [GROWING, CUT], ids=str)
def test_a_run_that_is_resumed_ends_bit_for_bit_as_if_it_had_not_been_stopped(
    rows: Path, tmp_path: Path, settings: dict
) -> None:
    pretrain(small_run(rows, tmp_path / "whole", **settings))
    pretrain_with_a_stop(small_run(rows, tmp_path / "stopped", **settings))
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


@pytest.mark.parametrize(
    ("number", "schedule"),
    [({"per_device_train_batch_size": 4}, "0:4 1:4"), ({"sequence_length": None}, f"0:{LENGTH} 1:{LENGTH}")],
    ids=str,
)
def test_a_constant_schedule_is_the_number_bit_for_bit(rows: Path, tmp_path: Path, number: dict, schedule: str) -> None:
    pretrain(small_run(rows, tmp_path / "number", **number))
    pretrain(small_run(rows, tmp_path / "schedule", **dict.fromkeys(number, schedule)))
    assert weights(tmp_path / "number") == weights(tmp_path / "schedule")


def test_a_budget_of_tokens_counts_the_batches_as_they_are(rows: Path, tmp_path: Path) -> None:
    settings = {"per_device_train_batch_size": "0:1 1:5", "max_tokens": 20 * LENGTH}
    metrics = pretrain(small_run(rows, tmp_path / "run", **settings))
    # of seven steps: 1, 2, 2, 3, 3, 4 and 4 rows, 19 together
    assert metrics["steps"] == 8 and 20 * LENGTH <= metrics["tokens"] < 26 * LENGTH


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"per_device_train_batch_size": "0:0 1:4"}, "per_device_train_batch_size must be at least 1"),
        ({"per_device_train_batch_size": "many"}, "per_device_train_batch_size: 'many' is neither a number"),
        ({"per_device_train_batch_size": 2.5}, "'2.5' is neither a whole number nor a schedule"),
        ({"sequence_length": 64}, "sequence_length 64: rows of 32 tokens can be trained on whole, or cut to 16, 8"),
        ({"sequence_length": "0:4 1:32"}, "sequence_length 4: rows of 32 tokens"),
        ({"sequence_length": "0:8 1:32"}, "at 0% of the run rows are cut to 8 tokens, of which a mask_ratio of 0.15"),
        ({"sequence_length": "0:32 0.5:8 0.5:32"}, "rows are cut to 8 tokens, of which a mask_ratio of 0.15"),
        ({"sequence_length": 16, "mask_ratio": "0:0.05 1:0.3"}, "cut to 16 tokens, of which a mask_ratio of 0.05"),
    ],
    ids=lambda value: str(value),
)
def test_sizes_that_cannot_be_are_refused_before_anything_is_written(
    rows: Path, tmp_path: Path, settings: dict, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        pretrain(small_run(rows, tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()


def test_a_ratio_that_is_low_where_rows_are_whole_is_none_too_low(rows: Path, tmp_path: Path) -> None:
    settings = {"sequence_length": "0:16 0.5:16 0.5:32", "mask_ratio": "0:0.3 0.4:0.3 1:0.05"}
    assert pretrain(small_run(rows, tmp_path / "run", **settings))["steps"] == 6


def test_rows_that_were_corrupted_before_cannot_be_cut(rows: Path, generator_run: Path, tmp_path: Path) -> None:
    corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), quiet=True)
    for name, settings in (("cut", CUT), ("whole", {})):
        metrics = pretrain(small_run(tmp_path / "fake", tmp_path / name, stage="discriminator", **settings))
        named = [alarm for alarm in metrics["alarms"] if "sequence_length" in alarm]
        assert len(named) == (name == "cut")
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
