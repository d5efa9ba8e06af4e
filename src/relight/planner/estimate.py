"""Seconds of a component on a device: measured there, scaled from a measurement at another size, or estimated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from relight.errors import UnsupportedOp
from relight.executors.base import CompileOptions
from relight.jobs.fleet import ON_OPENVINO
from relight.planner.machine import Machine
from relight.planner.networks import Networks

BF16_BYTES = 2.5
"""A weight of T5 in OpenVINO's bfloat16, with what a run needs besides."""
MEASURED, SCALED, ESTIMATED = "measured", "scaled", "estimated"
SOURCES = (MEASURED, SCALED, ESTIMATED)


@dataclass(frozen=True)
class Seconds:
    """`source` is the least certain of what it was added up from."""

    value: float
    source: str = ESTIMATED

    def __add__(self, other: Seconds) -> Seconds:
        worse = max(self.source, other.source, key=SOURCES.index)
        return Seconds(self.value + other.value, worse)

    def __mul__(self, times: float) -> Seconds:
        return Seconds(self.value * times, self.source)


NOTHING = Seconds(0.0, MEASURED)


@dataclass(frozen=True)
class Timing:
    """One run of a component's graph at these sizes, as it was measured."""

    sizes: Mapping[str, int]
    seconds: float


class Timings(Protocol):
    """Measurements of this machine, by component, executor and way of computing."""

    def of(self, component: str, executor: str, options: CompileOptions) -> Sequence[Timing]: ...


class NoTimings:
    def of(self, component: str, executor: str, options: CompileOptions) -> Sequence[Timing]:
        return ()


@dataclass(eq=False)
class Estimator:
    """Knows the executor that `cpu` means for each component."""

    networks: Networks
    machine: Machine
    timings: Timings

    def executor(self, component: str, device: str) -> str:
        """As the fleet chooses it: OpenVINO for convolutions, and for T5 where the CPU has bfloat16 and room."""
        if device != "cpu":
            return device
        cpu = self.machine.cpu
        if component not in ON_OPENVINO:
            return "ggml-cpu"
        parameters = self.networks.parameters(component)
        if parameters < ON_OPENVINO[component]:
            return "ggml-cpu"
        if component == "t5xxl" and not (cpu.bf16 and cpu.available > BF16_BYTES * parameters):
            return "ggml-cpu"
        return "openvino"

    def run(self, component: str, device: str, sizes: Mapping[str, int], options: CompileOptions) -> Seconds:
        """Of one run of its graph. Infinite where the options cannot compute it."""
        executor = self.executor(component, device)
        shape = self.networks.shape(component, sizes)
        known = self.timings.of(component, executor, options)
        exact = [timing.seconds for timing in known if self.networks.shape(component, timing.sizes) == shape]
        if exact:
            return Seconds(min(exact), MEASURED)
        try:
            modelled = self._modelled(component, executor, sizes, options)
        except UnsupportedOp:
            return Seconds(float("inf"))
        if not known:
            return Seconds(modelled)
        near = min(
            ((self._modelled(component, executor, timing.sizes, options), timing.seconds) for timing in known),
            key=lambda pair: abs(pair[0] - modelled),
        )
        return Seconds(modelled * near[1] / near[0], SCALED)

    def _modelled(self, component: str, executor: str, sizes: Mapping[str, int], options: CompileOptions) -> float:
        rates = self.machine.rates(executor)
        return self.networks.cost(component, executor, rates, sizes, options).seconds

    def load(self, component: str, device: str, nbytes: int) -> float:
        """From the page cache to the device; weights used in place from the mapped file take nothing."""
        executor = self.executor(component, device)
        if executor.startswith("vulkan"):
            return nbytes / self.machine.rates(executor).upload
        return 0.0 if executor == "ggml-cpu" else nbytes / PACKING_BYTES_S


PACKING_BYTES_S = 3e9
"""OpenVINO's own copy of the weights, made from the page cache once a process."""
