"""Two clocks: one that only goes on, for leases, and the user's, whose jumps must not put events out of order."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock:
    """What the operating system says; tests put another in its place."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()


class Stamps:
    """Microseconds since 1970, each later than the one before, also where the clock is set back.

    `after` is the last stamp of the ledger so far.
    """

    def __init__(self, clock: Clock, after: int) -> None:
        self._clock, self._last = clock, after
        self._wall_at_start, self._monotonic_at_start = clock.wall(), clock.monotonic()

    def next(self) -> int:
        self._last = max(int(self._clock.wall() * 1e6), self._last + 1)
        return self._last

    def for_ages(self) -> int:
        """Now, as far as the clock that only goes on confirms it: one set forward must not make results look old."""
        elapsed = self._clock.monotonic() - self._monotonic_at_start
        return int(min(self._clock.wall(), self._wall_at_start + elapsed) * 1e6)


def as_datetime(stamp: int) -> datetime:
    return EPOCH + timedelta(microseconds=stamp)
