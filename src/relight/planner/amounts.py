"""Bytes on a device: what they add up to, and how they are told."""

from __future__ import annotations

from collections.abc import Sequence

from relight.executors.base import MemoryUse

GIB = 1 << 30


def peak(uses: Sequence[MemoryUse], keep_programs: bool) -> int:
    """Weights stay; compute buffers exist together, or one at a time."""
    computes = [use.compute for use in uses]
    return sum(use.weights for use in uses) + (sum(computes) if keep_programs else max(computes, default=0))


def amount(nbytes: int) -> str:
    return f"{nbytes / GIB:.2f} GiB" if nbytes >= GIB // 10 else f"{nbytes / 2**20:.1f} MiB"
