"""A model that is kept open between pictures: its workers, weights, and what is known of where everything goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any

from relight.executors.base import MemoryUse
from relight.jobs.aside import Sharing
from relight.jobs.budgets import Within
from relight.jobs.checks import Checked
from relight.jobs.clock import Clock
from relight.jobs.decode import Decoding
from relight.jobs.engine import EngineSettings
from relight.jobs.events import Checkpointed, Event, Listener, Planned, Warned
from relight.jobs.fleet import Fleet
from relight.jobs.gpu import Gpu
from relight.jobs.loras import for_backbone, for_text
from relight.jobs.pictures import Picture, submit
from relight.jobs.prepare import ready
from relight.jobs.report import report
from relight.jobs.request import GenerateRequest, Lora, ModelFiles
from relight.jobs.run import Run, sizes_of
from relight.jobs.settle import Settled, settle
from relight.jobs.text import TextPlan, text_stage
from relight.jobs.upscalers import BY_MODEL, latent_method
from relight.models.tiling import tile_candidates
from relight.planner.amounts import GIB
from relight.planner.backends import GPU, on_gpu, parse
from relight.planner.estimate import NoTimings
from relight.planner.forecast import Forecast
from relight.planner.placement import Measure, Placement, place
from relight.planner.stages import Course
from relight.planner.workload import batch_choices


def ignore(event: Event) -> None:
    pass


@dataclass
class Result:
    """`report` is what `relight generate --json` prints."""

    pictures: list[Picture]
    report: dict[str, Any]


class Pipeline(AbstractContextManager["Pipeline"]):
    """Keeps workers and weights between pictures. Raises RelightError for files that do not belong together."""

    def __init__(self, files: ModelFiles, settings: EngineSettings | None = None) -> None:
        self.settings = settings or EngineSettings()
        self.wanted = parse(self.settings.backend)
        self.checked = Checked(files)
        self.fleet = Fleet(files, self.settings)
        self.text = text_stage(self.checked, self.settings.cache(), self.wanted)
        self.decoding = Decoding()
        self._placements: dict[tuple[Any, ...], Placement] = {}
        self._forecast: Forecast | None = None
        self._arranging = threading.Lock()
        self._arrangement: tuple[Any, ...] | None = ((), ())
        self._runs: list[Run] = []
        self._staying = 0
        self.sharing = Sharing(self.fleet, self.decoding)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.fleet.close(at_once=error is not None)
        if self._forecast is not None:
            self._forecast.close()

    def generate(
        self,
        request: GenerateRequest,
        tell: Listener = ignore,
        *,
        resume: Mapping[str, Checkpointed] | None = None,
        checkpoints: bool = False,
    ) -> Result:
        """All pictures of a request. `tell` is called from several threads, and so may this be: the stages of several
        requests then run beside one another, each in its worker's turn. With `checkpoints`, events tell after each step
        where the request can go on from; `resume` are the last ones of a run that was broken off, by part. Raises
        RelightError."""
        request = request.with_seed()
        clock = Clock()
        settled = settle(request, self.checked)
        plan = self.text.plan(settled, tell)
        with self._arranging, clock.measure("plan"):
            run = self._arranged(settled, plan, clock, tell)
            run.resume, run.checkpoints = resume or {}, checkpoints
            submitted = submit(run, self.text, plan, self.decoding, inpainting_network=self.checked.sees_mask)
        pictures = submitted.wait()
        loras = [{"name": lora.name, "weight": lora.weight} for lora in plan.loras]
        return Result(pictures, report(run, loras))

    def prepare(self, request: GenerateRequest) -> None:
        """Start the workers, load the weights and compile the programs that such a request needs, so that the first
        one finds what the second would. Raises RelightError."""
        settled, clock = settle(request.with_seed(), self.checked), Clock()
        plan = replace(self.text.plan(settled, ignore), cached={})
        with self._arranging:
            ready(self._arranged(settled, plan, clock, ignore), self.text, plan, self.decoding)

    def _arranged(self, settled: Settled, plan: TextPlan, clock: Clock, tell: Listener) -> Run:
        """Everything where this request needs it. What is under way goes on beside it where nothing has to move, else
        it is waited for."""
        for run in self._runs:
            if run.done:
                self.sharing.ended(run)
        self._runs = [run for run in self._runs if not run.done]
        if self.fleet.any_lost:
            self._wait_for_all()
            self.fleet.drop_lost()
            self._placements.clear()
            self.sharing.forget()
        arrangement = (plan.loras, tuple(control.path for control in settled.request.controls))
        if arrangement != self._arrangement:
            self._wait_for_all()
            self._arrangement = None  # until all of it is there
            self._adapt(plan.loras)
            self.fleet.use_controls(arrangement[1])
        key, placement = self._place(settled, plan)
        if arrangement != self._arrangement and (unmatched := self.fleet.unmatched_lora_names()):
            tell(Warned(f"LoRA: {len(unmatched)} of its weights fit nothing in this model, first {unmatched[0]}"))
        self._arrangement = arrangement
        run = Run(self.fleet, settled, placement, plan.tokens, clock, tell)
        self._share(run, (key, len(settled.evaluated(settled.passes[-1]))))
        self._runs.append(run)
        tell(Planned(dict(run.device), self._predicted(placement), explain(placement)))
        return run

    def _share(self, run: Run, key: Hashable) -> None:
        """Let the run leave the GPU to others with what the user has not sent there."""
        gpu, placement = self.fleet.gpu, run.placement
        if gpu is None or placement.device["diffusion"] != gpu.name or self.settings.budgets:
            return
        names = (*self.fleet.files.family.text, run.request.decode_with)
        movable = [n for n in names if placement.device[n] == gpu.name and self.wanted.get(n) == "auto"]
        self.sharing.begin(run, key, movable, partial(self._course, run.settled, gpu), self._runs)

    def _course(self, settled: Settled, gpu: Gpu, placement: Placement) -> Course:
        return self._forecasts(gpu).course(settled, gpu.name, self.settings.options)(placement)

    def leave_gpu(self) -> None:
        """Give the GPU's memory back while nothing is under way; the next picture loads it anew. What the CPU has, and
        the programs that the driver has built, stay."""
        with self._arranging:
            self.fleet.leave_gpu()

    def _wait_for_all(self) -> None:
        wait([task for run in self._runs for task in run.tasks if not task.cancelled()])

    def _place(self, settled: Settled, plan: TextPlan) -> tuple[Hashable, Placement]:
        """Settle where everything goes and open it there; what it hangs on, and the placement. Raises DoesNotFit."""
        fleet, request = self.fleet, settled.request
        largest = settled.passes[-1]
        sizes = sizes_of(settled, largest, plan.tokens)
        names = self._components(settled)
        key = (*sizes.items(), request.tile, request.batch, settled.rows, tuple(names), *self._beside())
        if self.settings.budgets:
            key = (*key, tuple(sorted(plan.cached)))
        wanted = {name: self.wanted[name] for name in names}
        if wanted.get("taesd") == "auto" and request.decode_with != "taesd":
            wanted["taesd"] = "cpu"  # previews are made while the GPU denoises
        gpu = self._gpu(wanted)
        wanted = on_gpu(wanted, gpu.name if gpu else None)
        if key not in self._placements:
            within = Within(self.settings.budgets, self._measuring(sizes))
            tiles = self._tiles(sizes)
            placed = place(
                wanted,
                gpu=gpu.name if gpu else None,
                budget=gpu.budget if gpu else 0,
                tiles=tiles,
                tile=request.tile,
                measure=within,
                batches=batch_choices(settled, self.checked),
                cost=self._cost(settled, gpu),
            )
            choices = [request.tile] if request.tile else tiles
            self._placements[key] = within.on_cpu(placed, choices, plan.cached)
        placement = self._placements[key]
        if gpu:
            self._staying = fleet.make_room(gpu.name, placement.device, gpu.budget - placement.peak_bytes(gpu.name))
            fleet.keep_programs(gpu.name, placement.keep_programs)
        for component, device in placement.device.items():
            if component not in plan.cached:
                fleet.open(component, device)
        return key, placement

    def _measuring(self, sizes: Mapping[str, int]) -> Measure:
        """Bytes of components, each asked for once: placements that are tried have most of them in common."""
        known: dict[tuple[Any, ...], MemoryUse] = {}

        def measure(name: str, device: str, more: Mapping[str, int]) -> MemoryUse:
            at = name, device, *sorted(more.items())
            if at not in known:
                known[at] = self.fleet.measure(name, device, {**sizes, **more})
            return known[at]

        return measure

    def _cost(self, settled: Settled, gpu: Gpu | None) -> Callable[[Placement], float] | None:
        """Seconds of a placement where this model was timed on this card; else bytes alone decide."""
        tuned = self.fleet.tuned
        if gpu is None or tuned is None or not tuned.of("diffusion", gpu.name):
            return None
        course = self._forecasts(gpu).course(settled, gpu.name, self.settings.options)
        return lambda placement: course(placement).total.value

    def _forecasts(self, gpu: Gpu) -> Forecast:
        if self._forecast is None:
            timings = self.fleet.tuned or NoTimings()
            self._forecast = Forecast(self.checked, gpu.description, self.settings.threads, timings)
        return self._forecast

    def _gpu(self, wanted: Mapping[str, str]) -> Gpu | None:
        """The card that components are sent to by name, else the one in the settings, else the first."""
        devices = set(wanted.values())
        named = {device for device in devices if device.startswith("vulkan")}
        needed = bool(devices & {"auto", GPU})
        if not named and needed and self.settings.gpu is not None:
            named = {self.settings.gpu}
        return self.fleet.find_gpu(named, needed=needed)

    def _tiles(self, sizes: Mapping[str, int]) -> list[int]:
        """Of the autoencoder, largest first."""
        tiles = list(tile_candidates(sizes["latent_height"], sizes["latent_width"]))
        largest = self.settings.largest_tile
        return [tile for tile in tiles if largest is None or tile <= largest] or tiles[-1:]

    def _beside(self) -> tuple[Any, ...]:
        """What goes into the backbone's graph besides the picture."""
        return tuple(self.fleet.loras.items()), tuple(self.fleet.controls.items())

    def _components(self, settled: Settled) -> list[str]:
        """Those the request needs, in the order of the stages."""
        request, family = settled.request, self.fleet.files.family
        pixels_between = request.hires is not None and latent_method(request.hires.upscaler) is None
        names = [name for name in family.components if name != "vae"]
        if request.redraw is not None or self.checked.sees_mask or pixels_between:
            names.append("vae_encoder")
        names.append(request.decode_with)
        if request.preview_every and self.fleet.files.of("taesd") and "taesd" not in names:
            names.append("taesd")
        if request.upscale is not None or (request.hires is not None and request.hires.upscaler == BY_MODEL):
            names.append("upscaler")
        for name in names:
            self.checked.check_optional(self.fleet.files.kind(name))
        return names

    def _adapt(self, loras: Sequence[Lora]) -> None:
        """Bring the LoRA set to the components it is for."""
        files = self.fleet.files
        backbone, text = for_backbone(files, loras), for_text(files, loras)
        targets = dict.fromkeys(files.family.text, text) | {"diffusion": backbone}
        if "modulation" in files.family.components:
            targets["modulation"] = backbone
        self.fleet.use_loras({name: found for name, found in targets.items() if found})

    def _predicted(self, placement: Placement) -> dict[str, int]:
        gpu = self.fleet.gpu
        return {gpu.name: placement.peak_bytes(gpu.name) + self._staying} if gpu else {}


def explain(placement: Placement) -> str:
    """One line: what goes where, with bytes where they were measured."""
    parts = []
    for component, device in placement.device.items():
        use = placement.use.get(component)
        size = f" ({use.weights / GIB:.2f} GiB + {use.compute / GIB:.2f} GiB buffer)" if use else ""
        parts.append(f"{component} on {device}{size}")
    return "; ".join([", ".join(parts), *placement.notes])
