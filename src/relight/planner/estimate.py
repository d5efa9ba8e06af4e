"""Seconds of a component on a device: measured there, scaled from a measurement at another size, or estimated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from relight.errors import UnsupportedOp
from relight.executors.base import CompileOptions
from relight.jobs.cpu import ON_OPENVINO, UNET_BYTES, UNET_WORTH
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


class Timing(Protocol):
    """One run of a component's graph at these sizes, as it was measured."""

    @property
    def sizes(self) -> Mapping[str, int]: ...
    @property
    def options(self) -> CompileOptions: ...
    @property
    def seconds(self) -> float: ...


class Timings(Protocol):
    """Measurements of this machine, by component and executor."""

    def of(self, component: str, executor: str) -> Sequence[Timing]: ...

    def cpu_executor(self, component: str) -> str | None:
        """The quicker of the CPU's, where both were measured."""
        ...

    def options(self, component: str, executor: str, base: CompileOptions) -> CompileOptions:
        """The quickest way to compute a component there that agrees with `base`; that where nothing was measured."""
        ...


class NoTimings:
    def of(self, component: str, executor: str) -> Sequence[Timing]:
        return ()

    def cpu_executor(self, component: str) -> str | None:
        return None

    def options(self, component: str, executor: str, base: CompileOptions) -> CompileOptions:
        return base


@dataclass(eq=False)
class Estimator:
    """Knows the executor that `cpu` means for each component."""

    networks: Networks
    machine: Machine
    timings: Timings
    _executors: dict[str, str] = field(default_factory=dict)

    def executor(self, component: str, device: str) -> str:
        """As the fleet chooses it: what was measured to be quicker, else OpenVINO for convolutions, and for T5 where
        the CPU has bfloat16 and room."""
        if device != "cpu":
            return device
        if component not in self._executors:
            self._executors[component] = self.timings.cpu_executor(component) or self._by_rule(component)
        return self._executors[component]

    def _by_rule(self, component: str) -> str:
        cpu, kind = self.machine.cpu, self.networks.files.kind(component)
        if not cpu.openvino or (component not in ON_OPENVINO and kind != "unet"):
            return "ggml-cpu"
        parameters = self.networks.parameters(component)
        if parameters < ON_OPENVINO.get(component, UNET_WORTH):
            return "ggml-cpu"
        if kind == "unet" and cpu.available < UNET_BYTES * parameters:
            return "ggml-cpu"
        if component == "t5xxl" and not (cpu.bf16 and cpu.available > BF16_BYTES * parameters):
            return "ggml-cpu"
        return "openvino"

    def run(self, component: str, device: str, sizes: Mapping[str, int], options: CompileOptions) -> Seconds:
        """Of one run of its graph. Infinite where the options cannot compute it."""
        executor = self.executor(component, device)
        shape, way = self.networks.shape(component, sizes), self._way(component, executor, sizes, options)
        known = self.timings.of(component, executor)
        exact = [
            timing.seconds
            for timing in known
            if self.networks.shape(component, timing.sizes) == shape
            and self._way(component, executor, sizes, timing.options) == way
        ]
        if exact:
            return Seconds(min(exact), MEASURED)
        try:
            modelled = self._modelled(component, executor, sizes, options)
        except UnsupportedOp:
            return Seconds(float("inf"))
        if not known:
            return Seconds(modelled)
        same = [timing for timing in known if self._way(component, executor, sizes, timing.options) == way]
        near = min(
            (
                (self._modelled(component, executor, timing.sizes, timing.options), timing.seconds)
                for timing in same or known
            ),
            key=lambda pair: abs(math.log(pair[0] / modelled)),
        )
        return Seconds(modelled * near[1] / near[0], SCALED)

    def _way(self, component: str, executor: str, sizes: Mapping[str, int], options: CompileOptions) -> object:
        """What the options come to: two that lead to the same kernels are one."""
        if executor == "openvino":
            wide = options.precision in ("auto", "bf16") and self.machine.cpu.bf16
            return "bf16" if wide else options.precision.replace("auto", "f32").replace("bf16", "f32")
        return self.networks.way(component, executor, sizes, options)

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
