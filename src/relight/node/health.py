"""Whether the devices still compute: a small sum on each, done when asked, in a process that makes nothing else."""

from __future__ import annotations

import threading
import time
from typing import Any

from relight.errors import RelightError
from relight.gateway.node import Check
from relight.jobs.engine import EngineSettings
from relight.workers.process import Worker


class Health:
    """The process is started when first asked, and again where it ended. `device` is the GPU in use, None for none."""

    def __init__(self, engine: EngineSettings, device: str | None) -> None:
        self.engine, self.device = engine, device
        self._worker: Worker | None = None
        self._lock = threading.Lock()

    def run(self) -> list[Check]:
        names = ["ggml-cpu", *([self.device] if self.device else [])]
        with self._lock:
            return [self._check(name) for name in names]

    def _check(self, executor: str) -> Check:
        started = time.perf_counter()
        try:
            self._process().call("check", {"executor": executor})
        except RelightError as error:
            return Check(executor, False, time.perf_counter() - started, str(error))
        return Check(executor, True, time.perf_counter() - started)

    def devices(self) -> list[dict[str, Any]]:
        """As `relight devices --json` has them. Raises RelightError."""
        with self._lock:
            found: list[dict[str, Any]] = self._process().call("devices").values["devices"]
        return found

    def free(self) -> int | None:
        """Bytes free on the GPU by its driver's word."""
        try:
            return next((int(d["memory_free"]) for d in self.devices() if d["name"] == self.device), None)
        except RelightError:
            return None

    def _process(self) -> Worker:
        if self._worker is None or not self._worker.alive:
            if self._worker is not None:
                self._worker.close()
            self._worker = Worker("health", self.engine.environment(), hang_s=self.engine.hang_s)
        return self._worker

    def close(self) -> None:
        with self._lock:
            if self._worker is not None:
                self._worker.close()
                self._worker = None
