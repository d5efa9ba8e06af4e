"""Quantiles where they are known in closed form; for 0.6 the schedule's golden numbers judge."""

from __future__ import annotations

import numpy as np
import pytest

from relight.sampling.beta import cumulative, quantiles

SHARES = np.linspace(0, 1, 101)


def test_of_one_is_the_even_distribution() -> None:
    np.testing.assert_allclose(quantiles(SHARES, 1.0), SHARES, atol=1e-15)


def test_of_a_half_is_the_arcsine_distribution() -> None:
    np.testing.assert_allclose(quantiles(SHARES, 0.5), np.sin(np.pi * SHARES / 2) ** 2, atol=1e-14)


@pytest.mark.parametrize("a", [0.3, 0.6, 2.0])
def test_quantiles_undo_the_cumulative_distribution(a: float) -> None:
    x = np.linspace(0.001, 0.5, 50)
    np.testing.assert_allclose(quantiles(cumulative(x, a), a), x, rtol=1e-10)
    np.testing.assert_allclose(quantiles(1 - cumulative(x, a), a), 1 - x, rtol=1e-10)
