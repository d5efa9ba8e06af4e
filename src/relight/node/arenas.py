"""Memory of a server with many threads, on Linux.

glibc gives threads heaps of their own, up to eight for each core, and none uses what was freed in another: with a
thread for each answer the process grows for as long as it is busy.
"""

from __future__ import annotations

import ctypes
import sys

M_ARENA_MAX = -8
HEAPS = 2


def share_heaps() -> None:
    """Before threads are started."""
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_ARENA_MAX, HEAPS)
