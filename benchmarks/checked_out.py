"""Which commit a figure was measured at."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def checked_out(*paths: str) -> dict[str, Any]:
    """``commit`` that is checked out, None without git, and whether these paths are as they are there (``clean``)."""
    try:
        commit, changes = (
            subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
            for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--", *paths))
        )
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "clean": False}
    return {"commit": commit, "clean": not changes}


def at(state: dict[str, Any]) -> str:
    """The same in words, of a measurement that :func:`checked_out` was kept with."""
    return f"at {state.get('commit') or 'an unknown commit'}{'' if state.get('clean', True) else ' with changes'}"
