"""Numbers as people read them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from spanelectra.report.words import duration, short


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7000, "7,000"), (7231.66, "7,232"), (0.5, "0.5000"), (6.2598, "6.260"), (12.3456, "12.35"), (0.0, "0"),
        (1.01e14, "1.01e+14"), (3e-5, "3e-05"), (-2.5, "-2.500"), ("linear", "linear"), (None, "–"), (True, "True"),
        (math.nan, "nan"),
    ],
)  # fmt: skip
def test_short(value: Any, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(45.2, "45 s"), (720, "12 min"), (12_000, "3 h 20 min")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
