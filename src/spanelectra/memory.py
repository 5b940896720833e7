"""The most memory that this process has held."""

from __future__ import annotations

import resource
import sys


def peak_memory_mib() -> float:
    """Largest resident set of this process so far, in MiB."""
    try:
        # getrusage's number outlives exec: a small process started by a large one would report the large one's
        with open("/proc/self/status", encoding="utf-8") as stream:
            return next(int(line.split()[1]) for line in stream if line.startswith("VmHWM")) / (1 << 10)
    except (OSError, StopIteration):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
