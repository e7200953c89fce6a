"""The memory that this process may use: the machine's, the container's, or a limit."""

from __future__ import annotations

import os
import resource
from pathlib import Path

GROUP = Path("/sys/fs/cgroup")


def total_and_free() -> tuple[int, int]:
    """Total and free memory in bytes."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = min(total, _available() or total)
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        total, free = min(total, limit), min(free, limit)
    try:
        most, used = (int((GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no such control group, or no limit ("max")
        return total, free
    return min(total, most), max(0, min(free, most - used))


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None
