"""Memory of the process: its peak, keeping what is freed where the C library can be told to, and letting go of it.

A training step frees and takes the same large buffers again. glibc returns them to the system at once, and the next step waits
for fresh pages to be zeroed: filling 47 MB took 21 ms, and 1.7 ms once the process kept its memory. It holds on to its peak, which
every step reaches anyway.
"""

from __future__ import annotations

import ctypes
import gc
import platform
import re
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
KEEP = 2**31 - 1
PAD = 64 << 20


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed, for the whole process; whether it could be told (it is not on other C libraries)."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(
        mallopt(option, value) for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, KEEP), (M_TOP_PAD, PAD))
    )


def release_memory() -> None:
    """Give back what an ended run held: its objects refer to each other, and glibc keeps what is freed."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory() -> int | None:
    """The most bytes that this process has held, None where the system does not say.

    On Linux from /proc: `getrusage` also counts what the process was before `exec`, that is its parent's memory.
    """
    try:
        told = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        told = None
    if told is not None:
        return int(told[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
