"""Numbers as people read them."""

from __future__ import annotations

import math
from typing import Any

from spanelectra.report.tolerance import number


def short(value: Any) -> str:
    """A number in four figures, thousands with commas; text as it is, and a dash for nothing."""
    exact = number(value)
    if exact is None:
        return "–" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if exact and not 1e-3 <= abs(exact) < 1e9:
        return f"{exact:.3g}"
    decimals = 3 - math.floor(math.log10(abs(exact))) if exact else 0
    return f"{exact:,.{min(max(decimals, 0), 4)}f}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
