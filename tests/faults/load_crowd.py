"""What R11's and R12's clients share: chance, a time at which all is over, and how they are asked and tell."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

SEEDS = 2**32


class Clock:
    """Of clients that go on for so many seconds from now; `lot` is their chance."""

    def __init__(self, seconds: float, seed: int) -> None:
        self.lot = random.Random(seed)
        self.until = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return max(0.0, self.until - time.monotonic())


class Crowd(Protocol):
    async def run(self) -> Any: ...


def tell(crowd: Callable[[dict[str, Any]], Crowd]) -> None:
    """As a process of low priority: what to do is JSON in the argument, what happened one line of it."""
    if hasattr(os, "nice"):
        os.nice(10)
    told = asyncio.run(crowd(json.loads(sys.argv[1])).run())
    sys.stdout.write(json.dumps(vars(told)))
