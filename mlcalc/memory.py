"""Keep freed memory in the process, instead of giving it back to the kernel after every step.

glibc returns each large block to the kernel as soon as it is freed and maps fresh pages for the next. An evaluation
allocates tens of megabytes in large tensors, and on a CPU the page faults can cost as much as the arithmetic: 62 and
150 ms for a direct and a conservative evaluation of 192 atoms became 32 and 84 ms with this setting.
"""

from __future__ import annotations

import ctypes
import sys

# parameter numbers of mallopt(3), from glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory(spare_bytes: int = 256 * 2**20) -> bool:
    """Tell glibc's allocator to keep what is freed; the process holds its peak memory until it ends.

    For programs that own their process: the command line and the benchmark call it, the library never does.

    Returns
    -------
    whether the allocator took the setting; False where the C library is not glibc
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    largest = 2**31 - 1
    settings = ((_M_MMAP_THRESHOLD, 2**30), (_M_TRIM_THRESHOLD, largest), (_M_TOP_PAD, spare_bytes))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
