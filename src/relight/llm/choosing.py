"""The next tokens of several answers at once: llama.cpp's samplers run beside one another, without Python's lock.

One takes 0.2 to 0.4 ms for a vocabulary of 128,000, and the card waits meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

WORTH_THREADS = 50_000
"""Tokens of a vocabulary from which on handing a sampler to another thread takes less time than the sampler."""


class Choosing:
    """`threads` at most, the caller's among them."""

    def __init__(self, vocabulary_size: int, threads: int) -> None:
        beside = threads - 1 if vocabulary_size >= WORTH_THREADS else 0
        self._pool = ThreadPoolExecutor(beside, "sampling") if beside > 0 else None

    def choose(self, context: Any, asked: Sequence[tuple[Any, int]]) -> list[int | Exception]:
        """For each sampler and row of the last batch a token, or what went wrong with it alone.

        The first goes alone: it waits for the device and puts the rows in order, after which they are only read.
        """
        if self._pool is None or len(asked) < 2:
            return [_chosen(context, *each) for each in asked]
        first = _chosen(context, *asked[0])
        waiting = [self._pool.submit(_chosen, context, *each) for each in asked[2:]]
        return [first, _chosen(context, *asked[1]), *(each.result() for each in waiting)]

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()


def _chosen(context: Any, sampler: Any, row: int) -> int | Exception:
    try:
        return int(sampler.sample(context, row))
    except Exception as error:
        return error
