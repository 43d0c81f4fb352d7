"""
How many processors there are for this process.
"""

from __future__ import annotations

import os

__all__ = ["cpu_count"]


def cpu_count(quota_file: str = "/sys/fs/cgroup/cpu.max") -> int:
    """
    How many processors this process may use: its affinity and its control group's quota, whichever is less.

    Args:
        quota_file: Where the kernel tells the quota: microseconds of processors, in so many microseconds; ``max`` for none.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open(quota_file, encoding="ascii") as file:  # noqa: PTH123  # pathlib is an import more
            quota, period = file.read().split()
        return max(1, min(allowed, int(quota) // int(period)))
    except (OSError, ValueError):  # no quota, or none that is told here
        return allowed
