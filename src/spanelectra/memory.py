"""Memory of this process: the most that it has held, and freed blocks that it keeps for the next step."""

from __future__ import annotations

import ctypes
import platform
import resource
import sys

# glibc's malloc.h: what mallopt's parameters are called there
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


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
    each page with zeros at its first touch: an eighth of a step of the tiny recipe. Other allocators keep them anyway.

    Returns:
        Whether anything was changed: only glibc is.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    wanted = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 << 20}
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in wanted.items())
