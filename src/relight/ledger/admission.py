"""Whether a job may join the queue, and when one that may not should come again.

A refused client is promised a turn: while its time has not come, newcomers are refused as if it waited already, so that
clients which do as they are told get in, however many others knock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from relight.errors import QueueFull
from relight.ledger.clock import Clock
from relight.ledger.records import Limits

LONGEST_S = 120
"""Clients of the OpenAI SDKs give up when told to wait longer."""
EARLY_S, LATE_S = 1.0, 5.0
"""How far from its time a promised client may come."""
MOST_PROMISES = 4096


@dataclass(frozen=True)
class Load:
    """What waits, and `next_begin_s`, the predicted seconds until one of it is begun."""

    queued: int
    seconds: float
    input_bytes: int
    next_begin_s: float


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

    def admit(self, asked: Asked, load: Load) -> None:
        """From here to `arrived` the job counts as one that waits. Raises QueueFull."""
        now = self._clock.monotonic()
        self._promises = [promise for promise in self._promises if promise.due + LATE_S >= now]
        own = next((p for p in self._promises if p.asked.who == asked.who and p.due - EARLY_S <= now), None)
        if own:
            self._promises.remove(own)
        before = [*self._coming, asked, *(() if own else (promise.asked for promise in self._promises))]
        jobs = load.queued + len(before)
        seconds = load.seconds + sum(each.seconds for each in before)
        input_bytes = load.input_bytes + sum(each.input_bytes for each in before)
        reasons = self._reasons(jobs, seconds, input_bytes, alone=jobs == 1)
        if reasons:
            wait_s = self._wait_s(jobs, seconds, load)
            retry_after_s = min(LONGEST_S, max(1, math.ceil(wait_s)))
            if wait_s <= LONGEST_S and len(self._promises) < MOST_PROMISES:
                self._promises.append(Promise(now + retry_after_s, asked))
            raise QueueFull("; ".join(reasons), retry_after_s)
        self._coming.append(asked)

    def arrived(self, asked: Asked) -> None:
        """It has its row, or will not get one."""
        self._coming.remove(asked)

    def _reasons(self, jobs: int, seconds: float, input_bytes: int, *, alone: bool) -> list[str]:
        limits, reasons = self._limits, []
        if jobs > limits.queued:
            reasons.append(f"{jobs - 1} jobs wait or are promised a place, and {limits.queued} may")
        if seconds > limits.queued_seconds and not alone:
            reasons.append(f"{seconds:.0f} s of work would wait with this one, and {limits.queued_seconds:.0f} s may")
        if input_bytes > limits.input_bytes and not alone:
            reasons.append(f"{input_bytes} bytes of inputs would wait with this one, and {limits.input_bytes} may")
        return reasons

    def _wait_s(self, jobs: int, seconds: float, load: Load) -> float:
        """Jobs leave the queue one by one: the first when a running one ends, then each after a mean job's time."""
        mean_s = load.seconds / load.queued if load.queued else 0.0
        too_many = max(0, jobs - self._limits.queued - 1)
        return max(load.next_begin_s + too_many * mean_s, seconds - self._limits.queued_seconds)
