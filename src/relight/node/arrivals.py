"""Submissions on their way into the ledger: those that come while others are being written are written together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from relight.ledger import NewJob


class Arrivals[T]:
    """`write` makes several durable at once, each with its `join`, and gives what becomes of each, as
    `Ledger.submit_all` does. One thread does it: a hundred clients at the same moment wait for a few turns of the disk
    and not for a hundred."""

    def __init__(self, write: Callable[[Sequence[tuple[NewJob, bool]]], Sequence[T | Exception]]) -> None:
        self._write_all = write
        self._waiting: list[tuple[Callable[[], NewJob], bool, Future[T]]] = []
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "arrivals")

    async def submit(self, make: Callable[[], NewJob], join: bool) -> T:
        """Durable when it returns; `make` is called in the thread that writes, and must be quick. Raises what it raises
        and what `write` gave for it."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.append((make, join, future))
        self._thread.submit(self._write)
        return await asyncio.wrap_future(future)

    def _write(self) -> None:
        """All that wait; those who left meanwhile are not written."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        asks, futures = [], []
        for make, join, future in waiting:
            if future.set_running_or_notify_cancel():
                try:
                    asks.append((make(), join))
                    futures.append(future)
                except Exception as error:
                    future.set_exception(error)
        for future, outcome in zip(futures, self._written(asks), strict=True):
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _written(self, asks: Sequence[tuple[NewJob, bool]]) -> Sequence[T | Exception]:
        try:
            return self._write_all(asks) if asks else ()
        except Exception as error:  # nobody may wait for ever
            return [error] * len(asks)

    def close(self) -> None:
        """What was not begun is not written."""
        self._thread.shutdown(wait=False, cancel_futures=True)
