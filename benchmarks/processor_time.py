"""Seconds of processor time instead of those on the wall, for figures from a machine that does other work meanwhile.

Run as a program it is a worker that times graphs by it, as `relight.tuning.child` does by the wall. Linux alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import ClassVar

from relight.tuning import child
from relight.tuning.bench import Bench
from relight.tuning.child import TimingChild

SCHEDULED = 2
"""The kind of clock that counts the time a process was running, as Linux numbers them."""


class ProcessorChild(TimingChild):
    clock = staticmethod(time.process_time)


class ProcessorBench(Bench):
    command: ClassVar[tuple[str, ...]] = (sys.executable, "-u", "-P", __file__)


def used(pids: Iterable[int]) -> float:
    """Of this process and others, all their threads together."""
    return time.process_time() + sum(time.clock_gettime(~pid << 3 | SCHEDULED) for pid in pids)


if __name__ == "__main__":
    child.main(ProcessorChild)
