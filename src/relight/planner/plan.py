"""A plan: what runs where, what it takes and why, for one model on one machine. It explains itself in explain.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from relight.errors import DoesNotFit, ModelFileError
from relight.executors.base import CompileOptions
from relight.executors.choices import UNKNOWN_CORES
from relight.jobs import models
from relight.jobs.budgets import Budget
from relight.jobs.checks import Checked
from relight.jobs.request import GenerateRequest, ModelFiles
from relight.planner import backends
from relight.planner.amounts import GIB, amount
from relight.planner.choices import Alternative, Chooser, Objective, Outcome
from relight.planner.estimate import Estimator, Timings
from relight.planner.machine import Machine
from relight.planner.networks import Networks
from relight.planner.stages import Part, Stage
from relight.planner.together import Together
from relight.planner.workload import workload
from relight.store import recipes
from relight.weights.folder import Components

VARIANTS = ("diffusion", "unet", "t5xxl")
"""Kinds of files of which a folder may hold several formats to choose from."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a plan is asked about a model, besides the picture. `budgets` bound single components, `largest_tile` the
    autoencoder's tiles in latent pixels."""

    backend: str | None = None
    options: CompileOptions = CompileOptions()
    objective: Objective = "latency"
    budgets: tuple[Budget, ...] = ()
    largest_tile: int | None = None


@dataclass(frozen=True)
class ComponentPlan:
    """`in_place`: the weights stay in the mapped file and take of the page cache alone."""

    part: Part
    paths: tuple[Path, ...]
    format: str
    in_place: bool


@dataclass(frozen=True)
class Plan:
    """`alternatives` say what was not chosen and why, `notes` what the user should know."""

    model: str
    family: str
    machine: Machine
    request: GenerateRequest
    width: int
    height: int
    steps: int
    cfg_scale: float
    outcome: Outcome
    components: tuple[ComponentPlan, ...]
    alternatives: tuple[Alternative, ...]
    notes: tuple[str, ...]
    ask: Ask
    batches: tuple[int, ...] = (1,)
    together: Together | None = None
    pulls: tuple[str, ...] = field(default_factory=tuple)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return self.outcome.course.stages

    @property
    def pictures_per_hour(self) -> float:
        """Requests one after another, or side by side where that is the objective."""
        course = self.outcome.course
        seconds = course.total if self.ask.objective == "latency" else course.busiest
        return 3600 * self.request.batch / seconds.value

    def budget(self, device: str) -> int:
        gpu = self.machine.gpu
        if gpu is not None and device == gpu.name:
            return gpu.budget + gpu.driver_bytes
        return self.machine.cpu.available

    @property
    def fits(self) -> bool:
        """RAM may be passed by files that are used in place, since they can be read again."""
        gpu = self.machine.gpu
        return gpu is None or all(stage.peak.get(gpu.name, 0) <= self.budget(gpu.name) for stage in self.stages)

    @property
    def flags(self) -> str:
        """Of `relight generate`, to run as planned."""
        ways = {f"--{n} {getattr(o, n)}" for o in self.outcome.said.values() for n in ("attention", "convolution")}
        said = sorted(way for way in ways if not way.endswith("auto"))
        return " ".join([f"--backend {self.backend} --vae-tile-size {self.outcome.placement.tile}", *said])

    @property
    def backend(self) -> str:
        """As `--backend` takes it: what runs as planned."""
        return ",".join(f"{name}={device}" for name, device in self.outcome.placement.device.items())

    def allocated(self, executor: str) -> int:
        """Bytes that one of ggml's executors allocates at most, mapped files apart: what it counts itself."""
        parts = [component.part for component in self.components if component.part.executor == executor]
        buffers = [part.use.compute for part in parts]
        together = self.outcome.placement.keep_programs or not executor.startswith("vulkan")
        return sum(part.copied for part in parts) + (sum(buffers) if together else max(buffers, default=0))

    def gpu_weights(self) -> int:
        gpu = self.machine.gpu
        parts = (component.part for component in self.components)
        return sum(part.use.weights for part in parts if gpu is not None and part.device == gpu.name)


