"""A placement followed through the stages of a request: seconds, lanes that run side by side, bytes on each device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from relight.executors.base import CompileOptions, MemoryUse
from relight.jobs.lanes import worker_name
from relight.planner.amounts import peak
from relight.planner.estimate import NOTHING, Estimator, Seconds
from relight.planner.placement import Placement
from relight.planner.workload import Workload

BUILD_S_PER_NODE = 40e-6
"""Building and allocating a program: 0.14 s for FLUX's 3,300 nodes (docs/measurements.md, Loading)."""

Options = Mapping[str, CompileOptions]


@dataclass(frozen=True)
class Part:
    """A component in the request: its use there, and what all its runs take. `copied`: bytes of its weights that are
    held besides the mapped file, where it is used in place."""

    name: str
    device: str
    executor: str
    use: MemoryUse
    runs: int
    seconds: Seconds
    rebuilt_s: float = 0.0
    copied: int = 0


@dataclass(frozen=True)
class Stage:
    """`seconds` until the next can begin; `peak` bytes by device while it runs."""

    name: str
    parts: tuple[str, ...]
    seconds: Seconds
    peak: Mapping[str, int]


@dataclass(frozen=True)
class Course:
    """`total` is one request on a warm machine, `busiest` the lane that bounds requests in a row, `first` what the
    first request of a process takes more: bringing the weights."""

    parts: Mapping[str, Part]
    stages: tuple[Stage, ...]
    total: Seconds
    busiest: Seconds
    lanes: Mapping[str, Seconds] = field(default_factory=dict)
    first: float = 0.0
    swap_s: float = 0.0


def follow(
    work: Workload, placement: Placement, estimator: Estimator, options: Options, *, with_bytes: bool = True
) -> Course:
    """The request under a placement, from text to pictures. Without bytes, those of what is on the CPU count as 0."""
    parts = {name: _part(name, work, placement, estimator, options[name], with_bytes) for name in work.names}
    stages = _stages(work, placement, parts, estimator)
    swap = sum(part.rebuilt_s for part in parts.values())
    lanes: dict[str, Seconds] = {}
    for part in parts.values():
        lane = worker_name(part.device)
        lanes[lane] = lanes.get(lane, NOTHING) + part.seconds + Seconds(part.rebuilt_s)
    total = sum((stage.seconds for stage in stages), Seconds(swap, NOTHING.source))
    first = max((_loading(lane, parts, estimator) for lane in lanes), default=0.0)
    return Course(parts, stages, total, max(lanes.values(), key=lambda s: s.value), lanes, first, swap)


def _part(
    name: str,
    work: Workload,
    placement: Placement,
    estimator: Estimator,
    options: CompileOptions,
    with_bytes: bool,
) -> Part:
    device, sizes = placement.device[name], work.sizes_in(name, placement)
    executor = estimator.executor(name, device)
    runs = work.runs(name, placement)
    use = placement.use.get(name)
    if use is None:
        use = estimator.networks.measure(name, executor, sizes, options) if with_bytes else MemoryUse(0, 0)
    seconds = estimator.run(name, device, sizes, options) * runs
    shared = not placement.keep_programs and executor.startswith("vulkan")
    nodes = len(estimator.networks.graph(name, sizes).nodes)
    copied = estimator.networks.copied(name, sizes) if with_bytes and executor == "ggml-cpu" else use.weights
    return Part(name, device, executor, use, runs, seconds, BUILD_S_PER_NODE * nodes if shared else 0.0, copied)


def _stages(work: Workload, placement: Placement, parts: Mapping[str, Part], estimator: Estimator) -> tuple[Stage, ...]:
    def stage(title: str, names: list[str], seconds: Seconds) -> Stage:
        return Stage(title, tuple(names), seconds, _peaks(names, placement, parts, estimator))

    text = [name for name in work.names if name in work.family.text]
    last = work.names[-1]
    found = [stage("text", text, _side_by_side([parts[name] for name in text]))]
    if "modulation" in parts:
        found.append(stage("modulation", ["modulation"], parts["modulation"].seconds))
    found.append(stage("denoise", ["diffusion"], parts["diffusion"].seconds))
    found.append(stage("decode", [last], _decoding(work, placement, parts["diffusion"], parts[last])))
    return tuple(found)


def _side_by_side(parts: list[Part]) -> Seconds:
    """Encoders of one worker run one after another, those of two at the same time."""
    lanes: dict[str, Seconds] = {}
    for part in parts:
        lane = worker_name(part.device)
        lanes[lane] = lanes.get(lane, NOTHING) + part.seconds
    return max(lanes.values(), key=lambda seconds: seconds.value, default=NOTHING)


def _decoding(work: Workload, placement: Placement, backbone: Part, decoder: Part) -> Seconds:
    """What of the decodes is left after the last denoising: on another worker the earlier ones hide behind it."""
    at_once = max(1, placement.batch // work.settled.rows)
    groups = math.ceil(work.pictures / at_once)
    if worker_name(backbone.device) == worker_name(decoder.device) or groups == 1:
        return decoder.seconds
    decode, denoise = decoder.seconds.value / groups, backbone.seconds.value / groups
    left = decode + (groups - 1) * max(0.0, decode - denoise)
    return Seconds(left, (decoder.seconds + backbone.seconds).source)


def _peaks(names: list[str], placement: Placement, parts: Mapping[str, Part], estimator: Estimator) -> dict[str, int]:
    gpu = estimator.machine.gpu
    found = {}
    for device in dict.fromkeys(worker_name(part.device) for part in parts.values()):
        here = [part for part in parts.values() if worker_name(part.device) == device]
        on_gpu = gpu is not None and device == gpu.name
        driver = gpu.driver_bytes if gpu is not None and on_gpu else 0
        if placement.keep_programs or not on_gpu:
            found[device] = peak([part.use for part in here], True) + driver
        else:
            active = [part.use.compute for part in here if part.name in names]
            found[device] = sum(part.use.weights for part in here) + max(active, default=0) + driver
    return found


def _loading(lane: str, parts: Mapping[str, Part], estimator: Estimator) -> float:
    """Weights to the devices of a lane, which fill beside those of others."""
    here = (part for part in parts.values() if worker_name(part.device) == lane)
    return sum(estimator.load(part.name, part.device, part.use.weights) for part in here)
