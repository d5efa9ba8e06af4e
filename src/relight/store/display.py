"""One progress display for work in bytes: a bar with speed and time left on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

from tqdm import tqdm

LINE_EVERY_S = 30.0


class Display:
    """Counts bytes towards `total`; `done` of them before the start. Safe to call from several threads."""

    def __init__(
        self,
        title: str,
        total: int,
        done: int = 0,
        *,
        out: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title, self.total, self.done = title, total, done
        self.out = out or sys.stderr
        self.clock = clock
        self.lock = threading.Lock()
        self.started, self.first = clock(), done
        self.line_at = self.started + LINE_EVERY_S
        self.bar: Any = None
        if self.out.isatty():
            self.bar = tqdm(
                desc=title, total=total, initial=done, unit="B", unit_scale=True, file=self.out, dynamic_ncols=True
            )

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def restart(self, total: int) -> None:
        """Begin again towards another total, when that is known only later."""
        with self.lock:
            self.total, self.done, self.first, self.started = total, 0, 0, self.clock()
            if self.bar is not None:
                self.bar.reset(total)

    def advance(self, count: int) -> None:
        with self.lock:
            self.done += count
            if self.bar is not None:
                self.bar.update(count)
            elif self.clock() >= self.line_at:
                self.line_at = self.clock() + LINE_EVERY_S
                print(self.state(), file=self.out, flush=True)

    def say(self, line: str) -> None:
        """A line of its own, above the bar where there is one."""
        with self.lock:
            if self.bar is not None:
                self.bar.write(line, file=self.out)
            else:
                print(line, file=self.out, flush=True)

    def state(self) -> str:
        seconds = self.clock() - self.started
        speed = (self.done - self.first) / seconds if seconds > 0 else 0.0
        left = f", {duration((self.total - self.done) / speed)} left" if speed > 0 else ""
        return f"{self.title}: {amount(self.done)} of {amount(self.total)}, {amount(int(speed))}/s{left}"


def amount(size: int) -> str:
    """Bytes for people, in powers of 1000 as the hub and disks count."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if abs(size) >= 0.9995 * factor:
            value = size / factor
            return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"
    return f"{size} B"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
