"""Schedules: noise levels from the model's highest down to 0, one more than there are steps. Float32.

Names and definitions are ComfyUI's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from relight.errors import RequestError
from relight.sampling.beta import quantiles
from relight.sampling.parameterisation import Parameterisation

MAX_STEPS = 1000  # finer than the timesteps these models were trained on

SHORT, LONG = 256, 4096  # image tokens of 256x256 and 1024x1024 pixels
SHORT_MU, LONG_MU = 0.5, 1.15

RHO = 7  # of Karras et al. 2022
BETA = 0.6  # both parameters of the distribution (Lee et al. 2024, "Beta sampling is all you need")

# Sabour et al. 2024, "Align your steps", for ten steps; the last place is 0 in use.
ALIGNED_SD1 = (
    14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092,
    0.9642583904, 0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582,
)  # fmt: skip
ALIGNED_SDXL = (
    14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141,
    0.5550693289, 0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582,
)  # fmt: skip
ALIGNED = {"sd1": ALIGNED_SD1, "sd2": ALIGNED_SD1, "sdxl": ALIGNED_SDXL}


def schedule(name: str, steps: int, space: Parameterisation, *, discard_penultimate: bool = False) -> np.ndarray:
    """The sigmas of a named schedule, [steps + 1]; `ddim_uniform` may have a few steps more, `beta` fewer.

    `discard_penultimate` for samplers that ask for it. Raises RequestError for an unknown name, a step count, and a
    schedule that this model has none of.
    """
    if name not in SCHEDULES:
        raise RequestError(f"schedule: {name!r} is not one of {', '.join(SCHEDULES)}; or give sigmas")
    most = MAX_STEPS - discard_penultimate
    if not 1 <= steps <= most:
        raise RequestError(f"steps: {steps} is not from 1 to {most}")
    above_zero = SCHEDULES[name](steps + discard_penultimate, space)
    if discard_penultimate:
        above_zero = above_zero[:-1]
    return np.append(above_zero, 0).astype(np.float32)


def truncate(sigmas: np.ndarray, strength: float) -> np.ndarray:
    """What is left of a schedule for a picture to begin from, as A1111 does: of n steps the last
    int(n * strength) + 1, never more than n. Raises RequestError for a strength that is not from 0 to 1."""
    _check_strength(strength)
    steps = len(sigmas) - 1
    return sigmas[max(steps - 1 - int(min(strength, 0.999) * steps), 0) :]


def stretch(steps: int, strength: float) -> int:
    """How many steps to schedule so that the last `steps` of them are that strength: ComfyUI's `denoise`, where
    `schedule(name, stretch(steps, strength), ...)[-(steps + 1):]` is run. Raises RequestError for a strength that is 0
    or not up to 1, and for one that would take more than 1000 steps."""
    _check_strength(strength)
    if int(steps) > MAX_STEPS * strength:
        raise RequestError(f"strength: {strength:g} of which {steps} steps are run makes more than {MAX_STEPS} in all")
    return steps if strength > 0.9999 else int(steps / strength)


def _check_strength(strength: float) -> None:
    if not 0 <= strength <= 1:  # NaN neither
        raise RequestError(f"strength: {strength:g} is not from 0 to 1")


def given(values: Sequence[float], space: Parameterisation) -> np.ndarray:
    """A user's own sigmas, with 0 at the end whether given or not.

    Raises RequestError unless they are numbers from the model's highest (1 for flow models; 1 % more passes for others,
    since published lists are rounded) down to 0, each smaller than the one before.
    """
    levels = [float(value) for value in values]
    if not levels or levels[-1] != 0:
        levels.append(0.0)
    if not 2 <= len(levels) <= MAX_STEPS + 1:
        raise RequestError(f"sigmas: {len(levels) - 1} above 0; from 1 to {MAX_STEPS} are needed")
    highest = space.sigma_max * (1 if space.flow else 1.01)
    for place, level in enumerate(levels, 1):
        if not 0 <= level <= highest:  # NaN neither
            model = "a flow model takes 1" if space.flow else f"this model takes {space.sigma_max:.4f}"
            raise RequestError(f"sigmas: number {place} is {level:g}, and {model} to 0")
    out = np.array(levels, np.float32)
    if (late := np.flatnonzero(out[1:] >= out[:-1])).size:
        place = int(late[0])
        raise RequestError(
            f"sigmas: number {place + 2}, {levels[place + 1]:g}, is not smaller than {levels[place]:g} before it"
        )
    return out


def flux_mu(image_tokens: int) -> float:
    """FLUX.1 dev's exponent of the shift: a straight line through 0.5 at 256 tokens and 1.15 at 4096."""
    return SHORT_MU + (image_tokens - SHORT) * (LONG_MU - SHORT_MU) / (LONG - SHORT)


