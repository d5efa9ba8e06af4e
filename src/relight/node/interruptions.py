"""When pictures may be interrupted for a chat: what that costs them, and that they get their share of the time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol


class Interrupted(Protocol):
    """A picture in the works: its last step took `step_s`, 0 where it is not between two; then what it has done since
    `saved` would be done again."""

    step_s: float
    saved: float


MOST_S = 120.0


@dataclass
class Interruptions:
    """After each, pictures go on for as long as it took before the next, two minutes at most."""

    _began: float = -inf
    _open: bool = False
    _not_before: float = -inf

    def cost_s(self, makings: Sequence[Interrupted]) -> float:
        """Seconds until all have come to the end of a step, one after another, and of work that is lost; infinite where
        it may not be, and while nothing is between two steps: what loads or decodes tells of no end soon."""
        now = time.monotonic()
        longest = max((each.step_s for each in makings), default=0.0)
        if not longest or self._open or now < self._not_before:
            return inf
        return longest * len(makings) + sum(now - each.saved for each in makings if not each.step_s)

    def begin(self) -> None:
        self._began, self._open = time.monotonic(), True

    def end(self) -> None:
        """The first picture has the card again."""
        if self._open:
            now = time.monotonic()
            self._open, self._not_before = False, now + min(now - self._began, MOST_S)
