"""Who has how much of the card: never more in all than it holds, by plan and by the device's own word."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from relight.errors import DoesNotFit
from relight.planner.amounts import amount

log = logging.getLogger(__name__)

SETTLED_S = 5.0
"""What drivers take to give memory back after a process has ended."""
POLL_S = 0.02


class Tenant(Protocol):
    """What can hold a part of the card."""

    @property
    def busy(self) -> bool:
        """Whether somebody waits for what it does now."""

    def leave(self, *, wholly: bool = False) -> bool:
        """Give all of it back, and `wholly` also what it keeps elsewhere to come back soon; False where it has become
        busy meanwhile. It must not wait for one that asks the card for anything."""


@dataclass
class Holding:
    """`there`: whether it has anything, on the card or kept elsewhere."""

    tenant: Tenant
    nbytes: int = 0
    there: bool = False
    pinned: bool = False
    used: float = 0.0


class Card:
    """One GPU of `total` bytes to give out. `free` asks the device what is free; None where it cannot say."""

    def __init__(self, total: int, free: Callable[[], int | None] = lambda: None) -> None:
        self.total, self._free = total, free
        self._holdings: dict[str, Holding] = {}
        self._lock = threading.RLock()

    def join(self, name: str, tenant: Tenant, *, pinned: bool = False) -> None:
        with self._lock:
            self._holdings[name] = Holding(tenant, pinned=pinned)

    def held(self) -> dict[str, int]:
        with self._lock:
            return {name: holding.nbytes for name, holding in self._holdings.items()}

    def room(self, name: str, *, undisturbed: bool = True) -> int:
        """Bytes `name` could have without anybody leaving who is at work or pinned: those of idle others count. If not
        `undisturbed`, those of others at work as well."""
        with self._lock:
            others = [h for n, h in self._holdings.items() if n != name]
            return self.total - sum(h.nbytes for h in others if h.pinned or undisturbed and h.tenant.busy)

    def take(self, name: str, nbytes: int) -> None:
        """Let `name` hold so many bytes, whatever it held before; idle others leave for that, the longest unused first,
        and what they leave is waited for. Raises DoesNotFit where those at work or pinned leave too little."""
        with self._lock:
            mine = self._holdings[name]
            left = nbytes <= self.room(name) and self._make_room(name, nbytes)
            if self._others(name) + nbytes > self.total:
                others = ", ".join(
                    f"{n} {amount(h.nbytes)}" for n, h in self._holdings.items() if n != name and h.nbytes
                )
                raise DoesNotFit(
                    f"{name} needs {amount(nbytes)} of the card's {amount(self.total)}; in use: {others or 'nothing'}. "
                    "Wait until that is idle, or take a smaller model or picture"
                )
            grown = nbytes - mine.nbytes
            mine.nbytes, mine.there, mine.used = nbytes, True, time.monotonic()
        if left:
            self._wait_until_free(grown)

    def take_when_idle(self, name: str, nbytes: int, give_up: Callable[[], bool]) -> None:
        """As `take`, but those at work are waited for. Raises DoesNotFit only where even that would not help, or when
        `give_up` says so."""
        while True:
            try:
                return self.take(name, nbytes)
            except DoesNotFit:
                with self._lock:
                    pinned = sum(h.nbytes for n, h in self._holdings.items() if n != name and h.pinned)
                if nbytes > self.total - pinned or give_up():
                    raise
                time.sleep(POLL_S)

    def _make_room(self, name: str, nbytes: int) -> bool:
        """Whether anybody left."""
        idle = [(h.used, n) for n, h in self._holdings.items() if n != name and h.nbytes and not h.pinned]
        left = False
        for _, other in sorted(idle):
            if self._others(name) + nbytes <= self.total:
                break
            holding = self._holdings[other]
            if holding.tenant.busy or not holding.tenant.leave():
                continue
            log.info("%s has left the card for %s: %s", other, name, amount(holding.nbytes))
            holding.nbytes, left = 0, True
        return left

    def _others(self, name: str) -> int:
        return sum(holding.nbytes for other, holding in self._holdings.items() if other != name)

    def _wait_until_free(self, nbytes: int) -> None:
        deadline = time.monotonic() + SETTLED_S
        while (free := self._free()) is not None and free < nbytes and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def give_back(self, name: str) -> None:
        with self._lock:
            self._holdings[name].nbytes = 0

    def touch(self, name: str) -> None:
        """It was used now."""
        with self._lock:
            self._holdings[name].used = time.monotonic()

    def send_away(self, name: str) -> bool:
        """Let it leave, pinned or not; False where it is busy."""
        with self._lock:
            holding = self._holdings[name]
            return not holding.tenant.busy and self._gone(holding)

    def leave_if_idle(self, after_s: float) -> list[str]:
        """Those that were unused for so long leave; their names."""
        now = time.monotonic()
        with self._lock:
            idle = [
                name
                for name, h in self._holdings.items()
                if h.there and not h.pinned and not h.tenant.busy and now - h.used >= after_s
            ]
            return [name for name in idle if self._gone(self._holdings[name])]

    def _gone(self, holding: Holding) -> bool:
        gone = holding.tenant.leave(wholly=True)
        if gone:
            holding.nbytes, holding.there = 0, False
        return gone
