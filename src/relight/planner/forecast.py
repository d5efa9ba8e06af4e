"""Seconds of a placement from what was measured on this machine: what lets a pipeline choose as the plan does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from relight.executors.base import CompileOptions
from relight.jobs.checks import Checked
from relight.jobs.settle import Settled
from relight.planner import machine, rates
from relight.planner.estimate import Estimator, Timings
from relight.planner.machine import Gpu, Machine
from relight.planner.networks import Networks
from relight.planner.placement import Placement
from relight.planner.profiles import PROFILES
from relight.planner.stages import follow
from relight.planner.workload import workload_of


@dataclass(frozen=True)
class Choice:
    """How a component is computed on a device: what was found quickest there."""

    timings: Timings
    base: CompileOptions
    options: Callable[[str, str, CompileOptions], CompileOptions]


class Forecast:
    """Of one model on one card. Records graphs without a device, each once."""

    def __init__(self, checked: Checked, description: str, threads: int | None, choice: Choice) -> None:
        self.checked, self.choice = checked, choice
        self.networks = Networks(checked.files)
        named = rates.card_named(description)
        found = rates.known(description) or rates.of_card(PROFILES[named or "rx580-8g"])
        self.cpu = machine.this_cpu(threads)
        self.rates = found
        self.description = description

    def cost(self, settled: Settled, gpu: str) -> Callable[[Placement], float]:
        """Seconds of one request under a placement on this GPU."""
        card = Gpu(gpu, self.description, 0, 0, 0, None, self.rates, origin="this machine")
        estimator = Estimator(self.networks, Machine(self.cpu, card), self.choice.timings)
        work = workload_of(settled, self.checked)

        def seconds(placement: Placement) -> float:
            options = {
                name: self.choice.options(name, estimator.executor(name, placement.device[name]), self.choice.base)
                for name in work.names
            }
            return follow(work, placement, estimator, options, with_bytes=False).total.value

        return seconds

    def close(self) -> None:
        self.networks.close()
