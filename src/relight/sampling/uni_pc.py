"""UniPC (Zhao et al. 2023, "UniPC: a unified predictor-corrector framework"), third order, one evaluation a step.

What the network says at the end of a step corrects that step, and then predicts the next. In -log sigma, as ComfyUI's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from relight.sampling.course import Course, Model

ORDER = 3
LAST = 0.001  # instead of sigma 0, whose logarithm is infinite, as in ComfyUI


def uni_pc(model: Model, x: np.ndarray, course: Course, i: int) -> np.ndarray:
    """With B(h) = h."""
    return _step(model, x, course, i, lambda h: h)


def uni_pc_bh2(model: Model, x: np.ndarray, course: Course, i: int) -> np.ndarray:
    """With B(h) = e^h - 1."""
    return _step(model, x, course, i, math.expm1)


def _step(model: Model, x: np.ndarray, course: Course, i: int, size: Callable[[float], float]) -> np.ndarray:
    denoised = model(x, course.sigmas[i])
    if course.corrected is not None:
        x = _advance(course.corrected, course, i, size, denoised)
    course.corrected = x
    course.remember(denoised, ORDER)
    return _advance(x, course, i + 1, size)


def _advance(
    x: np.ndarray, course: Course, to: int, size: Callable[[float], float], found: np.ndarray | None = None
) -> np.ndarray:
    """From sigma number `to` - 1 to number `to`: predicted, or corrected by what was `found` there."""
    newest = course.history[-1]
    h = _log_sigma(course, to) - _log_sigma(course, to - 1)  # less than 0
    order = min(ORDER, max(course.steps - 1, 1), to, course.steps + 1 - to)
    places = [(_log_sigma(course, to - 1) - _log_sigma(course, to - 1 - age)) / -h for age in range(1, order)]
    changes = [(course.history[-1 - age] - newest) / place for age, place in enumerate(places, 1)]
    if found is not None:
        places, changes = [*places, 1.0], [*changes, found - newest]
    out = x * math.exp(h) - newest * math.expm1(h)
    for weight, change in zip(_weights(places, h, size(h)), changes, strict=True):
        out = out - change * (weight * size(h))
    return out


def _weights(places: list[float], h: float, size: float) -> list[float]:
    """Of the changes between this place and the others, so that polynomials through them are integrated exactly."""
    if len(places) < 2:
        return [0.5] * len(places)  # the authors' simplification
    moments, phi = [], math.expm1(h) / h - 1
    for k in range(1, len(places) + 1):
        moments.append(phi * math.factorial(k) / size)
        phi = phi / h - 1 / math.factorial(k + 1)
    powers = np.vander(places, increasing=True).T
    return [float(weight) for weight in np.linalg.solve(powers, moments)]


def _log_sigma(course: Course, number: int) -> float:
    return math.log(course.sigmas[number] or LAST)
