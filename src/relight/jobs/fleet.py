"""The workers of one machine and what is open on them: which process a component is in, and how to reach it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from relight.errors import ConfigError, WorkerError
from relight.executors.base import CompileOptions, MemoryUse
from relight.executors.cores import has_openvino
from relight.jobs.budgets import Budget
from relight.jobs.conditioning import DEFAULT_BYTES, ConditioningCache
from relight.jobs.families import OPTIONAL
from relight.jobs.request import ModelFiles
from relight.planner.placement import GIB
from relight.planner.profiles import Profile
from relight.tuning import pipelines
from relight.tuning.tuned import Tuned, here, signature
from relight.weights.checkpoint import open_component
from relight.workers.patience import DEFAULT_S
from relight.workers.process import Event, Worker
from relight.workers.protocol import Message
from relight.workers.ram import available_ram

log = logging.getLogger(__name__)

HEADROOM_BYTES = GIB // 4
"""Left to the driver and the desktop of what the device says is free."""
GIVEN_BACK_S, SLACK_BYTES = 5.0, GIB // 16
"""How long memory of a worker that died is waited for, and what other programs may have taken meanwhile."""
ON_OPENVINO = {"t5xxl": 20_000_000, "vae": 20_000_000, "vae_encoder": 20_000_000, "taesd": 500_000, "upscaler": 100_000}
"""T5 and networks of convolutions, from so many parameters on: a smaller one is run in the second that OpenVINO takes
to load and to compile."""
UNET_WORTH, UNET_BYTES = 20_000_000, 10
"""A UNet is three times as fast there as in ggml (measured on AVX-512, float32), where there is RAM for it: that of
SD 1.5 took 8 bytes a parameter."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How to run, as opposed to what to make.

    `backend` as `--backend` takes it; `max_vram_bytes` bounds what is allocated on the GPU; `threads` of each CPU
    executor (None: physical cores); `profile` is a card to pretend to have. `check_results` looks at what comes out.
    `nodes_per_submit` bounds the operations that a GPU gets at a time (None: as suits the card).
    `gpu` is the card to use where components are not sent to one by name; `max_vram_share` what part of its memory may
    be filled. `budgets` bound single components, `largest_tile` the autoencoder's tiles in latent pixels.
    `conditioning_folder` keeps what text encoders gave, up to `conditioning_bytes`; None keeps nothing. `tuning` is the
    folder of what `relight warm` measured; with it drivers keep their pipelines where that put them. `hang_s` is how
    long a worker may be silent (relight.workers.patience), 0 for ever.
    """

    backend: str | None = None
    max_vram_bytes: int | None = None
    threads: int | None = None
    options: CompileOptions = CompileOptions()
    profile: Profile | None = None
    check_results: bool = True
    nodes_per_submit: int | None = None
    gpu: str | None = None
    max_vram_share: float | None = None
    budgets: tuple[Budget, ...] = ()
    largest_tile: int | None = None
    conditioning_folder: Path | None = None
    conditioning_bytes: int = DEFAULT_BYTES
    tuning: Path | None = None
    hang_s: float = DEFAULT_S

    def environment(self, tuned: Mapping[str, str] | None = None) -> dict[str, str]:
        """Of the workers, where the user has not set it; `tuned` is what was found to be quicker."""
        environment = pipelines.environment() if self.tuning is not None else {}
        if self.profile is not None:
            environment |= self.profile.environment
        environment |= tuned or {}
        if self.nodes_per_submit is not None:
            environment["GGML_VK_MAX_NODES_PER_SUBMIT"] = str(self.nodes_per_submit)
        return environment

    def cache(self) -> ConditioningCache | None:
        if self.conditioning_folder is None:
            return None
        return ConditioningCache(self.conditioning_folder, self.conditioning_bytes)


@dataclass(frozen=True)
class Gpu:
    """A GPU and the bytes relight may take of it."""

    name: str
    description: str
    budget: int
    free_bytes: int


class Fleet:
    """Workers by device. Each has a lane: calls given to it run in order, beside those of other lanes. What waits for a
    picture that another worker denoises has a lane of its own, so that it keeps nothing of later pictures from that
    worker. A component may be open on several workers, on one executor of each."""

    def __init__(self, files: ModelFiles, settings: EngineSettings) -> None:
        self.files, self.settings = files, settings
        self.workers: dict[str, Worker] = {}
        self.lanes: dict[str, ThreadPoolExecutor] = {}
        self.late_lanes: dict[str, ThreadPoolExecutor] = {}
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="beside")
        self.executors: set[str] = set()
        self.opened: dict[tuple[str, str], str] = {}
        self.gpu: Gpu | None = None
        self._free_before: int | None = None  # of the card, when its first worker began
        self._cardless = False
        self.closed = False
        self.loras: dict[str, tuple[tuple[Path, float], ...]] = {}
        self.controls: dict[str, tuple[Path, ...]] = {}
        self.use: dict[tuple[str, str], MemoryUse] = {}
        self._options: dict[tuple[str, str], CompileOptions] = {}
        self._keeping: dict[str, bool] = {}
        self._unmatched: dict[str, set[str]] = {}
        self._cpu_executors: dict[str, str] = {}
        self._networks: dict[str, str] = {}

    def worker(self, device: str) -> Worker:
        """The worker that owns a device; all CPU executors share one."""
        name = worker_name(device)
        self._check_open()
        if name not in self.workers:
            environment = self.settings.environment(self.tuned.environment if self.tuned else None)
            self.workers[name] = Worker(name, environment, hang_s=self.settings.hang_s)
            self.lanes[name] = ThreadPoolExecutor(1, thread_name_prefix=name)
            self.late_lanes[name] = ThreadPoolExecutor(1, thread_name_prefix=f"{name} late")
        return self.workers[name]

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

    def submit[T](self, device: str, task: Callable[[], T], *, late: bool = False) -> Future[T]:
        """Run a task in the lane of the device's worker, after what was given to it before; `late`: in the lane of what
        waits for other workers."""
        lanes = self.late_lanes if late else self.lanes
        return lanes[worker_name(device)].submit(task)

    def submit_beside[T](self, task: Callable[[], T]) -> Future[T]:
        """Run a task in a lane of its own: between the calls of a worker whose own lane waits for something."""
        return self._beside.submit(task)

    @property
    def any_lost(self) -> bool:
        """Whether a worker ended by itself. Raises WorkerError when the fleet was closed."""
        self._check_open()
        return not all(worker.alive for worker in list(self.workers.values()))

    def drop_lost(self) -> bool:
        """Forget workers that ended by themselves and what was open on them, so that it is opened anew; whether any."""
        lost = {name for name, worker in self.workers.items() if not worker.alive}
        for name in lost:
            self._forget(name)
        self.executors = {executor for executor in self.executors if worker_name(executor) not in lost}
        self.opened = {at: executor for at, executor in self.opened.items() if at[1] not in lost}
        if self.gpu and self.gpu.name in lost:
            self.gpu = None
        self._keeping = {device: keep for device, keep in self._keeping.items() if worker_name(device) not in lost}
        return bool(lost)

    def _forget(self, worker: str) -> None:
        self.workers.pop(worker).close()
        for lanes in (self.lanes, self.late_lanes):
            lanes.pop(worker).shutdown(wait=False, cancel_futures=True)

    def _check_open(self) -> None:
        if self.closed:
            raise WorkerError("the workers were ended with their pipeline; make a new one")

    def cancel(self, owner: object = None) -> None:
        """Ask whatever runs (for `owner`) to stop at its next step."""
        for worker in list(self.workers.values()):
            worker.cancel(owner)

    def find_gpu(self, named: set[str], *, needed: bool) -> Gpu | None:
        """The GPU to use: the named one, else the first real one; software devices only by name.

        Raises ConfigError for a name that is not there. Opens the executor on it, with its budget as a hard limit. A
        machine that shows no GPU is not asked for one again; one whose GPU was lost is.
        """
        if self.gpu or not (named or needed) or (self._cardless and not named):
            return self.gpu
        if len(named) > 1:
            raise ConfigError(f"--backend names {', '.join(sorted(named))}; one GPU at a time is used")
        asked = next(iter(named), None)
        devices = self.worker(asked or "vulkan0").call("devices").values["devices"]
        fitting = (d for d in devices if (d["name"] == asked if asked else d["type"] == "gpu"))
        found = next(fitting, None)
        if found is None:
            self._forget(asked or "vulkan0")
            if asked:
                raise ConfigError(no_such_device(asked, [device["name"] for device in devices]))
            self._cardless = self._free_before is None
            return None
        found = self._when_free(found)
        self.gpu = Gpu(found["name"], found["description"], self._allowed(found), int(found["memory_free"]))
        self.open_executor(self.gpu.name, limit_bytes=self.gpu.budget)
        return self.gpu

    def _when_free(self, gpu: Mapping[str, Any]) -> Mapping[str, Any]:
        """The card when it has as much free as before its worker was lost; drivers take a while to give that back."""
        if self._free_before is None:
            self._free_before = int(gpu["memory_free"])
        deadline = time.monotonic() + GIVEN_BACK_S
        while gpu["memory_free"] < self._free_before - SLACK_BYTES and time.monotonic() < deadline:
            time.sleep(GIVEN_BACK_S / 50)
            devices = self.worker(gpu["name"]).call("devices").values["devices"]
            gpu = next((each for each in devices if each["name"] == gpu["name"]), gpu)
        return gpu

    def _allowed(self, gpu: Mapping[str, Any]) -> int:
        """What the device has free less a margin, the user's bound and the pretended card's: the least of them."""
        bounds = [max(0, int(gpu["memory_free"]) - HEADROOM_BYTES)]
        if self.settings.max_vram_bytes is not None:
            bounds.append(self.settings.max_vram_bytes)
        profile = self.settings.profile
        if profile is not None:
            bounds.append(profile.limit_bytes)
        if self.settings.max_vram_share is not None:
            total = profile.memory_bytes if profile else int(gpu["memory_total"])
            bounds.append(int(self.settings.max_vram_share * total))
        return min(bounds)

    def open_executor(self, executor: str, limit_bytes: int | None = None) -> None:
        if executor not in self.executors:
            threads = self.settings.threads or (self.tuned.threads if self.tuned else None)
            values = {"executor": executor, "threads": threads, "limit_bytes": limit_bytes}
            self.worker(executor).call("open_executor", values)
            self.executors.add(executor)

    def cpu_executor(self, component: str) -> str:
        """The better CPU executor for a component: OpenVINO for convolutions, and for T5 where the CPU has bfloat16.
        ggml for the rest, which is used in place from the mapped file, and for what is done before OpenVINO is up."""
        kind = self.files.kind(component)
        if not has_openvino() or (component not in ON_OPENVINO and kind != "unet"):
            return "ggml-cpu"
        if component not in self._cpu_executors and self.tuned and (better := self.tuned.cpu_executor(component)):
            self._cpu_executors[component] = better
        if component not in self._cpu_executors:
            with closing(open_component(kind, self.files.of(component))) as stored:
                parameters = sum(math.prod(stored.shape(name)) for name in stored)
            better = "openvino"
            if parameters < ON_OPENVINO.get(component, UNET_WORTH):
                better = "ggml-cpu"
            elif kind == "unet" and available_ram() < UNET_BYTES * parameters:
                better = "ggml-cpu"
            elif component == "t5xxl":
                answer = self.worker("cpu").call("text_executor", {"parameters": parameters})
                better = str(answer.values["executor"])
            self._cpu_executors[component] = better
        return self._cpu_executors[component]

    def executor(self, component: str, device: str) -> str:
        """The one a component is opened on where `cpu` stands for the better of the CPU's."""
        return self.cpu_executor(component) if device == "cpu" else device

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
        described = self.files.family.components.get(component) or OPTIONAL[component]
        values = {
            "component": component,
            "network": described.network,
            "kind": described.kind,
            "executor": executor,
            "paths": [str(path) for path in self.files.of(component)],
            "options": asdict(options),
            "extras": {name: [str(path) for path in paths] for name, paths in self.extras(component).items()},
        }
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

    def close(self, *, at_once: bool = False) -> None:
        """End the workers; `at_once` without waiting for what they do."""
        self.closed = True
        for lane in (*self.lanes.values(), *self.late_lanes.values(), self._beside):
            lane.shutdown(wait=False, cancel_futures=True)
        for worker in self.workers.values():
            worker.kill() if at_once else worker.close()
        self.workers.clear()


def worker_name(device: str) -> str:
    """All CPU executors share one worker."""
    return device if device.startswith("vulkan") else "cpu"


def no_such_device(asked: str, there: Sequence[str]) -> str:
    if any(name.startswith("vulkan") for name in there):
        return f"--backend: no device {asked}; this machine has {', '.join(there)} (relight devices says more)"
    return (
        f"--backend: no device {asked}; no Vulkan driver was found, only {', '.join(there)}. Install the card's driver "
        "and libvulkan1, or leave out --backend"
    )
