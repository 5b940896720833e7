"""A guard against slow steps for machines that other work shares: how many times faster than the naive step is ours?

    python benchmarks/speed_guard.py

Steps of `throughput.py`'s tiny shape take turns of about half a second in processes of their own, so that whatever else
the machine does slows them all; only their ratio is looked at. One line with it is printed, and the exit code is 3
where a ratio is below its bound twice: the first time everything is measured again. Any other code but 0 says nothing
of speed: it could not be measured. The bounds are those of two threads. On two quiet cores ours was 1.78
times as fast as the naive step without boundary heads and 1.62 times with them (docs/throughput-tiny.json, dropout 0.1
on both sides); the bounds are three quarters of that. It takes about a minute, two where it measures again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from throughput import compare, measure

TOO_SLOW = 3  # exit code
NAIVE = "naive Hugging Face"
# step of ours -> least ratio to the naive one
BOUNDS = {"ours without boundary heads": 0.75 * 1.78, "ours": 0.75 * 1.62}


def guard(arguments: argparse.Namespace, rows: Path) -> dict[str, dict[str, Any]]:
    """Ratios to the naive step, by our step's name."""
    measured = measure([NAIVE, *BOUNDS], arguments, rows, "cpu")
    found = {name: compare(measured, name, NAIVE) for name in BOUNDS}
    missing = [name for name, pair in found.items() if pair is None]
    if missing:
        sys.exit(f"speed: not measured: {', '.join(missing)} ({measured['failed']})")
    return {name: pair for name, pair in found.items() if pair is not None}


def too_slow(found: dict[str, dict[str, Any]]) -> list[str]:
    """Our steps whose ratio is below its bound."""
    return [name for name, pair in found.items() if pair["ratio"] < BOUNDS[name]]


def line(found: dict[str, dict[str, Any]], seconds: float) -> str:
    """``speed: ours 1.66 (1.61 - 1.70) times naive, bound 1.22; …``."""
    parts = [
        f"{name} {pair['ratio']:.2f} ({pair['quartiles'][0]:.2f} - {pair['quartiles'][1]:.2f}) times naive, "
        f"bound {BOUNDS[name]:.2f}"
        for name, pair in found.items()
    ]
    return f"speed: {'; '.join(parts)} ({seconds:.0f} s)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work_dir", type=Path, help="for the prepared rows; by default one that is deleted")
    arguments = parser.parse_args()
    arguments.shape = "tiny"
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        from training_steps import SHAPES, prepare_rows

        rows = prepare_rows(arguments.work_dir or Path(temporary), SHAPES[arguments.shape].length)
        found = guard(arguments, rows)
        again = too_slow(found)
        if again:
            print(f"{line(found, time.perf_counter() - start)}: below its bound, measured again", file=sys.stderr)
            found = guard(arguments, rows)
    slow = [name for name in too_slow(found) if name in again]
    print(line(found, time.perf_counter() - start) + (f": TOO SLOW: {', '.join(slow)}" if slow else ""))
    sys.exit(TOO_SLOW if slow else 0)


if __name__ == "__main__":
    main()
