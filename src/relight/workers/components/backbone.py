"""Denoising: a network asked at each noise level, under guidance and a sampler, from noise to latents."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from relight.sampling import guidance, parameterisation, samplers
from relight.sampling.course import Course
from relight.sampling.noise import Noise, rng
from relight.sampling.parameterisation import Parameterisation
from relight.workers.components.base import Arrays, Component, Sizes, StepDone, Values


@dataclass(frozen=True, kw_only=True)
class Denoising:
    """One run of the sampler over N pictures at once.

    `positive` and `negative` give, for each step, the number of the condition to use (rows of the arrays that the
    backbone calls conditions); no `negative`: a single pass. `seeds` and `drawn`: each picture's noise goes on where
    the noise it started from ended. `preview_every`: steps between the guesses of the picture sent along, 0 for none.
    `first_step` is where a run that was broken off goes on; `checkpoints`: its state is sent along with each step, for
    that.
    """

    sampler: str
    sigmas: Sequence[float]
    seeds: Sequence[int]
    rng: str
    parameterisation: Mapping[str, Any]
    positive: Sequence[int]
    negative: Sequence[int] | None = None
    cfg_scale: float = 1.0
    cfg_rescale: float = 0.0
    eta: float | None = None
    drawn: int = 1
    preview_every: int = 0
    first_step: int = 0
    checkpoints: bool = False

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    def conditions(self, step: int) -> list[int]:
        """Of each pass of a step."""
        return [self.positive[step], *([] if self.negative is None else [self.negative[step]])]


class Backbone(Component):
    """A network that predicts, and the loop around it."""

    stage: ClassVar[str] = "denoise"

    @abstractmethod
    def predict(self, sizes: Sizes, latents: np.ndarray, level: Level, conditions: Sequence[int]) -> np.ndarray:
        """The network's own output [B C h w] for scaled latents [B C h w], a condition for each."""

    def begin(self, sizes: Sizes, arrays: Arrays, values: Values) -> None:
        """Take what stays the same over the run."""
        self.arrays, self.values = arrays, values

    def run(self, sizes: Sizes, arrays: Arrays, values: Values, step_done: StepDone) -> dict[str, np.ndarray]:
        """`latents` [N C h w] at sigmas[0] -> `latents` at sigmas[-1].

        With `mask` [1 h w] (1: to be painted) and `original` [N C h w], the rest stays the original's. Of a run that
        was broken off, `latents` and `state.*` are those that were sent along with its last checkpoint.
        """
        task = Denoising(**values["denoising"])
        self.begin(sizes, arrays, values)
        latents = np.array(arrays["latents"], np.float32)
        space = parameterisation.of(task.parameterisation)
        course = Course(list(task.sigmas), Draws(task, latents.shape[1:]).draw, space, task.eta)
        if task.first_step:
            course.restore(state_of(arrays))
        step = samplers.step(task.sampler)
        for i in range(task.first_step, task.steps):
            started = time.perf_counter()
            asked = Asked(self, sizes, task, space, i)
            latents = step(asked, latents, course, i)
            along: dict[str, np.ndarray] = {}
            if asked.last is not None and task.preview_every and (i + 1) % task.preview_every == 0:
                along["denoised"] = asked.last
            if task.checkpoints and i + 1 < task.steps:  # the last one's latents are the answer
                along |= checkpoint(latents, course)
            step_done(i + 1, task.steps, time.perf_counter() - started, along)
        return {"latents": latents}


STATE = "state."


def checkpoint(latents: np.ndarray, course: Course) -> dict[str, np.ndarray]:
    """What `run` goes on from: `latents` and the sampler's state."""
    state = {STATE + name: np.asarray(value) for name, value in course.state().items()}
    integers = {name: value.astype(np.int32) for name, value in state.items() if value.dtype.kind == "i"}
    return {"latents": latents, **state, **integers}


def state_of(arrays: Arrays) -> dict[str, np.ndarray]:
    """Counts are single numbers again, which messages and files carry with an axis."""
    state = {name.removeprefix(STATE): value for name, value in arrays.items() if name.startswith(STATE)}
    return {name: value.reshape(()) if value.dtype.kind == "i" else value for name, value in state.items()}


@dataclass(frozen=True)
class Level:
    """Where in the run the network is asked: the noise level, the timestep it is told, the step of the sampler."""

    sigma: float
    timestep: float
    step: int


class Asked:
    """What a sampler calls: latents [N C h w] and sigma -> the picture they are taken for, [N C h w]."""

    def __init__(self, backbone: Backbone, sizes: Sizes, task: Denoising, space: Parameterisation, step: int) -> None:
        self.backbone, self.sizes, self.task, self.space, self.step = backbone, sizes, task, space, step
        self.last: np.ndarray | None = None

    def __call__(self, x: np.ndarray, sigma: float) -> np.ndarray:
        conditions = self.task.conditions(self.step)
        rows = [condition for condition in conditions for _ in range(len(x))]
        scaled = x * np.float32(self.space.input_scale(sigma))
        level = Level(sigma, self.space.timestep(sigma), self.step)
        outputs = self._in_groups(np.concatenate([scaled] * len(conditions)), level, rows)
        denoised = self.space.denoised(x, self._guided(outputs, len(x)), sigma)
        arrays = self.backbone.arrays
        if "mask" in arrays:
            mask = arrays["mask"]
            denoised = denoised * mask + arrays["original"] * (1 - mask)
        self.last = denoised
        return denoised

    def _in_groups(self, x: np.ndarray, level: Level, rows: Sequence[int]) -> np.ndarray:
        """As many rows at a time as the graph was recorded for, which divides their number."""
        size = self.sizes.get("batch", 1)
        groups = [slice(start, start + size) for start in range(0, len(x), size)]
        return np.concatenate([self.backbone.predict(self.sizes, x[g], level, rows[g]) for g in groups])

    def _guided(self, outputs: np.ndarray, pictures: int) -> np.ndarray:
        if self.task.negative is None:
            return outputs
        positive, negative = outputs[:pictures], outputs[pictures:]
        guided = guidance.cfg(positive, negative, self.task.cfg_scale)
        if self.task.cfg_rescale:
            guided = guidance.rescale(guided, positive, self.task.cfg_rescale)
        return guided


class Draws:
    """Noise for all pictures of a run, each from its own seed. Most samplers never ask for any."""

    def __init__(self, task: Denoising, shape: Sequence[int]) -> None:
        self.task, self.shape = task, tuple(shape)

    @cached_property
    def sources(self) -> list[Noise]:
        found = [rng(self.task.rng, seed) for seed in self.task.seeds]
        for source in found:
            for _ in range(self.task.drawn):
                source.normal(self.shape)
        return found

    def draw(self) -> np.ndarray:
        return np.stack([source.normal(self.shape) for source in self.sources])
