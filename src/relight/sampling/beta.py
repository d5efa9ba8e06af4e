"""Quantiles of the symmetric beta distribution."""

from __future__ import annotations

import math

import numpy as np

TERMS = 60  # of a series whose terms fall by half or faster
HALVINGS = 60


def quantiles(shares: np.ndarray, a: float) -> np.ndarray:
    """The x below which each of `shares` (0 to 1) of the distribution with both parameters `a` lies, float64."""
    lower = np.minimum(shares, 1 - shares)  # the distribution is symmetric, and the series is for the lower half
    low, high = np.zeros_like(lower), np.full_like(lower, 0.5)
    low[lower == 0.5] = 0.5  # exactly, for what rounds it
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = cumulative(middle, a) < lower
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.where(shares > 0.5, 1 - high, high)


def cumulative(x: np.ndarray, a: float) -> np.ndarray:
    """The share below x <= 1/2: the incomplete beta function by its power series (Abramowitz & Stegun 26.5.4)."""
    coefficients, factor = [], 1.0
    for n in range(TERMS):
        coefficients.append(factor / (a + n))
        factor *= (n + 1 - a) / (n + 1)
    whole = math.gamma(a) ** 2 / math.gamma(2 * a)
    share: np.ndarray = x**a * np.polynomial.polynomial.polyval(x, coefficients) / whole
    return share
