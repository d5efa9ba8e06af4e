"""Ledgers for tests: a clock that stands until told, and jobs of few words."""

from __future__ import annotations

from typing import Any

from relight.ledger import Attempt, Ledger, NewJob
from relight.ledger.clock import Clock


class HandClock(Clock):
    """Moves when told. `jump` sets the user's clock and leaves the other as it is."""

    def __init__(self) -> None:
        self._monotonic, self._wall = 1000.0, 1_800_000_000.0

    def monotonic(self) -> float:
        return self._monotonic

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        self._monotonic += seconds
        self._wall += seconds

    def jump(self, seconds: float) -> None:
        self._wall += seconds


def new_job(prompt: str = "a lighthouse", **more: Any) -> NewJob:
    return NewJob(kind="image", model="tiny", request={"prompt": prompt}, **more)


def claim(ledger: Ledger) -> Attempt:
    attempt = ledger.claim(["image"], "worker")
    assert attempt is not None
    return attempt
