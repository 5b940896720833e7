"""Schedules: piecewise linear, within their points, and clear about what cannot be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanelectra.errors import UserError
from spanelectra.schedules import Schedule

values = st.floats(-1e6, 1e6, allow_nan=False)
progresses = st.floats(0, 1)
schedules = st.lists(st.tuples(progresses, values), min_size=1, max_size=6).map(
    lambda points: Schedule(tuple(sorted(points, key=lambda point: point[0])))
)


@given(values, progresses)
def test_a_plain_number_is_constant(value, progress):
    assert Schedule.parse(value, "mask_ratio")(progress) == value
    assert Schedule.parse(str(value), "mask_ratio")(progress) == value


@given(schedules, st.floats(-0.5, 1.5))
def test_never_leaves_the_range_of_its_points(schedule, progress):
    assert schedule.minimum <= schedule(progress) <= schedule.maximum


@given(schedules, st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=5))
def test_many_moments_at_once_have_the_values_of_each(schedule, moments):
    moments += [progress for progress, _ in schedule.points]
    assert schedule.values(moments).tolist() == [schedule(moment) for moment in moments]


@given(schedules)
def test_reading_what_was_written_gives_the_same_schedule(schedule):
    text = " ".join(f"{progress!r}:{value!r}" for progress, value in schedule.points)
    assert Schedule.parse(text, "mask_ratio") == schedule


@given(progresses, progresses, values, values, st.floats(0, 1))
def test_linear_between_two_points_and_constant_outside(one, other, low, high, share):
    start, end = sorted((one, other))
    schedule = Schedule(((start, low), (end, high)))
    if end - start > 1e-3:
        middle = schedule(start + share * (end - start))
        assert middle == pytest.approx(low + share * (high - low), rel=1e-6, abs=1e-6 * (1 + abs(high) + abs(low)))
    if start < end:
        assert schedule(start) == low
    assert schedule(-1.0) == low
    assert schedule(end) == schedule(2.0) == high


def test_two_points_at_one_progress_are_a_step():
    schedule = Schedule.parse("0:0 0.4:0 0.4:50 1:50", "ato_weight")
    assert [schedule(progress) for progress in (0.0, 0.399, 0.4, 1.0)] == [0, 0, 50, 50]
    assert (schedule.minimum, schedule.maximum) == (0, 50)


@pytest.mark.parametrize(
    "text",
    ["", "abc", "0:1 2", "0.1 0.2", "0:1:2", "0.5:1 0.2:2", "0:0.1 1.5:0.2", "-0.1:1", "0:nan", "nan", "inf", "nan:1",
     "0:", ":", "true"],
)  # fmt: skip
def test_unreadable_text_is_an_error_that_names_the_field_and_the_text(text):
    with pytest.raises(UserError, match=r"^sbgo_weight: ") as error:
        Schedule.parse(text, "sbgo_weight")
    assert f"'{text}'" in str(error.value)
    assert "'0:1 0.5:1 1:4' is 1 for the first half" in str(error.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("much", "'much' is no number"),
        ("0:4 100:16", "100 is no fraction of the run"),
        ("4:16", "4 is no fraction of the run"),
        ("0:32, 1:128", "'0:32,' is no pair"),
        ("0:128 0.5", "'0.5' is no pair"),
        ("0.5:32 0:128", "0 comes after 0.5"),
        ("0:inf", "inf is no number"),
        ("inf", "inf is no number"),
        ("0.1 0.2", "'0.1' is no pair"),
    ],
)
def test_the_error_says_which_part_cannot_be_read(text, reason):
    with pytest.raises(UserError) as error:
        Schedule.parse(text, "mask_ratio")
    assert f"neither a number nor a schedule ({reason}" in str(error.value)
