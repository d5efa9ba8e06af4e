"""Who wants to know of changes: told in order, outside of the database's lock, one at a time."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable

from relight.ledger.records import Job

log = logging.getLogger("relight.ledger")

Listener = Callable[[Job], None]


class Changes:
    def __init__(self) -> None:
        self._listeners: dict[object, tuple[str | None, Listener]] = {}
        self._untold: deque[Job] = deque()
        self._telling = threading.Lock()

    def watch(self, job_id: str | None, listener: Listener) -> Callable[[], None]:
        """Of one job, or of all; returns how to stop."""
        token = object()
        self._listeners[token] = (job_id, listener)

        def stop() -> None:
            self._listeners.pop(token, None)

        return stop

    def add(self, jobs: Iterable[Job]) -> None:
        """In the order of their changes, so under the lock of those; `tell` comes after."""
        self._untold.extend(jobs)

    def tell(self) -> None:
        """Whoever tells already tells these too, then this returns at once."""
        while self._untold and self._telling.acquire(blocking=False):
            try:
                while self._untold:
                    self._tell(self._untold.popleft())
            finally:
                self._telling.release()

    def _tell(self, job: Job) -> None:
        for job_id, listener in list(self._listeners.values()):
            if job_id in (None, job.id):
                try:
                    listener(job)
                except Exception:  # a listener's fault must not fail the change that it was told of
                    log.exception("job %s: a listener failed", job.id)
