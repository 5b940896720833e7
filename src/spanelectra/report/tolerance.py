"""What a damaged file should have held, or nothing of its kind: so a page can be made of what is left."""

from __future__ import annotations

import math
from typing import Any


def number(value: Any) -> float | None:
    """``value`` if it is a finite number, else ``None``; the history writes NaN as text."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def mapping(value: Any) -> dict[str, Any]:
    """``value`` if it is a mapping, its keys as text; else an empty one."""
    return {str(name): item for name, item in value.items()} if isinstance(value, dict) else {}


def listed(value: Any) -> list[Any]:
    """``value`` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []
