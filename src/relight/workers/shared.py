"""Memory that two processes have in common: one writes an array there, the other finds it, and no pipe is between."""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ALIGNMENT = 64
VARIABLE = "RELIGHT_SHARED_MEMORY"

Layout = Sequence[tuple[np.dtype, Sequence[int]]]
"""Of arrays that lie one after another: type and shape."""


class Shared:
    """One direction between a parent and its child; it grows with what is put there, and goes with the last of both.

    What was put is there until the next `put`: whoever writes has to know that the other side has read.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map: mmap.mmap | None = None
        weakref.finalize(self, os.close, fd)

    def put(self, arrays: Sequence[np.ndarray]) -> None:
        """Contiguous ones, one after another. Raises OSError where there is no memory."""
        layout = [(array.dtype, array.shape) for array in arrays]
        needed = sum(map(_room, layout))
        if needed > os.fstat(self.fd).st_size:
            os.ftruncate(self.fd, needed)
        for there, array in zip(self.find(layout), arrays, strict=True):
            there[...] = array

    def find(self, layout: Layout) -> list[np.ndarray]:
        """The arrays that were put, where they lie. Raises ValueError where there are not so many bytes."""
        sizes = [_room(each) for each in layout]
        memory = self._mapped(sum(sizes))
        begins = [sum(sizes[:i]) for i in range(len(sizes))]
        return [
            np.frombuffer(memory, dtype, math.prod(shape), begin).reshape(shape)
            for (dtype, shape), begin in zip(layout, begins, strict=True)
        ]

    def _mapped(self, nbytes: int) -> mmap.mmap:
        """Arrays of an older map keep that one."""
        if self._map is None or len(self._map) < nbytes:
            self._map = mmap.mmap(self.fd, os.fstat(self.fd).st_size)
        return self._map


class Both(NamedTuple):
    """Both directions, as one of the two processes has them."""

    outgoing: Shared
    incoming: Shared

    @classmethod
    def create(cls) -> Both | None:
        """The parent's. None where the system has no memory without a name, which is Linux's."""
        if not hasattr(os, "memfd_create"):
            return None
        return cls(*(Shared(os.memfd_create(f"relight {way}")) for way in ("call", "result")))

    @property
    def fds(self) -> tuple[int, int]:
        """For the child to inherit."""
        return self.outgoing.fd, self.incoming.fd

    @property
    def environment(self) -> dict[str, str]:
        """What tells the child of it."""
        return {VARIABLE: "{},{}".format(*self.fds)}

    @classmethod
    def inherited(cls) -> Both | None:
        """The child's, where the parent gave it any."""
        named = os.environ.pop(VARIABLE, None)
        if named is None:
            return None
        incoming, outgoing = (Shared(int(fd)) for fd in named.split(","))
        return cls(outgoing, incoming)


def _room(each: tuple[np.dtype, Sequence[int]]) -> int:
    dtype, shape = each
    return -(-dtype.itemsize * math.prod(shape) // ALIGNMENT) * ALIGNMENT
