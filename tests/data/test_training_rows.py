"""The order of rows: every row once an epoch, shuffled anew, and a function of the position alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spanelectra.data.step_sizes import StepSizes
from spanelectra.data.training_rows import RowBatch, RowsInOrder, ShuffledRows
from spanelectra.schedules import Schedule


def shuffled_rows(rows: int, batch: int | str, micro_batches: int, steps: int, seed: int = 0) -> ShuffledRows:
    return ShuffledRows(rows, StepSizes(Schedule.parse(batch, "batch"), micro_batches, steps), seed)


def micro_batches(dataset: ShuffledRows, first: int = 0) -> Iterator[RowBatch]:
    """What a loader asks for, one micro-batch after another."""
    size = dataset.sizes.largest_batch
    for start in range(first * size, len(dataset), size):
        yield dataset.__getitems__(range(start, start + size))


@given(
    rows=st.integers(1, 50),
    batch=st.one_of(st.integers(1, 8), st.sampled_from(["0:1 1:8", "0:2 0.5:2 0.5:4", "0:6 1:1"])),
    micro=st.integers(1, 3),
    steps=st.integers(1, 30),
    seed=st.integers(0, 9),
)
def test_every_row_is_seen_once_an_epoch(rows: int, batch: int | str, micro: int, steps: int, seed: int) -> None:
    batches = list(micro_batches(shuffled_rows(rows, batch, micro, steps, seed)))
    seen = np.concatenate([part.rows for part in batches])
    epochs = np.concatenate([part.epochs for part in batches])
    assert epochs.tolist() == sorted(epochs)
    for epoch in range(len(seen) // rows):
        assert sorted(seen[epochs == epoch]) == list(range(rows))


@given(first=st.integers(0, 24), seed=st.integers(0, 9), batch=st.sampled_from(["4", "0:1 1:4"]))
def test_a_position_alone_decides_its_row(first: int, seed: int, batch: str) -> None:
    whole = list(micro_batches(shuffled_rows(30, batch, 1, 25, seed)))
    part = list(micro_batches(shuffled_rows(30, batch, 1, 25, seed), first))
    for one, other in zip(whole[first:], part, strict=True):
        assert np.array_equal(one.rows, other.rows) and np.array_equal(one.epochs, other.epochs)


def test_epochs_and_seeds_shuffle_differently() -> None:
    rows, others = (
        np.concatenate([part.rows for part in micro_batches(shuffled_rows(100, 10, 1, 20, seed))]) for seed in (0, 1)
    )
    assert not np.array_equal(rows[:100], rows[100:])
    assert not np.array_equal(rows, others)


def test_progress_counts_optimiser_steps() -> None:
    dataset = shuffled_rows(100, batch=4, micro_batches=2, steps=4)
    assert [dataset[index].progress for index in (0, 7, 8, 31)] == [0.0, 0.0, 0.25, 0.75]


def test_a_growing_batch_reads_the_rows_that_follow() -> None:
    dataset = shuffled_rows(1000, "0:2 0.5:2 0.5:4", micro_batches=2, steps=4)
    assert [len(batch.rows) for batch in micro_batches(dataset)] == [2, 2, 2, 2, 4, 4, 4, 4]
    steady = shuffled_rows(1000, 1, micro_batches=1, steps=24)
    assert np.array_equal(
        np.concatenate([batch.rows for batch in micro_batches(dataset)]),
        np.concatenate([batch.rows for batch in micro_batches(steady)]),
    )


def test_held_out_rows_come_in_order() -> None:
    batch = RowsInOrder(10).__getitems__([3, 4, 5])
    assert batch.rows.tolist() == [3, 4, 5] and batch.epochs.tolist() == [0, 0, 0] and batch.progress == 1.0
