"""The order of rows: every row once an epoch, shuffled anew, and a function of the position alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spanelectra.data.training_rows import RowsInOrder, ShuffledRows


@given(rows=st.integers(1, 50), per_step=st.integers(1, 8), steps=st.integers(1, 40), seed=st.integers(0, 9))
def test_every_row_is_seen_once_an_epoch(rows: int, per_step: int, steps: int, seed: int) -> None:
    dataset = ShuffledRows(rows, per_step, steps, seed)
    batch = dataset.__getitems__(range(len(dataset)))
    for epoch in range(len(dataset) // rows):
        assert sorted(batch.rows[batch.epochs == epoch]) == list(range(rows))


@given(start=st.integers(0, 90), seed=st.integers(0, 9))
def test_a_position_alone_decides_its_row(start: int, seed: int) -> None:
    whole = ShuffledRows(30, 4, 25, seed).__getitems__(range(100))
    part = ShuffledRows(30, 4, 25, seed).__getitems__(range(start, 100))
    assert np.array_equal(whole.rows[start:], part.rows) and np.array_equal(whole.epochs[start:], part.epochs)


def test_epochs_and_seeds_shuffle_differently() -> None:
    rows = ShuffledRows(100, 10, 20, seed=0).__getitems__(range(200)).rows
    assert not np.array_equal(rows[:100], rows[100:])
    assert not np.array_equal(rows, ShuffledRows(100, 10, 20, seed=1).__getitems__(range(200)).rows)


def test_progress_counts_optimiser_steps() -> None:
    dataset = ShuffledRows(100, rows_per_step=8, max_steps=4, seed=0)
    assert [dataset[index].progress for index in (0, 7, 8, 31)] == [0.0, 0.0, 0.25, 0.75]


def test_held_out_rows_come_in_order() -> None:
    batch = RowsInOrder(10).__getitems__([3, 4, 5])
    assert batch.rows.tolist() == [3, 4, 5] and batch.epochs.tolist() == [0, 0, 0] and batch.progress == 1.0