@dataclass(eq=False)
class Planning:
    """Plans a model in each of the variants on disk and keeps the best. `timings` gives what was measured of its
    networks."""

    machine: Machine
    ask: Ask
    timings: Callable[[Networks], Timings]

    def plan(self, model: str, request: GenerateRequest) -> Plan:
        """Raises DoesNotFit, RequestError, ModelFileError."""
        found = models.components(model)
        first: Plan | None = None
        others: list[Plan] = []
        refused: DoesNotFit | None = None
        for named in variants(found):
            try:
                tried = self.of_files(model, models.model_files(model, named), request)
            except DoesNotFit as error:
                refused = refused or error
                continue
            except ModelFileError:
                if not named:
                    raise
                continue
            if first is None:
                first = tried
            else:
                others.append(tried)
        if first is None:
            assert refused is not None
            raise refused
        best = best_variant([first, *others])
        return best if self.machine.gpu is None or on_gpu(best) else replace(best, pulls=smaller_sets(best))

    def of_files(self, model: str, files: ModelFiles, request: GenerateRequest) -> Plan:
        """Of these very files."""
        checked = Checked(files)
        gpu = self.machine.gpu
        with Networks(files, gpu.cores if gpu else UNKNOWN_CORES) as networks:
            work = workload(checked, request).with_tiles_up_to(self.ask.largest_tile)
            said = backends.on_gpu(backends.parse(self.ask.backend), gpu.name if gpu else None)
            wanted = {name: device for name, device in said.items() if name in work.names}
            chooser = Chooser(
                work,
                Estimator(networks, self.machine, self.timings(networks)),
                wanted,
                self.ask.options,
                self.ask.objective,
                request.tile,
                self.ask.budgets,
            )
            best = chooser.choose()
            last = work.settled.passes[-1]
            return Plan(
                model=model,
                family=files.family.title,
                machine=self.machine,
                request=request,
                width=last.width,
                height=last.height,
                steps=len(last.levels) - 1,
                cfg_scale=work.settled.cfg_scale,
                outcome=best,
                components=tuple(self._component(best.course.parts[name], networks) for name in work.names),
                alternatives=tuple(chooser.alternatives(best)),
                notes=(*best.placement.notes, *self._memory_notes(best)),
                ask=self.ask,
                batches=work.batches,
            )

    def _component(self, part: Part, networks: Networks) -> ComponentPlan:
        mapped = part.executor == "ggml-cpu"
        return ComponentPlan(part, networks.paths(part.name), networks.format(part.name), mapped)

    def _memory_notes(self, best: Outcome) -> list[str]:
        """RAM that is too small for what should stay in it."""
        cpu = self.machine.cpu
        needed = max((stage.peak.get("cpu", 0) for stage in best.course.stages), default=0)
        if needed <= cpu.available:
            return []
        more = needed - cpu.available
        return [
            f"{amount(needed)} of RAM are wanted and {amount(cpu.available)} are free: each picture reads "
            f"{amount(more)} again, {more / cpu.disk:.0f} s from this disk; take smaller files of what is on the CPU "
            "(T5: relight pull with --t5 Q8_0 or Q4_K)"
        ]


def variants(found: Components) -> list[dict[str, Path]]:
    """The files to name instead of the folder's own choice: none first, then each other format of a network."""
    named: list[dict[str, Path]] = [{}]
    for kind in VARIANTS:
        if kind in found.kinds:
            component = "diffusion" if kind == "unet" else kind
            named += [{component: paths[0]} for paths in found.others.get(kind, ())]
    return named[:8]


def best_variant(plans: Sequence[Plan]) -> Plan:
    """The folder's own choice where its backbone is on the GPU or there is none; else the largest that is. The others
    are told as alternatives."""
    first = plans[0]
    if first.machine.gpu is not None and not on_gpu(first):
        fitting = [plan for plan in plans if on_gpu(plan)]
        if fitting:
            first = max(fitting, key=lambda plan: diffusion(plan).part.use.weights)
    rest = [plan for plan in plans if plan is not first]
    return replace(first, alternatives=(*(_variant(first, other) for other in rest), *first.alternatives))


