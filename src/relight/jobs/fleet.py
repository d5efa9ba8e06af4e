"""What of a model is open on which worker, and how to reach it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from relight.errors import WorkerError
from relight.executors.base import CompileOptions, MemoryUse
from relight.jobs.cpu import CpuChoice
from relight.jobs.engine import EngineSettings
from relight.jobs.gpu import Gpu, GpuSearch
from relight.jobs.lanes import Lanes, worker_name
from relight.jobs.opening import opening
from relight.jobs.request import ModelFiles
from relight.tuning.tuned import Tuned, here, signature
from relight.weights.checkpoint import open_component
from relight.workers.process import Event
from relight.workers.protocol import Message

log = logging.getLogger(__name__)


class Fleet(Lanes):
    """The workers with a model's components on them. A component may be open on several workers, on one executor of
    each."""

    def __init__(self, files: ModelFiles, settings: EngineSettings) -> None:
        super().__init__(self._of_worker, settings.hang_s)
        self.files, self.settings = files, settings
        self.executors: set[str] = set()
        self.opened: dict[tuple[str, str], str] = {}
        self.gpu: Gpu | None = None
        self.loras: dict[str, tuple[tuple[Path, float], ...]] = {}
        self.controls: dict[str, tuple[Path, ...]] = {}
        self.use: dict[tuple[str, str], MemoryUse] = {}
        self._search = GpuSearch(self, settings)
        self._on_cpu = CpuChoice(files, self, lambda: self.tuned)
        self._options: dict[tuple[str, str], CompileOptions] = {}
        self._keeping: dict[str, bool] = {}
        self._unmatched: dict[str, set[str]] = {}
        self._networks: dict[str, str] = {}

    def _of_worker(self) -> dict[str, str]:
        """Its environment."""
        return self.settings.environment(self.tuned.environment if self.tuned else None)

    @cached_property
    def tuned(self) -> Tuned | None:
        """What was measured on this machine; None where nothing was, or it is not to be used."""
        settings = self.settings
        if settings.tuning is None:
            return None
        return here(settings.tuning, settings.profile, settings.threads, self._network)

    def _network(self, component: str) -> str:
        if component not in self._networks:
            with closing(open_component(self.files.kind(component), self.files.of(component))) as stored:
                self._networks[component] = signature(component, stored)
        return self._networks[component]

    def drop_lost(self) -> bool:
        """Forget workers that ended by themselves and what was open on them, so that it is opened anew; whether any."""
        lost = {name for name, worker in self.workers.items() if not worker.alive}
        for name in lost:
            self.forget(name)
        self.executors = {executor for executor in self.executors if worker_name(executor) not in lost}
        self.opened = {at: executor for at, executor in self.opened.items() if at[1] not in lost}
        if self.gpu and self.gpu.name in lost:
            self.gpu = None
        self._keeping = {device: keep for device, keep in self._keeping.items() if worker_name(device) not in lost}
        return bool(lost)

    def find_gpu(self, named: set[str], *, needed: bool) -> Gpu | None:
        """The GPU to use, as `GpuSearch.find` has it, with the executor open on it and its budget as a hard limit."""
        if self.gpu is None:
            self.gpu = self._search.find(named, needed=needed)
            if self.gpu is not None:
                self.open_executor(self.gpu.name, limit_bytes=self.gpu.budget)
        return self.gpu

    def open_executor(self, executor: str, limit_bytes: int | None = None) -> None:
        if executor not in self.executors:
            threads = self.settings.threads or (self.tuned.threads if self.tuned else None)
            values = {"executor": executor, "threads": threads, "limit_bytes": limit_bytes}
            self.worker(executor).call("open_executor", values)
            self.executors.add(executor)

    def executor(self, component: str, device: str) -> str:
        """The one a component is opened on where `cpu` stands for the better of the CPU's."""
        return self._on_cpu.executor(component) if device == "cpu" else device

    def open(self, component: str, device: str, convolution: str | None = None) -> str:
        """Open a component's files on a device, unless they are there; the name of the executor it is on."""
        executor = self.executor(component, device)
        at = component, worker_name(executor)
        options = self.settings.options
        if self.tuned is not None:
            options = self.tuned.options(component, executor, options)
        if convolution not in (None, self.settings.options.convolution):
            options = replace(options, convolution=convolution)  # type: ignore[arg-type]
        if self.opened.get(at) == executor and self._options.get(at) == options:
            return executor
        if at in self.opened:
            self.worker(executor).call("close", {"component": component})
        self.open_executor(executor)
        values = opening(self.files, component, executor, options, self.extras(component))
        self.worker(executor).call("open", values)
        self.opened[at], self._options[at] = executor, options
        if self.loras.get(component):
            self._adapt(component, executor)
        return executor

    def extras(self, component: str) -> Mapping[str, tuple[Path, ...]]:
        """Files of networks that are recorded into the component's graph."""
        return self.controls if component == "diffusion" else {}

    def use_controls(self, paths: Sequence[Path]) -> None:
        """The ControlNets of the pictures to come; the backbone is opened anew where they change."""
        wanted: dict[str, tuple[Path, ...]] = {f"{i}": (path,) for i, path in enumerate(paths)}
        if wanted != self.controls:
            self.controls = wanted
            for executor in self.where("diffusion"):
                self.close_component("diffusion", executor)

    def where(self, component: str) -> list[str]:
        """Executors that a component is open on."""
        return [executor for (name, _), executor in list(self.opened.items()) if name == component]

    def close_component(self, component: str, device: str) -> None:
        if self.opened.pop((component, worker_name(device)), None) is not None:
            self.worker(device).call("close", {"component": component})

    def use_loras(self, loras: Mapping[str, Sequence[tuple[Path, float]]]) -> None:
        """The LoRA set of each component for the pictures to come."""
        wanted = {component: tuple(found) for component, found in loras.items()}
        changed = {name for name in {*wanted, *self.loras} if wanted.get(name, ()) != self.loras.get(name, ())}
        self.loras = wanted
        for component in sorted(changed):
            for executor in self.where(component):
                self._adapt(component, executor)

    def _adapt(self, component: str, executor: str) -> None:
        loras = [(str(path), weight) for path, weight in self.loras.get(component, ())]
        answer = self.worker(executor).call("adapt", {"component": component, "loras": loras})
        self._unmatched[component] = set(answer.values["unmatched"])

    def unmatched_lora_names(self) -> list[str]:
        """Layers in the LoRA files that have no place in the open component they are for."""
        return sorted(set().union(*(self._unmatched[name] for name in self.loras if self.where(name))))

    def measure(self, component: str, device: str, sizes: Mapping[str, int]) -> MemoryUse:
        """Bytes the component would take there."""
        executor = self.open(component, device)
        found = self.call(component, "measure", sizes, device=executor).values
        use = MemoryUse(found["weights"], found["compute"])
        self.use[component, worker_name(executor)] = use
        return use

    def make_room(self, device: str, placed: Mapping[str, str], room: int) -> int:
        """Close components on a device that were placed elsewhere; and those that are not placed at all, unless they
        fit in `room` bytes. Bytes of those that stay."""
        others = [name for (name, _), where in list(self.opened.items()) if where == device]
        for name in others:
            if placed.get(name, device) != device:
                self.close_component(name, device)
        rest = [name for name in others if name not in placed and (name, device) in self.use]
        taken = sum(self.use[name, device].total for name in rest)
        if taken <= room:
            return taken
        for name in rest:
            self.close_component(name, device)
        return 0

    def keep_programs(self, device: str, keep: bool) -> None:
        if self._keeping.get(device) != keep:
            self.worker(device).call("keep_programs", {"executor": device, "keep": keep})
            self._keeping[device] = keep

    def call(
        self,
        component: str,
        method: str,
        sizes: Mapping[str, int],
        arrays: Mapping[str, np.ndarray] | None = None,
        on_event: Event | None = None,
        owner: object = None,
        *,
        device: str,
        **values: Any,
    ) -> Message:
        everything = {"component": component, "sizes": dict(sizes), **values}
        return self.worker(device).call(method, everything, arrays, on_event, owner)

    def leave_gpu(self) -> None:
        """Close all that is open on the GPU. A worker that cannot is ended, and found to be lost later."""
        if self.gpu is None:
            return
        on_it = [name for (name, _), where in list(self.opened.items()) if where == self.gpu.name]
        try:
            for name in on_it:
                self.close_component(name, self.gpu.name)
        except WorkerError as error:
            log.warning("%s is ended to free its memory: %s", self.gpu.name, error)
            self.workers[self.gpu.name].kill()
