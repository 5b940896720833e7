"""benchmarks/cost_growth.py: what counts as cost that grows too fast, and which points are measured again."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def make_points(tokens: list[int], utilisation: list[float], memory: list[float]) -> list[dict[str, Any]]:
    return [
        {"point": {"label": f"{count:,}"}, "tokens": count, "utilisation": used, "peak_memory_mib": peak}
        for count, used, peak in zip(tokens, utilisation, memory, strict=True)
    ]


TOKENS = [1024, 2048, 4096, 8192]


def test_cost_in_proportion_is_no_surprise() -> None:
    from cost_growth_page import surprises

    # a constant of 500 MiB, and a hundred KiB a token
    points = make_points(TOKENS, [0.3, 0.5, 0.6, 0.55], [500 + count / 10 for count in TOKENS])
    for axis in ("length", "vocabulary"):
        (sentence,) = surprises(axis, points)
        assert sentence.startswith("No point loses more than 15%")


def test_what_grows_faster_is_named() -> None:
    from cost_growth_page import surprises

    quadratic = [500 + (count / 1024) ** 2 for count in TOKENS]
    points = make_points(TOKENS, [0.5, 0.6, 0.45, 0.6], quadratic)
    slow, *large = surprises("batch", points)
    assert slow.startswith("At 4,096 a step makes 75% of the best utilisation")
    # 3, 6 and 12 MiB for each thousand tokens more
    assert [sentence.split(" a token more takes ")[1] for sentence in large] == [
        "6 KiB, before as few as 3.",
        "12 KiB, before as few as 3.",
    ]
    # where tokens stay, memory may rise
    assert surprises("vocabulary", points) == [slow]


def test_loss_is_measured_from_the_best_point_before() -> None:
    from cost_growth_page import falls, rises

    assert falls([1.0, 0.9, 0.84, 2.0, 1.71, 1.69], 0.15) == [2, 5]
    assert rises([4.0, 5.0, 5.1, 2.0, 2.5, 2.6], 0.25) == [2, 5]
    assert falls([], 0.15) == rises([1.0], 0.25) == []


def test_points_are_measured_once_and_again_where_settings_differ() -> None:
    from cost_growth import wanted
    from cost_points import make_points

    versions = {"python": "3", "torch": "2", "transformers": "5", "numpy": "2"}
    here = {"processor": "a", "cores": 2, "versions": versions}
    arguments = argparse.Namespace(threads=2, only="length,base", labels=None, again=False)
    points = wanted(arguments, {}, here)
    assert {point.axis for point in points} == {"length", "base"}
    assert len({point.name for point in make_points(2)}) == len(make_points(2))
    finished: dict[str, Any] = {
        point.name: {"point": dataclasses.asdict(point), "environment": here} for point in points
    }
    assert wanted(arguments, finished, here) == []
    assert wanted(argparse.Namespace(**{**vars(arguments), "again": True}), finished, here) == points
    finished[points[1].name]["point"]["threads"] = 1
    # of another machine, or of another torch; numpy's version changes nothing
    finished[points[2].name]["environment"] = {**here, "processor": "b"}
    finished[points[3].name]["environment"] = {**here, "versions": {**versions, "torch": "3"}}
    finished[points[4].name]["environment"] = {**here, "versions": {**versions, "numpy": "3"}}
    assert wanted(arguments, finished, here) == points[1:4]
    one = argparse.Namespace(**{**vars(arguments), "labels": points[0].label})
    assert wanted(one, {}, here) == [points[0]]


def test_the_page_names_machines_single_steps_and_busy_points(tmp_path: Path) -> None:
    from cost_growth_page import write_page

    versions = {"python": "3", "torch": "2", "transformers": "5"}
    result: dict[str, Any] = {"points": {}}
    for number, label in enumerate(("one", "two")):
        result["points"][label] = {
            "point": {"axis": "base", "label": label, "threads": 2, "processes": 0, "vocabulary": 10},
            "environment": {"processor": f"processor {number}", "cores": 2, "versions": versions},
            "seconds": 3.0,
            "least_and_most": [2.0, 4.0],
            "steps": 1 + number,
            "tokens": 100,
            "utilisation": 0.5,
            # 7.3 and 6.3 GB
            "peak_memory_mib": 7000.0 - 1000 * number,
            "load": 2.5 - number,
        }
    write_page(result, tmp_path)
    text = (tmp_path / "cost-growth.md").read_text(encoding="utf-8")
    assert "| one | 10 | 3 (1) | 33 | 0.50 | 7,000 | no | 2.5 (!) |" in text
    assert "| two | 10 | 3 (2 - 4; 2) | 33 | 0.50 | 6,000 | yes | 1.5 |" in text
    assert "busy before one: times" in text
    assert "**Not of one machine**: 1 on processor 0" in text
