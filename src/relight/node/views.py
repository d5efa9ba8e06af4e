"""Jobs as the gateway sees them, and how long they will still take."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from relight import ledger
from relight.gateway.node import JobError, JobEvent, JobView, ResultView
from relight.jobs.events import Advanced, Event, Planned, Previewed

DECODE_SHARE = 0.15
"""Of a picture's seconds, after its last step: until a model has made one here."""
ROUGH_S = 30.0
"""A picture of which nothing is known."""


@dataclass
class Live:
    """What a running job told last. `number` counts its events."""

    number: int = 0
    stage: str | None = None
    step: int | None = None
    of: int | None = None
    preview: bytes | None = None
    step_seconds: list[float] = field(default_factory=list)


class Pace:
    """Seconds that pictures of a kind took here: the means of the last few. Several are in the works at once, so there
    are two: from a picture's beginning to its end, and from the end of the one before."""

    KEPT = 8
    CHANGED = 1.5
    """A prediction this many times too long or too short is made anew."""

    def __init__(self) -> None:
        self._seconds: dict[object, list[float]] = {}
        self._apart: dict[object, list[float]] = {}
        self._last_end = float("-inf")
        self._lock = threading.Lock()

    def took(self, kind: object, seconds: float, ended: float) -> None:
        """`ended`: the moment, in seconds of any clock."""
        with self._lock:
            apart = max(0.0, min(seconds, ended - self._last_end))
            self._last_end = max(ended, self._last_end)
            for known, took in ((self._seconds, seconds), (self._apart, apart)):
                known[kind] = [*known.get(kind, ()), took][-self.KEPT :]

    def expected(self, kind: object) -> float:
        """Of one more, from its beginning; of any kind where this one was not seen yet."""
        return self._mean(self._seconds, kind)

    def apart(self, kind: object) -> float:
        """What one more adds to the seconds of those that wait."""
        return self._mean(self._apart, kind)

    def wrong(self, job: ledger.Job) -> bool:
        """Whether what was predicted of this job is far from what would be now."""
        expected = self.apart(kind_of(job))
        return not expected / self.CHANGED <= job.predicted_seconds <= expected * self.CHANGED

    def _mean(self, of: dict[object, list[float]], kind: object) -> float:
        with self._lock:
            known = of.get(kind) or [s for seconds in of.values() for s in seconds]
        return sum(known) / len(known) if known else ROUGH_S


def kind_of(job: ledger.Job | ledger.NewJob) -> object:
    asked = job.request
    return job.model, asked.get("width"), asked.get("height"), asked.get("steps"), asked.get("batch", 1)


class Lives:
    """The running jobs' last words, by job."""

    def __init__(self) -> None:
        self._lives: dict[str, Live] = {}
        self._lock = threading.Lock()

    def tell(self, job_id: str, event: Event, preview: bytes | None = None) -> Live:
        with self._lock:
            live = self._lives.setdefault(job_id, Live())
            live.number += 1
            if isinstance(event, Advanced):
                live.stage, live.step, live.of = event.stage, event.done, event.total
                if event.stage == "denoise":
                    live.step_seconds.append(event.seconds)
            elif isinstance(event, Planned):
                live.stage, live.step, live.of = "plan", None, None
            elif isinstance(event, Previewed):
                live.preview = preview
            return live

    def changed(self, job_id: str) -> Live:
        """Another event, without news of its own."""
        with self._lock:
            live = self._lives.setdefault(job_id, Live())
            live.number += 1
            return live

    def get(self, job_id: str) -> Live:
        with self._lock:
            return self._lives.get(job_id) or Live()

    def forget(self, job_id: str) -> None:
        with self._lock:
            self._lives.pop(job_id, None)


def seconds_left(job: ledger.Job, live: Live, ahead: float, pace: Pace) -> float | None:
    """`ahead` are the seconds of what is before it."""
    if job.ended:
        return None
    expected = pace.expected(kind_of(job))
    if job.state == "queued" or job.started is None:
        return round(ahead + expected, 1)
    if live.step_seconds and live.of and live.step is not None:
        each = sum(live.step_seconds[-3:]) / len(live.step_seconds[-3:])
        steps = live.of - live.step if live.stage == "denoise" else 0  # a decoder's bytes and tiles are no steps
        return round(each * steps + DECODE_SHARE * expected, 1)
    return round(max(1.0, expected - (time.time() - job.started.timestamp())), 1)


def view(job: ledger.Job, live: Live, position: int | None, left: float | None) -> JobView:
    error = JobError(job.error.code, job.error.message) if job.error and job.ended else None
    return JobView(
        id=job.id,
        kind=job.kind,
        model=job.model,
        owner=job.owner,
        state=job.state,
        created=job.created,
        started=job.started,
        finished=job.finished,
        attempt=job.attempt,
        position=position,
        stage=live.stage,
        step=live.step,
        of=live.of,
        seconds_left=left,
        error=error,
        results=tuple(ResultView(r.index, r.media_type, r.size, r.sha256, r.about) for r in job.results),
    )


def event(seen: JobView, live: Live, *, with_preview: bool) -> JobEvent:
    return JobEvent(
        number=live.number,
        state=seen.state,
        position=seen.position,
        stage=seen.stage,
        step=seen.step,
        of=seen.of,
        seconds_left=seen.seconds_left,
        preview=live.preview if with_preview else None,
        error=seen.error,
    )
