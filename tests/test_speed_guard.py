"""benchmarks/speed_guard.py: below a bound once is a busy machine, twice is a slow step."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
FINE, SLOW = 1.6, 1.0


def found(without_heads: float, ours: float) -> dict[str, dict[str, Any]]:
    return {
        "ours without boundary heads": {"ratio": without_heads, "quartiles": (without_heads, without_heads)},
        "ours": {"ratio": ours, "quartiles": (ours, ours)},
    }


@pytest.mark.parametrize(
    ("turns", "exit_code", "words"),
    [
        ([found(FINE, FINE)], 0, "ours 1.60 (1.60 - 1.60) times naive, bound 1.22"),
        ([found(SLOW, FINE), found(FINE, FINE)], 0, "ours without boundary heads 1.60"),
        ([found(FINE, SLOW), found(FINE, SLOW)], 3, "TOO SLOW: ours\n"),
        # each once: the machine, not a step
        ([found(FINE, SLOW), found(SLOW, FINE)], 0, "ours 1.60"),
    ],
)
def test_what_the_guard_says(
    turns: list[dict[str, Any]],
    exit_code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import speed_guard

    steps = SimpleNamespace(SHAPES={"tiny": SimpleNamespace(length=128)}, prepare_rows=lambda work, length: work)
    monkeypatch.setitem(sys.modules, "training_steps", steps)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    left = list(turns)
    monkeypatch.setattr(speed_guard, "guard", lambda arguments, rows: left.pop(0))
    monkeypatch.setattr(sys, "argv", ["speed_guard.py", "--threads", "1", "--work_dir", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        speed_guard.main()
    assert ended.value.code == exit_code
    printed = capsys.readouterr().out
    assert words in printed and printed.count("\n") == 1 and not left
