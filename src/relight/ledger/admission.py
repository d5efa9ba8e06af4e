"""Whether a job may join the queue, and when one that may not should come again.

A refused client is promised a turn: while its time has not come, newcomers are refused as if it waited already, so that
clients which do as they are told get in, however many others knock. Of the promises only so many are counted as were
taken up before, and a place is kept only where none would be free at its time: those who never come again keep nobody
else out.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from dataclasses import dataclass

from relight.errors import QueueFull
from relight.ledger.clock import Clock
from relight.ledger.records import Limits

LONGEST_S = 120
"""Clients of the OpenAI SDKs give up when told to wait longer."""
SPREAD = 1.2
"""Promises are this much further apart than jobs are begun: those that take longer than predicted do not crowd out who
comes when he was told, and what stays free is for newcomers."""
AT_MOST = 2.0
"""Times as late as the line by itself is long: promises that turn out to be nobody's do not put off the next."""
EARLY_S, LATE_S = 1.0, 5.0
"""How far from its time a promised client may come."""
MOST_PROMISES = 4096
SHORTEST_S, ON_TIME = 0.001, 0.8
KEEPS_BUSY = 2
"""Places that are for whoever comes first: with so few waiting, the card might soon have nothing to do."""
AT_FIRST, REMEMBERED = 8, 64
"""Promises by which it is judged how many are taken up; before the first one so many count as if they had been."""
LOOKED_AHEAD_S = (0, 1, 2, 5, 10, 20, 40, 80, 120)


@dataclass(frozen=True)
class Load:
    """What waits, and `next_begin_s`, the predicted seconds until one of it is begun."""

    queued: int
    seconds: float
    input_bytes: int
    next_begin_s: float

    @property
    def mean_s(self) -> float:
        return self.seconds / self.queued if self.queued else 0.0

    def left_after(self, seconds: float) -> float:
        """How many of those that wait will have been begun by then, should some take longer than predicted."""
        if not self.queued or seconds < self.next_begin_s:
            return 0.0
        return ON_TIME * (1 + (seconds - self.next_begin_s) // max(self.mean_s, SHORTEST_S))


@dataclass(frozen=True)
class Asked:
    """`who`: owner and digest of the request, by which one that comes again is known."""

    who: tuple[str, str]
    seconds: float
    input_bytes: int


@dataclass(frozen=True)
class Promise:
    due: float
    asked: Asked


class Admission:
    """Not thread-safe: asked under the database's lock."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits, self._clock = limits, clock
        self._promises: list[Promise] = []
        self._coming: list[Asked] = []
        self._kept = self._made = float(AT_FIRST)
        self._last_due = 0.0

    def admit(self, asked: Asked, load: Load) -> None:
        """From here to `arrived` the job counts as one that waits. Raises QueueFull."""
        now = self._clock.monotonic()
        own = self._own(asked, now)
        before = [*self._coming, asked]
        all_promised, kept = self._promised(load, now)
        kept = 0.0 if own else kept
        jobs = load.queued + len(before) + math.ceil(kept)
        seconds = load.seconds + sum(each.seconds for each in before) + kept * load.mean_s
        input_bytes = load.input_bytes + sum(each.input_bytes for each in before)
        most = self._limits.queued if own else self._for_newcomers
        reasons = self._reasons(jobs, most, seconds, input_bytes, alone=jobs == 1)
        if reasons:
            promised = max(kept, all_promised)
            behind = load.queued + len(before) + math.ceil(promised)
            wait_s = self._wait_s(behind, seconds + (promised - kept) * load.mean_s, load)
            after_last_s = self._last_due - now + SPREAD * load.mean_s * self._kept / self._made
            wait_s = max(wait_s, min(after_last_s, AT_MOST * wait_s))
            retry_after_s = min(LONGEST_S, max(1, math.ceil(wait_s)))
            if len(self._promises) < MOST_PROMISES:
                self._last_due = now + min(wait_s, LONGEST_S)
                insort(self._promises, Promise(now + retry_after_s, asked), key=_due)
            raise QueueFull("; ".join(reasons), retry_after_s)
        self._coming.append(asked)

    def predicted_anew(self) -> None:
        """What was promised last came of seconds that were wrong: it is no measure for the next."""
        self._last_due = 0.0

    def _own(self, asked: Asked, now: float) -> bool:
        """Whether it was promised a turn and this is the time; promises that nobody came for are over."""
        over = bisect_right(self._promises, now - LATE_S, key=_due)
        del self._promises[:over]
        self._judge(kept=0, made=over)
        own = next((p for p in self._promises if p.asked.who == asked.who and p.due - EARLY_S <= now), None)
        if own:
            self._promises.remove(own)
            self._judge(kept=1, made=1)
        return own is not None

    def _promised(self, load: Load, now: float) -> tuple[float, float]:
        """How many of the promises will be taken up, and for how many a place must be kept: those that come before
        enough of the jobs that wait have left."""
        taken_up = self._kept / self._made
        due = [taken_up * bisect_right(self._promises, now + ahead, key=_due) for ahead in LOOKED_AHEAD_S]
        kept = [come - load.left_after(ahead) for come, ahead in zip(due, LOOKED_AHEAD_S, strict=True)]
        most = max(1, self._for_newcomers - KEEPS_BUSY)
        return taken_up * len(self._promises), min(most, max(0.0, *kept))

    def _judge(self, kept: int, made: int) -> None:
        self._kept, self._made = self._kept + kept, self._made + made
        if self._made > REMEMBERED:
            self._kept, self._made = self._kept * REMEMBERED / self._made, float(REMEMBERED)

    def arrived(self, asked: Asked) -> None:
        """It has its row, or will not get one."""
        self._coming.remove(asked)

    @property
    def _for_newcomers(self) -> int:
        """Places but for an eighth: those who were told a time find room also where jobs take longer than predicted."""
        return self._limits.queued - (self._limits.queued + 4) // 8

    def _reasons(self, jobs: int, most: int, seconds: float, input_bytes: int, *, alone: bool) -> list[str]:
        limits, reasons = self._limits, []
        if jobs > most:
            reasons.append(f"{jobs - 1} jobs wait or are promised a place, and {most} may")
        if seconds > limits.queued_seconds and not alone:
            reasons.append(f"{seconds:.0f} s of work would wait with this one, and {limits.queued_seconds:.0f} s may")
        if input_bytes > limits.input_bytes and not alone:
            reasons.append(f"{input_bytes} bytes of inputs would wait with this one, and {limits.input_bytes} may")
        return reasons

    def _wait_s(self, jobs: int, seconds: float, load: Load) -> float:
        """Jobs leave the queue one by one: the first when a running one ends, then each after a mean job's time."""
        too_many = max(0, jobs - self._for_newcomers - 1)
        return max(load.next_begin_s + too_many * load.mean_s, seconds - self._limits.queued_seconds)


def _due(promise: Promise) -> float:
    return promise.due
