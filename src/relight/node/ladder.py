"""Which way of making pictures is taken: after a failure a safer one, which is remembered where it was needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

from relight.jobs.rungs import RUNGS, Rung

FORGET_S = 3600.0
"""Then the better way is tried again: drivers are updated, and memory that others had comes back."""
TWICE = 2


class Ladder:
    """The rung that each kind of picture (model, size) has been driven to. It is kept while the node runs, for an hour:
    the next one of its kind does not fail in the same way first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._needed: dict[Hashable, list[tuple[float, int]]] = {}
        self._lock = threading.Lock()

    def rung(self, kind: Hashable, losses: int) -> Rung:
        """For an attempt at a picture of this kind, whose job has failed so often."""
        return RUNGS[min(self._remembered(kind) + losses, len(RUNGS) - 1)]

    def worked(self, kind: Hashable, rung: Rung, *, sure: bool) -> None:
        """A picture that had failed was made so. `sure`: memory was short, which it will be again; a worker that died
        may have been a chance, and is remembered when it happened twice."""
        with self._lock:
            times = 1 if not sure else TWICE
            self._needed.setdefault(kind, []).extend([(self._clock(), RUNGS.index(rung))] * times)

    def _remembered(self, kind: Hashable) -> int:
        """The lowest rung that was needed twice lately."""
        with self._lock:
            since = self._clock() - FORGET_S
            lately = [(then, number) for then, number in self._needed.get(kind, ()) if then >= since]
            self._needed[kind] = lately
            numbers = sorted((number for _, number in lately), reverse=True)
        return numbers[TWICE - 1] if len(numbers) >= TWICE else 0
