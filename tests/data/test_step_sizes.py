"""Rows of every step against a count step by step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanelectra.data.step_sizes import StepSizes
from spanelectra.schedules import Schedule

BATCHES = ["7", "0:5 1:5", "0:1 1:9", "0:4 0.5:4 0.5:16", "0:8 0.3:2 1:5"]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_rows_before_a_step_are_those_of_all_earlier_ones(batch: str, micro_batches: int) -> None:
    schedule, steps, total = Schedule.parse(batch, "batch"), 37, 0
    sizes = StepSizes(schedule, micro_batches, steps)
    for step in range(steps):
        assert sizes.rows_before(step) == total
        assert sizes.batch_rows[step] == round(schedule(step / steps)) <= sizes.largest_batch
        total += round(schedule(step / steps)) * micro_batches
    assert sizes.rows_before(steps) == total


def test_a_constant_batch_takes_no_memory_however_long_the_run() -> None:
    sizes = StepSizes(Schedule.parse(16, "batch"), 2, 10**12)
    assert sizes.rows_before(10**12) == 32 * 10**12 and sizes.batch_rows[10**12 - 1] == 16
    positions, step = sizes.positions(np.arange(16) + 32 * 10**11 + 16)
    assert step == 10**11 and positions[0] == 32 * 10**11 + 16


@given(batch=st.sampled_from(BATCHES), micro_batches=st.integers(1, 4), rows=st.integers(1, 5000))
def test_the_shortest_run_for_a_budget_of_rows(batch: str, micro_batches: int, rows: int) -> None:
    schedule = Schedule.parse(batch, "batch")
    steps = StepSizes.for_rows(schedule, micro_batches, rows).max_steps
    assert StepSizes(schedule, micro_batches, steps).rows_before(steps) >= rows
    if steps > 1:
        assert StepSizes(schedule, micro_batches, steps - 1).rows_before(steps - 1) < rows


def test_a_shrinking_batch_has_places_for_its_largest() -> None:
    sizes = StepSizes(Schedule.parse("0:4 1:1", "batch"), 2, 2)
    assert sizes.largest_batch == 4 and sizes.batch_rows.tolist() == [4, 2]
    positions, step = sizes.positions(np.arange(8, 12) + 4)
    assert step == 1 and positions.tolist() == [10, 11]
