"""Which attempts run, when each was last heard of, and how far it is: in memory, by a clock that does not jump.

Only the process that writes the ledger has running attempts, so a lease needs no row: after a restart none is left.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from relight.ledger.clock import Clock
from relight.ledger.records import Attempt, Job

OVERDUE = 0.2
"""Of the predicted time: what a job is expected to take yet that is about to end or should have."""
SAVE_EVERY_S = 1.0
"""Progress goes to the disk this often at most; a crash forgets what came after."""


@dataclass
class Lease:
    number: int
    predicted_seconds: float
    begun: float
    heard: float
    saved: float
    progress: Mapping[str, Any] = field(default_factory=dict)


class Leases:
    """Thread-safe. `follow` keeps it in step with the jobs."""

    def __init__(self, lease_s: float, clock: Clock) -> None:
        self._lease_s, self._clock = lease_s, clock
        self._leases: dict[str, Lease] = {}
        self._lock = threading.Lock()

    def follow(self, job: Job) -> None:
        """A job has changed: the lease of a new attempt begins, that of one which no longer runs ends."""
        now = self._clock.monotonic()
        with self._lock:
            lease = self._leases.get(job.id)
            if job.state != "running":
                self._leases.pop(job.id, None)
            elif lease is None or lease.number != job.attempt:
                self._leases[job.id] = Lease(job.attempt, job.predicted_seconds, now, now, now)

    def hear(self, attempt: Attempt, progress: Mapping[str, Any] | None = None) -> bool:
        """Whether this is the attempt that runs; its time begins anew."""
        with self._lock:
            lease = self._leases.get(attempt.job.id)
            if lease is None or lease.number != attempt.number:
                return False
            lease.heard = self._clock.monotonic()
            lease.progress = lease.progress if progress is None else progress
            return True

    def save_is_due(self, attempt: Attempt) -> bool:
        """Whether progress was last saved long enough ago; if so, it counts as saved now."""
        now = self._clock.monotonic()
        with self._lock:
            lease = self._leases.get(attempt.job.id)
            due = lease is not None and now - lease.saved >= SAVE_EVERY_S
            if lease is not None and due:
                lease.saved = now
            return due

    def progress(self, job_id: str, number: int | None = None) -> Mapping[str, Any] | None:
        """As last heard; None where no attempt runs, or not this one."""
        with self._lock:
            lease = self._leases.get(job_id)
            return lease.progress if lease and number in (None, lease.number) else None

    def silent(self) -> dict[str, int]:
        """Ids and numbers of attempts whose time has run out."""
        now = self._clock.monotonic()
        with self._lock:
            return {job_id: x.number for job_id, x in self._leases.items() if now - x.heard > self._lease_s}

    def next_begin_s(self) -> float:
        """Predicted seconds until a waiting job is begun, which is when a running one ends: predictions are of one job
        after the other, so they count from the one begun last. 0 where none runs."""
        now = self._clock.monotonic()
        with self._lock:
            newest = max(self._leases.values(), key=lambda lease: lease.begun, default=None)
        if newest is None:
            return 0.0
        return max(OVERDUE * newest.predicted_seconds, newest.predicted_seconds - (now - newest.begun))
