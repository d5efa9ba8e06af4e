"""Models whose workers die again and again are left alone for a while, so that the rest of the node is not."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from relight.errors import ModelStopped

DEATHS, WITHIN_S = 5, 60.0
PAUSE_S, LONGEST_PAUSE_S = 60.0, 600.0
BACK_OFF_S = 0.25
"""Before the third worker; twice as long before each one after."""


@dataclass
class Record:
    """Of one model: when its workers died since it last made a picture, after how many seconds of work, and until when
    it is left alone."""

    deaths: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=DEATHS))
    stops: int = 0
    not_before: float = 0.0
    stopped: bool = False
    died: int = 0

    def recent(self, now: float) -> int:
        """Deaths within WITHIN_S, not counting the time that the dead were at work: one that hangs takes minutes to be
        found out."""
        count, at_work = 0, 0.0
        for then, worked_s in reversed(self.deaths):
            if now - then - at_work > WITHIN_S:
                break
            count, at_work = count + 1, at_work + worked_s
        return count


class Breaker:
    """DEATHS workers lost within WITHIN_S of pauses between work, and without a picture, stop a model for PAUSE_S. Then
    one of its jobs is tried: if that loses its worker too, the model is stopped for twice as long; if it makes its
    picture, all is well. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: dict[str, Record] = defaultdict(Record)
        self._lock = threading.Lock()

    def lost(self, model: str, worked_s: float = 0.0) -> None:
        """A worker has died under a job of this model that had worked so long, hung or not."""
        with self._lock:
            record, now = self._records[model], self._clock()
            record.died += 1
            record.deaths.append((now, worked_s))
            if record.stopped and now < record.not_before:
                return  # of a job that was at work when it was stopped
            recent = record.recent(now)
            if record.stopped or recent >= DEATHS:
                pause = min(LONGEST_PAUSE_S, PAUSE_S * 2**record.stops)
                record.stops, record.stopped = record.stops + 1, True
            else:
                pause = BACK_OFF_S * 2 ** (recent - 2) if recent > 1 else 0.0
            record.not_before = now + pause

    def worked(self, model: str) -> None:
        """It has made a picture."""
        with self._lock:
            record = self._records[model]
            self._records[model] = Record(died=record.died)

    def blocked(self, running: Mapping[str, int]) -> list[str]:
        """Models of which no job is to begin now; `running`: how many there are of each. One that was stopped is tried
        with one job."""
        with self._lock:
            now = self._clock()
            return [
                model
                for model, record in self._records.items()
                if now < record.not_before or (record.stopped and running.get(model, 0))
            ]

    def stopped(self) -> dict[str, float]:
        """Stopped models, with the seconds until they are tried again; 0 for one that is being tried."""
        with self._lock:
            now = self._clock()
            return {
                model: max(0.0, record.not_before - now) for model, record in self._records.items() if record.stopped
            }

    def deaths(self) -> dict[str, int]:
        """Workers that died under jobs of each model, ever."""
        with self._lock:
            return {model: record.died for model, record in self._records.items()}

    def check(self, model: str) -> None:
        """Raises ModelStopped."""
        if (left := self.stopped().get(model, 0.0)) > 0:
            raise ModelStopped(
                f"{model} is stopped for now: {DEATHS} of its workers died one after another. It is tried again in "
                f"{left:.0f} s, with the jobs that wait; the server's log and the failed jobs say what happened",
                round(left) + 1,
            )
