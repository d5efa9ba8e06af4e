"""How many threads a CPU executor should use."""

from __future__ import annotations

import os

import psutil


def physical_cores() -> int:
    """Those this process may use, without the second thread of each."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(psutil.cpu_count(logical=False) or usable, usable)
