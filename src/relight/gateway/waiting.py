"""Who waits for what: a client that leaves ends only the work that nobody else waits for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any

from relight.errors import KeyConflict, RelightError
from relight.gateway.node import Node

log = logging.getLogger(__name__)

MOST_REMEMBERED = 1024
GRACE_S = 15.0
"""Official clients wait at most 8 s before they ask again."""


@dataclass(eq=False)
class Work[T]:
    """A task and how many wait for it."""

    task: asyncio.Task[T]
    digest: bytes
    waiting: int = 0


class Shared[T]:
    """Answers in the making by what identifies their request, and those just made."""

    def __init__(self, remember_s: float) -> None:
        self._remember_s = remember_s
        self._works: OrderedDict[Hashable, Work[T]] = OrderedDict()
        self._all: set[asyncio.Task[T]] = set()

    def __len__(self) -> int:
        """How many are in the making."""
        return len(self._all)

    async def result(
        self,
        key: Hashable,
        digest: bytes,
        make: Callable[[], Coroutine[Any, Any, T]],
        *,
        join: bool,
        grace: Callable[[], bool],
        remember_s: float | None = None,
    ) -> T:
        """What `make` gives, or with `join` what the latest request of this key gets. Cancelling this call ends the
        making when nobody else waits and `grace` does not say that the client will be back.

        Raises KeyConflict where the key was used for another request."""
        work = self._works.get(key) if join else None
        if work is None or work.task.cancelled() or work.task.cancelling():
            work = self._start(key, digest, make, self._remember_s if remember_s is None else remember_s)
        elif work.digest != digest:
            raise KeyConflict("Idempotency-Key: it was used for another request; take a new one")
        work.waiting += 1
        try:
            return await asyncio.shield(work.task)
        finally:
            work.waiting -= 1
            if not work.waiting and not work.task.done():
                if grace():
                    asyncio.get_running_loop().call_later(GRACE_S, self._end, work)
                else:
                    work.task.cancel()

    def _start(
        self, key: Hashable, digest: bytes, make: Callable[[], Coroutine[Any, Any, T]], remember_s: float
    ) -> Work[T]:
        work = Work(asyncio.create_task(make()), digest)
        self._all.add(work.task)
        self._works[key] = work
        self._works.move_to_end(key)
        for old in [each for each, other in self._works.items() if other.task.done()][:-MOST_REMEMBERED]:
            del self._works[old]
        work.task.add_done_callback(lambda task: self._ended(key, work, remember_s))
        return work

    def _ended(self, key: Hashable, work: Work[T], remember_s: float) -> None:
        self._all.discard(work.task)
        if not work.task.cancelled():
            work.task.exception()  # seen, also where all have left
        asyncio.get_running_loop().call_later(remember_s, self._forget, key, work)

    def _forget(self, key: Hashable, work: Work[T]) -> None:
        if self._works.get(key) is work:
            del self._works[key]

    def _end(self, work: Work[T]) -> None:
        if not work.waiting:
            work.task.cancel()

    async def close(self) -> None:
        """End everything; returns when it has ended."""
        for task in self._all:
            task.cancel()
        await asyncio.gather(*self._all, return_exceptions=True)


class Holds:
    """Jobs that clients wait for with an open connection. `interactive` ones end when the last of them leaves."""

    def __init__(self, node: Node, remember_s: float) -> None:
        self._node = node
        self._remember_s = remember_s
        self._waiting: dict[str, int] = {}
        self._interactive: set[str] = set()
        self._recent: OrderedDict[Hashable, tuple[str, float]] = OrderedDict()
        self._ending: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many jobs are waited for or being ended."""
        return len(self._waiting) + len(self._ending)

    def jobs(self) -> list[str]:
        """Those that clients wait for."""
        return list(self._waiting)

    def clients(self, job_id: str) -> int:
        return self._waiting.get(job_id, 0)

    def recent(self, key: Hashable) -> str | None:
        """The job of a request that was answered or broken off not long ago."""
        job_id, until = self._recent.get(key, ("", 0.0))
        return job_id if until > time.monotonic() else None

    def remember(self, key: Hashable, job_id: str) -> None:
        self._recent[key] = job_id, float("inf")
        self._recent.move_to_end(key)
        while len(self._recent) > MOST_REMEMBERED:
            self._recent.popitem(last=False)

    def ended(self, key: Hashable) -> None:
        """The job of this request has ended: remember it a while longer."""
        if key in self._recent:
            self._recent[key] = self._recent[key][0], time.monotonic() + self._remember_s

    def forget(self, key: Hashable) -> None:
        self._recent.pop(key, None)

    def keep(self, job_id: str) -> None:
        """Somebody wants the job also while he is away."""
        self._interactive.discard(job_id)

    @contextlib.asynccontextmanager
    async def waiting(
        self, job_id: str, *, interactive: bool = False, grace: Callable[[], bool] = lambda: False
    ) -> AsyncIterator[None]:
        """As long as a client waits for the job. Cancels it at the end when it was nobody else's to wait for; the
        node says no to that where the job has ended."""
        if interactive and job_id not in self._waiting:
            self._interactive.add(job_id)
        self._waiting[job_id] = self._waiting.get(job_id, 0) + 1
        finished = False
        try:
            yield
            finished = True
        finally:
            self._waiting[job_id] -= 1
            if not self._waiting[job_id]:
                del self._waiting[job_id]
                if finished:
                    self._interactive.discard(job_id)
                elif job_id in self._interactive:
                    self._leave(job_id, GRACE_S if grace() else 0.0)

    def leave_all(self) -> None:
        """The gateway stops: jobs are durable and go on without it."""
        self._interactive.clear()

    def leave(self, job_id: str) -> None:
        """Whoever submitted the job left before he waited for it."""
        if job_id not in self._waiting:
            self._interactive.add(job_id)
            self._leave(job_id, 0.0)

    def _leave(self, job_id: str, grace_s: float) -> None:
        task = asyncio.create_task(self._cancel(job_id, grace_s))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _cancel(self, job_id: str, grace_s: float) -> None:
        if grace_s:
            await asyncio.sleep(grace_s)
        if job_id in self._waiting or job_id not in self._interactive:
            return
        self._interactive.discard(job_id)
        try:
            await self._node.cancel(job_id)
        except RelightError as error:
            log.info("job %s could not be cancelled: %s", job_id, type(error).__name__)
