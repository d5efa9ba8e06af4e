"""Noise levels of flow models, from 1 (noise) down to 0 (picture), one more than there are steps. Float32."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from relight.errors import RequestError

MAX_STEPS = 1000  # finer than the timesteps these models were trained on

SHORT, LONG = 256, 4096  # image tokens of 256x256 and 1024x1024 pixels
SHORT_MU, LONG_MU = 0.5, 1.15


def schedule(name: str, steps: int, image_tokens: int, *, distilled_guidance: bool) -> np.ndarray:
    """The sigmas of a named schedule, [steps + 1]. Models with distilled guidance (FLUX.1 dev) lean towards noise, the
    more so the larger the picture; FLUX.1 schnell does not. Raises RequestError for an unknown name or step count."""
    if name not in SCHEDULES:
        raise RequestError(f"schedule: {name!r} is not one of {', '.join(SCHEDULES)}; or give sigmas")
    if not 1 <= steps <= MAX_STEPS:
        raise RequestError(f"steps: {steps} is not from 1 to {MAX_STEPS}")
    sigmas = SCHEDULES[name](steps)
    return flow_shift(sigmas, flux_mu(image_tokens)) if distilled_guidance else sigmas


def simple(steps: int) -> np.ndarray:
    """Equal steps from 1 to 0."""
    return np.linspace(1, 0, steps + 1, dtype=np.float32)


def flow_shift(sigmas: np.ndarray, mu: float) -> np.ndarray:
    """Moves sigmas towards 1, more so with larger `mu`; 0 and 1 stay: e^mu / (e^mu + 1/sigma - 1), written for 0 too
    (Esser et al. 2024, "Scaling rectified flow transformers", with alpha = e^mu)."""
    alpha = math.exp(mu)
    wide = sigmas.astype(np.float64)
    shifted: np.ndarray = alpha * wide / (1 + (alpha - 1) * wide)
    return shifted.astype(np.float32)


def flux_mu(image_tokens: int) -> float:
    """FLUX's exponent of the shift: a straight line through 0.5 at 256 tokens and 1.15 at 4096."""
    return SHORT_MU + (image_tokens - SHORT) * (LONG_MU - SHORT_MU) / (LONG - SHORT)


def given(values: Sequence[float]) -> np.ndarray:
    """A user's own sigmas, with 0 at the end whether given or not.

    Raises RequestError unless they are numbers from 1 down to 0, each smaller than the one before.
    """
    levels = [float(value) for value in values]
    if not levels or levels[-1] != 0:
        levels.append(0.0)
    if not 2 <= len(levels) <= MAX_STEPS + 1:
        raise RequestError(f"sigmas: {len(levels) - 1} above 0; from 1 to {MAX_STEPS} are needed")
    for place, level in enumerate(levels, 1):
        if not 0 <= level <= 1:  # NaN neither
            raise RequestError(f"sigmas: number {place} is {level:g}, and a flow model takes 1 to 0")
    out = np.array(levels, np.float32)
    if (late := np.flatnonzero(out[1:] >= out[:-1])).size:
        place = int(late[0])
        raise RequestError(
            f"sigmas: number {place + 2}, {levels[place + 1]:g}, is not smaller than {levels[place]:g} before it"
        )
    return out


SCHEDULES = {"simple": simple}
