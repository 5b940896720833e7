"""What a damaged file should have held, or nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest

from spanelectra.report.tolerance import listed, mapping, number


@pytest.mark.parametrize(("value", "known"), [(3, 3.0), (math.inf, None), ("3", None), (True, None), (None, None)])
def test_number(value: Any, known: float | None) -> None:
    assert number(value) == known


def test_mapping_and_list() -> None:
    assert mapping({1: 2}) == {"1": 2} and mapping([1]) == mapping(None) == {}
    assert listed([1]) == [1] and listed({1: 2}) == listed("ab") == []
