"""Times components of a model on executors, each device in a process that a lost driver may end."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from types import TracebackType
from typing import ClassVar

from relight.errors import ExecutorError, WorkerError
from relight.executors.base import CompileOptions
from relight.jobs.lanes import worker_name
from relight.jobs.opening import opening
from relight.jobs.request import ModelFiles
from relight.tuning.tables import Timed
from relight.workers.process import Worker

RUNS, BUDGET_S = 6, 4.0


class Bench(AbstractContextManager["Bench"]):
    """`environment` is that of every worker, `limits` the bytes by device. A way of computing that fails has no time.

    Not for use by two threads at once."""

    command: ClassVar[tuple[str, ...]] = (sys.executable, "-u", "-P", "-m", "relight.tuning.child")

    def __init__(
        self,
        files: ModelFiles,
        environment: Mapping[str, str],
        limits: Mapping[str, int],
        threads: int | None = None,
    ) -> None:
        self.files, self.environment, self.limits, self.threads = files, environment, limits, threads
        self.workers: dict[str, Worker] = {}
        self.executors: set[str] = set()
        self.opened: dict[str, str] = {}
        self.failures: list[str] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers.values():
            worker.kill() if kind else worker.close()

    def worker(self, executor: str) -> Worker:
        name = worker_name(executor)
        known = self.workers.get(name)
        if known is not None and known.alive:
            return known
        if known is not None:
            known.close()
            self.executors = {each for each in self.executors if worker_name(each) != name}
            self.opened = {each: where for each, where in self.opened.items() if worker_name(where) != name}
        self.workers[name] = Worker(f"timing {name}", self.environment, command=self.command)
        return self.workers[name]

    def open(self, component: str, executor: str) -> Worker:
        """On that executor and no other: one component's weights are on a device at a time."""
        worker = self.worker(executor)
        if self.opened.get(component) == executor:
            return worker
        for other, where in list(self.opened.items()):
            if where == executor or other == component:
                self.workers[worker_name(where)].call("close", {"component": other})
                del self.opened[other]
        if executor not in self.executors:
            limit = self.limits.get(executor)
            worker.call("open_executor", {"executor": executor, "threads": self.threads, "limit_bytes": limit})
            self.executors.add(executor)
        worker.call("open", opening(self.files, component, executor, CompileOptions()))
        self.opened[component] = executor
        return worker

    def time(
        self,
        component: str,
        signature: str,
        executor: str,
        sizes: Mapping[str, int],
        options: CompileOptions,
        *,
        runs: int = RUNS,
        budget_s: float = BUDGET_S,
    ) -> Timed | None:
        """Median of a few runs; None where it cannot be computed so, with the reason in `failures`."""
        values = {
            "component": component,
            "sizes": dict(sizes),
            "options": asdict(options),
            "runs": runs,
            "budget_s": budget_s,
        }
        try:
            found = self.open(component, executor).call("time", values).values
        except (ExecutorError, WorkerError) as error:
            self.failures.append(f"{component} on {executor}: {error}")
            return None
        seconds = statistics.median(found["seconds"])
        return Timed(component, signature, executor, dict(sizes), options, seconds, found["first_s"])
