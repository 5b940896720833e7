"""What several measured rounds come to: medians, the middle half, and who goes first."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")


def quartiles(values: list[float]) -> tuple[float, float]:
    """The middle half."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def by_turns(items: Sequence[Item], number: int) -> Sequence[Item]:
    """The items of a round, forwards and backwards by turns: a drift of the machine favours nobody."""
    return items[:: 1 if number % 2 == 0 else -1]


def summary(values: list[float]) -> dict[str, Any]:
    """``median``, ``quartiles`` and number of ``rounds`` of a measurement, as it stands in a JSON."""
    return {"median": statistics.median(values), "quartiles": list(quartiles(values)), "rounds": len(values)}


def shown(measured: dict[str, Any], form: str = ".2f") -> str:
    """``1.87 (1.85 - 1.91)``: the median and the middle half."""
    first, third = measured["quartiles"]
    return f"{measured['median']:{form}} ({first:{form}} - {third:{form}})"
