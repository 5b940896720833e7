"""Memory of this process: the most that it has held, and freed blocks that it keeps for the next step."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys

# of glibc's malloc.h: M_TRIM_THRESHOLD (-1: never), M_TOP_PAD (bytes), M_MMAP_MAX
_KEEPS_ALL = {-1: -1, -2: 64 << 20, -4: 0}


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


def keep_freed_memory() -> bool:
    """Have malloc keep what is freed for what is asked for next, instead of returning it to the system.

    Every training step frees and asks for the same blocks. glibc maps large ones anew each time, and the system fills
    each page with zeros at its first touch: up to an eighth of a small model's step (docs/log.md, "Speed"). Other
    allocators keep them anyway. For the whole process, and for good; the commands call it, not the functions.

    Returns:
        Whether anything was changed: only glibc is, and only where the user's environment does not tune it.
    """
    tuned = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if tuned or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, value) == 1 for name, value in _KEEPS_ALL.items())
