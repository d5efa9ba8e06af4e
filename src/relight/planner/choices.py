"""What is left open is settled here: where each component goes, in what pieces, by which way of computing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from relight.errors import DoesNotFit
from relight.executors.base import CompileOptions, MemoryUse
from relight.jobs.budgets import Budget, Within
from relight.planner.estimate import Estimator
from relight.planner.placement import ALWAYS_CPU, Placement, place
from relight.planner.refusals import reason
from relight.planner.stages import Course, follow
from relight.planner.workload import Workload

Objective = Literal["latency", "throughput"]
OBJECTIVES: tuple[Objective, ...] = ("latency", "throughput")
WORTH_IT = 0.9
"""Share of the estimated seconds that must remain for another way of computing to be taken."""


@dataclass(frozen=True)
class Outcome:
    """A placement with its ways of computing and what comes of them. `said` are those ways that neither the user nor
    a measurement settled."""

    placement: Placement
    options: Mapping[str, CompileOptions]
    course: Course
    said: Mapping[str, CompileOptions] = field(default_factory=dict)


@dataclass(frozen=True)
class Alternative:
    """The best other way to settle one choice: `lost_s` is how much longer it takes (or shorter, where it is negative:
    then `why` it was not taken); None where it cannot be done, for the reason in `why`."""

    choice: str
    chosen: str
    other: str
    lost_s: float | None
    why: str = ""


@dataclass(eq=False)
class Chooser:
    """One model, one request, one machine. `wanted`, `options` and `budgets` are what the user said."""

    work: Workload
    estimator: Estimator
    wanted: Mapping[str, str]
    options: CompileOptions = field(default_factory=CompileOptions)
    objective: Objective = "latency"
    tile: int | None = None
    budgets: tuple[Budget, ...] = ()

    def value(self, course: Course) -> float:
        """Seconds to keep small: of one request, or of the busiest lane with requests in a row."""
        if self.objective == "latency":
            return course.total.value
        return course.busiest.value + 1e-3 * course.total.value

    def choose(self) -> Outcome:
        """Raises DoesNotFit for what was told to go where it does not fit."""
        found = self.outcome(self.wanted)
        for name in ("diffusion", self.work.names[-1]):
            if self.estimator.timings.of(name, found.course.parts[name].executor):
                continue  # the measurements have said which way
            for other in self._ways(found.options[name]):
                try:
                    tried = self.outcome(self.wanted, {**found.said, name: other})
                except DoesNotFit:
                    continue
                if self.value(tried.course) < WORTH_IT * self.value(found.course):
                    found = tried
        return found

    def outcome(
        self, wanted: Mapping[str, str], said: Mapping[str, CompileOptions] | None = None, tile: int | None = None
    ) -> Outcome:
        """What comes of these devices; `said` are ways of computing that are settled, by component."""
        ways = said or {}
        placement = self.placed(wanted, ways, tile)
        options = self._resolved(placement, ways)
        return Outcome(placement, options, follow(self.work, placement, self.estimator, options), ways)

    def _resolved(self, placement: Placement, said: Mapping[str, CompileOptions]) -> dict[str, CompileOptions]:
        return {name: self._option(name, placement.device[name], said) for name in self.work.names}

    def _option(self, name: str, device: str, said: Mapping[str, CompileOptions]) -> CompileOptions:
        """What is settled, else what was measured to be quickest there, else what the user said."""
        if name in said:
            return said[name]
        return self.estimator.timings.options(name, self.estimator.executor(name, device), self.options)

    def placed(
        self, wanted: Mapping[str, str], said: Mapping[str, CompileOptions], tile: int | None = None
    ) -> Placement:
        """By the rule of planner.placement, over bytes of recorded graphs and these seconds."""
        gpu = self.estimator.machine.gpu
        networks = self.estimator.networks

        def sized(name: str, more: Mapping[str, int]) -> dict[str, int]:
            return {**self.work.sizes[name], "tile": self.work.tiles[-1], "batch": self.work.batches[-1], **more}

        def measure(name: str, device: str, more: Mapping[str, int]) -> MemoryUse:
            executor = self.estimator.executor(name, device)
            return networks.measure(name, executor, sized(name, more), self._option(name, device, said))

        def largest(name: str, more: Mapping[str, int]) -> int:
            return networks.largest(name, sized(name, more), self._option(name, gpu.name if gpu else "cpu", said))

        within = Within(self.budgets, measure)
        placed = place(
            wanted,
            gpu=gpu.name if gpu else None,
            budget=gpu.budget if gpu else 0,
            tiles=self.work.tiles,
            tile=tile or self.tile,
            measure=within,
            batches=self.work.batches,
            max_allocation=gpu.max_allocation if gpu else None,
            largest=largest,
            cost=lambda placement: self.value(
                follow(self.work, placement, self.estimator, self._resolved(placement, said), with_bytes=False)
            ),
        )
        named = tile or self.tile
        return within.on_cpu(placed, [named] if named else self.work.tiles, ())

    def _ways(self, options: CompileOptions) -> Iterator[CompileOptions]:
        """Of computing, besides these; what the user said stays."""
        if self.options.attention == "auto":
            yield replace(options, attention="chunked")
        if self.options.convolution == "auto":
            yield replace(options, convolution="im2col")

    def alternatives(self, best: Outcome) -> list[Alternative]:
        """For each choice the best other way, and how much it loses."""
        found = [self._device(best, name) for name in self.work.names if self.wanted[name] == "auto"]
        found += [self._tile(best), self._batch(best), *self._lowerings(best)]
        return [alternative for alternative in found if alternative is not None]

    def _device(self, best: Outcome, name: str) -> Alternative | None:
        gpu = self.estimator.machine.gpu
        if gpu is None:
            return None
        chosen = best.placement.device[name]
        other = gpu.name if chosen == "cpu" else "cpu"
        why = "kept off the GPU by rule" if other != "cpu" and name in (*ALWAYS_CPU, "modulation") else ""
        wanted = {**self.wanted, "diffusion": best.placement.device["diffusion"], name: other}
        return self._tried(best, f"{name} on", chosen, other, wanted, best.said, why=why)

    def _tile(self, best: Outcome) -> Alternative | None:
        chosen = best.placement.tile
        others = [tile for tile in self.work.tiles if tile != chosen]
        if self.tile or not others or self.work.names[-1] != "vae":
            return None
        pinned = {**self.wanted, **best.placement.device}
        tried = [
            self._tried(best, "tile of the VAE", str(chosen), str(tile), pinned, best.said, tile) for tile in others[:6]
        ]
        best_other = min(tried, key=_loss)
        if best_other.lost_s is not None and best_other.lost_s < 0 and int(best_other.other) > chosen:
            return replace(best_other, why="kept small: one convolution over it outlasts a submission on old cards")
        return best_other

    def _batch(self, best: Outcome) -> Alternative | None:
        chosen = best.placement.batch
        others = [rows for rows in self.work.batches if rows != chosen]
        if not others:
            return None
        tried = []
        for rows in others:
            only = replace(self.work, batches=(rows,))
            chooser = replace(self, work=only)
            pinned = {**self.wanted, **best.placement.device}
            tried.append(chooser._tried(best, "rows a call of the UNet", str(chosen), str(rows), pinned, best.said))
        return min(tried, key=_loss)

    def _lowerings(self, best: Outcome) -> Iterator[Alternative]:
        for name in ("diffusion", self.work.names[-1]):
            part = best.course.parts[name]
            if part.executor == "openvino":
                continue
            for other in self._ways(self.options):
                mine = best.options[name]
                what = "attention" if other.attention != self.options.attention else "convolution"
                chosen, tried = getattr(mine, what), getattr(other, what)
                if chosen == tried:
                    tried = "auto"
                best_way, other_way = (self._way(best, name, what, way) for way in (chosen, tried))
                if best_way == other_way:
                    continue
                options = {**best.said, name: replace(mine, **{what: tried})}
                pinned = {**self.wanted, **best.placement.device}
                found = self._tried(best, f"{what} of {name}", best_way, other_way, pinned, options)
                if found.lost_s is None or abs(found.lost_s) > 1e-6:
                    yield found

    def _way(self, best: Outcome, name: str, what: str, said: str) -> str:
        """What an option comes to there; both of its ways where it depends on the layer."""
        part, sizes = best.course.parts[name], self.work.sizes_in(name, best.placement)
        options = replace(best.options[name], **{what: said})  # type: ignore[arg-type]
        flash, direct = self.estimator.networks.way(name, part.executor, sizes, options)
        names, found = (("flash", "chunked"), flash) if what == "attention" else (("direct", "im2col"), direct)
        return " and ".join(name for name, is_so in zip(names, (True, False), strict=True) if is_so in found) or said

    def _tried(
        self,
        best: Outcome,
        choice: str,
        chosen: str,
        other: str,
        wanted: Mapping[str, str],
        said: Mapping[str, CompileOptions],
        tile: int | None = None,
        why: str = "",
    ) -> Alternative:
        try:
            outcome = self.outcome(wanted, said, tile)
        except DoesNotFit as error:
            return Alternative(choice, chosen, other, None, reason(str(error)))
        lost = self.value(outcome.course) - self.value(best.course)
        if lost < 0 and not why:
            why = "within the error of the estimate; relight warm measures it"
        return Alternative(choice, chosen, other, lost, why if lost < 0 else "")


def _loss(alternative: Alternative) -> float:
    return float("inf") if alternative.lost_s is None else alternative.lost_s
