"""Seconds of a placement from what was measured on this machine: what lets a pipeline choose as the plan does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from relight.executors.base import CompileOptions
from relight.jobs.checks import Checked
from relight.jobs.settle import Settled
from relight.planner import machine
from relight.planner.estimate import Estimator, Timings
from relight.planner.machine import Machine
from relight.planner.networks import Networks
from relight.planner.placement import Placement
from relight.planner.stages import Course, follow
from relight.planner.workload import workload_of


class Forecast:
    """Of one model on one card. Records graphs without a device, each once."""

    def __init__(self, checked: Checked, description: str, threads: int | None, timings: Timings) -> None:
        self.checked, self.timings = checked, timings
        described = {"name": "", "description": description, "memory_total": 0, "memory_free": 0}
        self.card = machine.of_device(described, 0)
        self.networks = Networks(checked.files, self.card.cores)
        self.cpu = machine.this_cpu(threads)

    def course(self, settled: Settled, gpu: str, base: CompileOptions) -> Callable[[Placement], Course]:
        """One request under a placement on this GPU."""
        there = Machine(self.cpu, replace(self.card, name=gpu))
        estimator = Estimator(self.networks, there, self.timings)
        work = workload_of(settled, self.checked)

        def course(placement: Placement) -> Course:
            options = {
                name: self.timings.options(name, estimator.executor(name, placement.device[name]), base)
                for name in work.names
            }
            return follow(work, placement, estimator, options, with_bytes=False)

        return course

    def close(self) -> None:
        self.networks.close()
