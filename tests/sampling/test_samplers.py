"""Steps: exact where the path is straight, and as diffusers writes them."""

from __future__ import annotations

import numpy as np
import pytest

from relight.errors import RequestError
from relight.sampling.samplers import euler, sampler
from relight.sampling.sigmas import schedule

RANDOM = np.random.default_rng(0)
PICTURE, NOISE = RANDOM.standard_normal((2, 6, 64)).astype(np.float32)


def test_euler_moves_by_the_change_of_sigma() -> None:
    x = euler(np.float32([1, 2]), np.float32([10, -10]), 0.75, 0.5)
    assert x.dtype == np.float32 and x.tolist() == [-1.5, 4.5]


@pytest.mark.parametrize("steps", [1, 4, 30])
def test_euler_follows_a_straight_path_to_the_picture(steps: int) -> None:
    x, sigmas = NOISE, schedule("simple", steps, 4096, distilled_guidance=True)
    for sigma, sigma_next in zip(sigmas, sigmas[1:], strict=False):
        np.testing.assert_allclose(x, (1 - sigma) * PICTURE + sigma * NOISE, atol=2e-6)
        x = sampler("euler")(x, NOISE - PICTURE, sigma, sigma_next)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, PICTURE, atol=2e-6)


def test_an_unknown_sampler_names_those_there_are() -> None:
    with pytest.raises(RequestError, match="sampler: 'dpmpp_9m' is not one of euler"):
        sampler("dpmpp_9m")
