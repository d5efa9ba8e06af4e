"""Samplers by name: what takes latents from one noise level to the next. All work for UNets and for flow models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from relight.errors import RequestError
from relight.sampling import multistep, single_step
from relight.sampling import uni_pc as uni_pc_steps
from relight.sampling.course import Course, Model
from relight.sampling.parameterisation import Parameterisation


class Step(Protocol):
    def __call__(self, model: Model, x: np.ndarray, course: Course, i: int, /) -> np.ndarray:
        """x at sigma i + 1 of the course from x at sigma i. Steps are taken in order: a course remembers."""


@dataclass(frozen=True)
class Sampler:
    """`calls` of the network a step, one on the last; `noise`: whether fresh noise is drawn as it is usually set;
    `discard_penultimate`: its schedule is made a step longer and loses its last sigma above 0, as in ComfyUI."""

    step: Step
    calls: int = 1
    noise: bool = False
    discard_penultimate: bool = False


SAMPLERS = {
    "euler": Sampler(single_step.euler),
    "euler_ancestral": Sampler(single_step.euler_ancestral, noise=True),
    "heun": Sampler(single_step.heun, calls=2),
    "dpm_2": Sampler(single_step.dpm_2, calls=2, discard_penultimate=True),
    "dpm_2_ancestral": Sampler(single_step.dpm_2_ancestral, calls=2, noise=True, discard_penultimate=True),
    "lms": Sampler(multistep.lms),
    "dpmpp_2s_ancestral": Sampler(single_step.dpmpp_2s_ancestral, calls=2, noise=True),
    "dpmpp_sde": Sampler(single_step.dpmpp_sde, calls=2, noise=True),
    "dpmpp_2m": Sampler(multistep.dpmpp_2m),
    "dpmpp_2m_v2": Sampler(multistep.dpmpp_2m_v2),
    "dpmpp_2m_sde": Sampler(multistep.dpmpp_2m_sde, noise=True),
    "dpmpp_2m_sde_heun": Sampler(multistep.dpmpp_2m_sde_heun, noise=True),
    "dpmpp_3m_sde": Sampler(multistep.dpmpp_3m_sde, noise=True),
    "lcm": Sampler(single_step.lcm, noise=True),
    "ddim": Sampler(single_step.ddim),
    "uni_pc": Sampler(uni_pc_steps.uni_pc, discard_penultimate=True),
    "uni_pc_bh2": Sampler(uni_pc_steps.uni_pc_bh2, discard_penultimate=True),
    "res_multistep": Sampler(multistep.res_multistep),
}


def sampler(name: str) -> Sampler:
    """By its own name (`names.sampler` knows the others). Raises RequestError with the names there are."""
    if name not in SAMPLERS:
        raise RequestError(f"sampler: {name!r} is not one of {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def step(name: str) -> Step:
    """Raises RequestError as `sampler` does."""
    return sampler(name).step


def evaluations(name: str, steps: int) -> int:
    """How often a run of so many steps asks the network. Raises RequestError as `sampler` does."""
    calls = sampler(name).calls
    return steps * calls - (calls - 1)


def evaluated_levels(
    name: str, sigmas: Sequence[float] | np.ndarray, space: Parameterisation, eta: float | None = None
) -> list[float]:
    """Every sigma at which a run asks the network, once each, in order and exact to the last bit: found by such a run
    over latents of nothing. Raises RequestError as `sampler` does."""
    asked: dict[float, None] = {}

    def model(x: np.ndarray, sigma: float) -> np.ndarray:
        asked[sigma] = None
        return x

    x = np.zeros((1, 1, 1, 1), np.float32)
    course, take = Course(list(sigmas), lambda: x, space, eta), step(name)
    for i in range(course.steps):
        take(model, x, course, i)
    return list(asked)
