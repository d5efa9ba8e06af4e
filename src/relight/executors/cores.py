"""How many threads a CPU executor should use, and which there are."""

from __future__ import annotations

import functools
import importlib.util
import os

import psutil


def physical_cores() -> int:
    """Those this process may use, without the second thread of each."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(psutil.cpu_count(logical=False) or usable, usable)


@functools.cache
def has_openvino() -> bool:
    """Whether the package is installed, without loading it."""
    return importlib.util.find_spec("openvino") is not None
