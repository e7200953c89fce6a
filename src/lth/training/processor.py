"""The processor of this machine: its name, its instruction sets, and the cores that this process may use."""

from __future__ import annotations

import os
import platform
from functools import lru_cache
from pathlib import Path


def name() -> str:
    return _described().get("model name") or platform.processor() or platform.machine()


def flags() -> frozenset[str]:
    """The flags of the processor; empty if the system has no /proc/cpuinfo."""
    described = _described()
    return frozenset((described.get("flags") or described.get("features") or "").split())


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def _described() -> dict[str, str]:
    """The first value of each field of /proc/cpuinfo, by its name in lower case."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    fields = [line.partition(":") for line in lines if ":" in line]
    return {key.strip().lower(): value.strip() for key, _, value in reversed(fields)}
