"""Who listens to which job: events from the threads that work to the loops that wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from typing import Any


class Hub[T]:
    """Listeners of one job each. A listener that is slow misses what came between: the newest counts."""

    def __init__(self) -> None:
        self._queues: dict[str, list[tuple[asyncio.AbstractEventLoop, asyncio.Queue[T]]]] = {}
        self._lock = threading.Lock()

    def heard(self, job_id: str) -> bool:
        """Whether anybody listens: whoever begins to later looks at the job first."""
        with self._lock:
            return job_id in self._queues

    def publish(self, job_id: str, event: T) -> None:
        """From any thread."""
        with self._lock:
            listeners = list(self._queues.get(job_id, ()))
        for loop, queue in listeners:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_newest, queue, event)

    async def listen(self, job_id: str, ended: Callable[[T], bool]) -> AsyncGenerator[T]:
        """Events from now on, until one of them says that the job has ended."""
        queue: asyncio.Queue[T] = asyncio.Queue(64)
        entry: Any = (asyncio.get_running_loop(), queue)
        with self._lock:
            self._queues.setdefault(job_id, []).append(entry)
        try:
            while True:
                event = await queue.get()
                yield event
                if ended(event):
                    return
        finally:
            with self._lock:
                self._queues[job_id].remove(entry)
                if not self._queues[job_id]:
                    del self._queues[job_id]


def _newest[T](queue: asyncio.Queue[T], event: T) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(event)
