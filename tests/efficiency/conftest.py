"""The scripts of benchmarks/efficiency can be imported, and a small tier to try them on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent.parent / "benchmarks" / "efficiency"))

from small_tier import write_tier
from tiers import Tier, read_tier


@pytest.fixture
def tier(tmp_path: Path) -> Tier:
    return read_tier(write_tier(tmp_path))
