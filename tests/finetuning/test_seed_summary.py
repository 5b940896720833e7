"""The summary of seeds, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanelectra.finetuning.seed_summary import format_spread, learned_something, rank, summarise, summarise_runs


@given(st.lists(st.floats(0, 100), min_size=2, max_size=9))
def test_a_summary_is_numpys(values: list[float]) -> None:
    summary = summarise(values)
    assert summary["mean"] == pytest.approx(np.mean(values))
    assert summary["std"] == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    assert summary["median"] == pytest.approx(np.median(values))
    assert summary["values"] == values


def test_one_value_has_no_spread() -> None:
    assert summarise([71.234]) == {"mean": 71.234, "std": None, "median": 71.234, "values": [71.234]}
    assert format_spread(summarise([71.234])) == "71.23"
    assert format_spread(summarise([70.0, 72.0])) == "71.00 ± 1.41"


def run(dev: float, collapsed: str | None = None, test: float | None = None) -> dict[str, Any]:
    scores = {"dev": {"f1": dev, "accuracy": 90.0}, "test": None if test is None else {"f1": test}}
    return {**scores, "collapsed": collapsed}


def test_a_collapsed_run_is_not_averaged_in() -> None:
    runs = [run(80.0, test=70.0), run(30.0, "always 'O'", test=30.0), run(82.0, test=74.0)]
    assert summarise_runs(runs, "dev")["f1"]["values"] == [80.0, 82.0]
    assert summarise_runs(runs, "test")["f1"]["mean"] == 72.0
    assert set(summarise_runs(runs, "dev")) == {"f1", "accuracy"}


def test_where_all_collapsed_all_count() -> None:
    assert summarise_runs([run(30.0, "always 'O'"), run(32.0, "always 'O'")], "dev")["f1"]["mean"] == 31.0


def test_a_split_that_is_not_there_has_no_summary() -> None:
    assert summarise_runs([run(80.0), run(81.0)], "test") == {}


def test_a_run_that_trained_ranks_above_one_that_collapsed() -> None:
    assert rank(run(50.0), "f1") > rank(run(90.0, "always 'O'"), "f1")
    assert rank(run(51.0), "f1") > rank(run(50.0), "f1")


@pytest.mark.parametrize(
    ("score", "commonest", "learned"),
    [(51.0, 50.0, True), (50.9, 50.0, False), (40.0, 50.0, False), (100.0, 99.5, True), (99.6, 99.5, False)],
)
def test_learning_is_more_than_the_commonest_answer_also_where_that_is_nearly_always_right(
    score: float, commonest: float, learned: bool
) -> None:
    assert learned_something(score, commonest) == learned