def _variant(best: Plan, other: Plan) -> Alternative:
    """Told by the files that differ."""
    pairs = list(zip(best.components, other.components, strict=True))
    differing = max(pairs, key=lambda pair: (pair[0].paths != pair[1].paths, pair[0].part.name != "modulation"))
    lost = other.outcome.course.total.value - best.outcome.course.total.value
    why = "the folder's choice is kept for its quality" if lost < 0 else ""
    mine, theirs = (f"{each.paths[0].name} ({each.format})" for each in differing)
    return Alternative(f"file of {differing[0].part.name}", mine, theirs, lost, why)


def smaller_sets(plan: Plan) -> tuple[str, ...]:
    """What `relight pull` has of this family for a card of this size, with a smaller backbone than this one."""
    gpu = plan.machine.gpu
    if gpu is None or "modulation" not in plan.outcome.course.parts:
        return ()
    held = sum(path.stat().st_size for path in diffusion(plan).paths)
    found = []
    for name in recipes.set_names():
        recipe = recipes.named_set(name, recipes.t5_variants()[-1])
        backbones = [file.size for file in recipe.files if file.role == "diffusion"]
        if backbones and backbones[0] < held and recipe.vram_gib * GIB <= gpu.total:
            found.append(name)
    return tuple(found)


def diffusion(plan: Plan) -> ComponentPlan:
    return next(component for component in plan.components if component.part.name == "diffusion")


def on_gpu(plan: Plan) -> bool:
    return diffusion(plan).part.executor.startswith("vulkan")


def as_dict(plan: Plan) -> dict[str, Any]:
    """For --json."""
    course, gpu = plan.outcome.course, plan.machine.gpu
    return {
        "model": plan.model,
        "family": plan.family,
        "width": plan.width,
        "height": plan.height,
        "steps": plan.steps,
        "batch": plan.request.batch,
        "cfg_scale": plan.cfg_scale,
        "objective": plan.ask.objective,
        "gpu": gpu and {"name": gpu.name, "description": gpu.description, "budget_bytes": gpu.budget},
        "components": [_component_dict(plan, component) for component in plan.components],
        "stages": [
            {
                "name": stage.name,
                "components": list(stage.parts),
                "seconds": stage.seconds.value,
                "source": stage.seconds.source,
                "peak_bytes": dict(stage.peak),
                "budget_bytes": {device: plan.budget(device) for device in stage.peak},
            }
            for stage in plan.stages
        ],
        "resident": [c.part.name for c in plan.components],
        "buffers_together": plan.outcome.placement.keep_programs,
        "vae_tile": plan.outcome.placement.tile,
        "batch_rows": plan.outcome.placement.batch,
        "seconds": {
            "total": course.total.value,
            "source": course.total.source,
            "first_more": course.first,
            "swapping": course.swap_s,
        },
        "pictures_per_hour": plan.pictures_per_hour,
        "alternatives": [vars(alternative) for alternative in plan.alternatives],
        "notes": list(plan.notes),
        "pulls": list(plan.pulls),
        "backend": plan.backend,
        "together": plan.together.as_dict() if plan.together else None,
    }


def _component_dict(plan: Plan, component: ComponentPlan) -> Mapping[str, Any]:
    part = component.part
    options = plan.outcome.options[part.name]
    return {
        "name": part.name,
        "files": [str(path) for path in component.paths],
        "format": component.format,
        "device": part.device,
        "executor": part.executor,
        "weight_bytes": part.use.weights,
        "in_place": component.in_place,
        "buffer_bytes": part.use.compute,
        "runs": part.runs,
        "seconds": part.seconds.value,
        "source": part.seconds.source,
        "attention": options.attention,
        "convolution": options.convolution,
    }
