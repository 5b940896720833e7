"""Runs whose batch grows and whose rows are cut at first: they count, resume and end as they should."""

from __future__ import annotations

from pathlib import Path

import pytest

from prepared_rows import LENGTH
from small_runs import interrupt_after, make_trainer, read_lines, small_run, weights
from spanelectra.errors import UserError
from spanelectra.pretraining import pretrain
from spanelectra.training_args import PretrainingArguments

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


@pytest.mark.parametrize("settings", [GROWING, CUT, {**GROWING, **CUT}], ids=str)
def test_the_time_left_is_that_of_the_steps_that_are_left(rows: Path, tmp_path: Path, settings: dict) -> None:
    run = small_run(rows, tmp_path / "run", logging_steps=1, **settings)
    metrics, trainer = pretrain(run), make_trainer(run)
    spent = [metrics["training_flops"]]
    for step in range(6):
        trainer.state.global_step = step
        trainer._scored_of = (LENGTH, round(0.15 * (LENGTH - 2) - 0.5))
        spent.append(trainer._remaining_flops())
    # what a part has masked is rounded down, so that what is left is known to some parts in a hundred
    assert spent[1] == pytest.approx(spent[0], rel=0.05)
    assert spent[1:] == sorted(spent[1:], reverse=True)


def test_cut_rows_cost_less_and_read_as_many_tokens(rows: Path, tmp_path: Path) -> None:
    whole = pretrain(small_run(rows, tmp_path / "whole"))
    cut = pretrain(small_run(rows, tmp_path / "cut", **CUT))
    assert cut["tokens"] == whole["tokens"] and cut["training_flops"] < whole["training_flops"]
    # and held-out rows are whole in both
    assert set(cut["held_out"]) == set(whole["held_out"])


@pytest.mark.parametrize("settings", [GROWING, CUT], ids=str)
def test_a_run_that_is_resumed_ends_bit_for_bit_as_if_it_had_not_been_stopped(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict
) -> None:
    pretrain(small_run(rows, tmp_path / "whole", **settings))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("spanelectra.trainer.remove_old_checkpoints", interrupt_after(3))
        pretrain(small_run(rows, tmp_path / "stopped", **settings))
    pretrain(PretrainingArguments(resume=str(tmp_path / "stopped"), quiet=True))
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
        ({"sequence_length": 64}, "sequence_length is up to 64, but the rows have 32 tokens"),
        ({"sequence_length": "0:4 1:32"}, "parts of 16, 8"),
        ({"sequence_length": "0:8 1:32"}, "masks no token of a row of 8 tokens"),
        ({"sequence_length": 16, "mask_ratio": "0:0.05 1:0.3"}, "masks no token of a row of 16 tokens"),
    ],
    ids=lambda value: str(value),
)
def test_sizes_that_cannot_be_are_refused_before_anything_is_written(
    rows: Path, tmp_path: Path, settings: dict, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        pretrain(small_run(rows, tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()


def test_rows_that_were_corrupted_before_cannot_be_cut(rows: Path, tmp_path: Path) -> None:
    run = small_run(rows, tmp_path / "run", stage="discriminator", **CUT).resolved()
    assert any("sequence_length" in sentence for sentence in run.settings_without_effect(corrupted_data=True))
    assert not run.settings_without_effect()