def simple(steps: int, space: Parameterisation) -> np.ndarray:
    """Every so many levels from the highest on; for flow models equal steps of time, as their authors do."""
    if space.flow:
        return space.sigma_of(np.linspace(1, 0, steps + 1, dtype=np.float32)[:-1])
    stride = len(space.levels) / steps
    return space.levels[[-1 - int(i * stride) for i in range(steps)]]


def normal(steps: int, space: Parameterisation) -> np.ndarray:
    """Equal steps of time from the first level to the last."""
    return space.sigma_of(np.linspace(space.timestep(space.sigma_max), space.timestep(space.sigma_min), steps))


def sgm_uniform(steps: int, space: Parameterisation) -> np.ndarray:
    """Equal steps of time with the last level left out: what few-step models were distilled for ("trailing")."""
    return space.sigma_of(np.linspace(space.timestep(space.sigma_max), space.timestep(space.sigma_min), steps + 1)[:-1])


def ddim_uniform(steps: int, space: Parameterisation) -> np.ndarray:
    """Every so many levels from the second lowest up ("leading")."""
    return space.levels[1 :: max(len(space.levels) // steps, 1)][::-1]


def karras(steps: int, space: Parameterisation) -> np.ndarray:
    """Equal steps of sigma^(1/7) (Karras et al. 2022, eq. 5)."""
    return np.linspace(space.sigma_max ** (1 / RHO), space.sigma_min ** (1 / RHO), steps) ** RHO


def exponential(steps: int, space: Parameterisation) -> np.ndarray:
    return np.exp(np.linspace(math.log(space.sigma_max), math.log(space.sigma_min), steps))


def kl_optimal(steps: int, space: Parameterisation) -> np.ndarray:
    """Equal steps of arctan sigma (Sabour et al. 2024, "Align your steps", 3.1)."""
    return np.tan(np.linspace(math.atan(space.sigma_max), math.atan(space.sigma_min), steps))


def beta(steps: int, space: Parameterisation) -> np.ndarray:
    """Dense at both ends: levels at quantiles of a beta distribution, each once."""
    shares = 1 - np.linspace(0, 1, steps, endpoint=False)
    places = np.unique(np.rint(quantiles(shares, BETA) * (len(space.levels) - 1)).astype(int))
    return space.levels[places[::-1]]


def align_your_steps(steps: int, space: Parameterisation) -> np.ndarray:
    """Published levels for ten steps; between them by log sigma for other counts."""
    if space.family not in ALIGNED:
        raise RequestError(
            f"schedule: align_your_steps is there for {', '.join(ALIGNED)}, not for {space.family}; take simple or beta"
        )
    levels = ALIGNED[space.family]
    return np.exp(np.interp(np.linspace(0, len(levels) - 1, steps + 1), range(len(levels)), np.log(levels)))[:-1]


SCHEDULES: dict[str, Callable[[int, Parameterisation], np.ndarray]] = {
    "normal": normal,
    "simple": simple,
    "karras": karras,
    "exponential": exponential,
    "sgm_uniform": sgm_uniform,
    "beta": beta,
    "ddim_uniform": ddim_uniform,
    "align_your_steps": align_your_steps,
    "kl_optimal": kl_optimal,
}
