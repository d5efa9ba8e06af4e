"""Seconds of each stage, taken by the threads that run them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Clock:
    """`measure("load", "t5xxl")` adds to a part of a stage; the parts of one stage may run at the same time."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.parts: dict[str, dict[str, float]] = {}
        self.steps: dict[int, list[float]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def measure(self, stage: str, part: str = "") -> Iterator[None]:
        started = time.perf_counter()
        yield
        with self._lock:
            parts = self.parts.setdefault(stage, {})
            parts[part] = parts.get(part, 0.0) + time.perf_counter() - started

    def steps_of(self, picture: int) -> list[float]:
        """The list that the seconds of a picture's steps are added to."""
        return self.steps.setdefault(picture, [])

    def report(self) -> dict[str, Any]:
        """Each stage in seconds, by component where it has several; `total` is wall time, less than their sum where
        stages ran side by side."""
        stages: dict[str, Any] = {
            stage: round(parts[""], 4) if set(parts) == {""} else {name: round(s, 4) for name, s in parts.items()}
            for stage, parts in self.parts.items()
        }
        steps = [[round(seconds, 4) for seconds in self.steps[i]] for i in sorted(self.steps)]
        return stages | {"steps": steps, "total": round(time.perf_counter() - self.started, 4)}
