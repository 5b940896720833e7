"""The programs of benchmarks/efficiency are imported here, the path left as it was; and a small tier to try them on."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from efficiency.tiers import Tier

_before = list(sys.path)
sys.path.insert(0, str(Path(__file__).parent.parent.parent / "benchmarks"))
# with all that they import: the tests then need no path
for _name in ("run", "page", "front_page"):
    importlib.import_module(f"efficiency.{_name}")
sys.path[:] = _before


@pytest.fixture
def tier(tmp_path: Path) -> Tier:
    from small_tier import write_tier

    from efficiency.tiers import read_tier

    return read_tier(write_tier(tmp_path))
