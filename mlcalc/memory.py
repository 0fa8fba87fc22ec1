"""How much memory is free, and keeping what was freed in the process.

glibc returns each large block to the kernel as soon as it is freed and maps fresh pages for the next. An evaluation
allocates tens of megabytes in large tensors, and on a CPU the page faults can cost as much as the arithmetic: 62 and
150 ms for a direct and a conservative evaluation of 192 atoms became 32 and 84 ms with this setting.
"""

from __future__ import annotations

import ctypes
import math
import sys
from pathlib import Path
from typing import Any

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


def free_bytes(device: Any) -> float:
    """What a process may still take on a torch device; infinite where that cannot be found out.

    On the CPU the least of what the kernel calls available and what is left of the process's control group, which is
    how containers and job schedulers limit memory. On CUDA what the driver has and what torch's allocator keeps unused.
    """
    if device.type == "cuda":
        import torch

        free: int = torch.cuda.mem_get_info(device)[0]
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        return math.inf
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    try:
        group = Path("/sys/fs/cgroup")
        most, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        cache = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return min(available, int(most) - int(used) + int(cache.get("inactive_file", 0)))
    except (OSError, ValueError):  # no such group, or "max": no limit
        return available
