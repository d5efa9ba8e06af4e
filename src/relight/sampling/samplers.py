"""One step from a noise level to the next, by name. A flow model's velocity points from picture to noise."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from relight.errors import RequestError


class Step(Protocol):
    def __call__(self, x: np.ndarray, velocity: np.ndarray, sigma: float, sigma_next: float) -> np.ndarray:
        """Latents at `sigma_next` from latents `x` at `sigma` and what the model predicts there."""


def euler(x: np.ndarray, velocity: np.ndarray, sigma: float, sigma_next: float) -> np.ndarray:
    """Straight on along the velocity."""
    return x + np.float32(sigma_next - sigma) * velocity


SAMPLERS: dict[str, Step] = {"euler": euler}


def sampler(name: str) -> Step:
    """The step a user names. Raises RequestError with the names there are."""
    if name not in SAMPLERS:
        raise RequestError(f"sampler: {name!r} is not one of {', '.join(SAMPLERS)}")
    return SAMPLERS[name]
