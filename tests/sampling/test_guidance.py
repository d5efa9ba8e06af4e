"""Guidance: where it ends and what it keeps."""

from __future__ import annotations

import numpy as np

from relight.sampling.guidance import cfg, needs_negative, rescale
from relight.sampling.parameterisation import Discrete

RANDOM = np.random.default_rng(0)
POSITIVE, NEGATIVE, X = RANDOM.standard_normal((3, 2, 4, 8, 6)).astype(np.float32)


def test_scales_of_zero_and_one_are_the_passes_themselves() -> None:
    np.testing.assert_allclose(cfg(POSITIVE, NEGATIVE, 1), POSITIVE, atol=1e-6)
    assert np.array_equal(cfg(POSITIVE, NEGATIVE, 0), NEGATIVE)
    assert [needs_negative(scale) for scale in (1, 1.0, 0.0, 7)] == [False, False, True, True]


def test_a_scale_goes_beyond_the_positive_pass() -> None:
    guided = cfg(np.float32([2]), np.float32([1]), 7.5)
    assert guided.dtype == np.float32 and guided.tolist() == [8.5]


def test_guiding_outputs_is_guiding_pictures() -> None:
    space, sigma = Discrete("v"), 3.0
    outputs = space.denoised(X, cfg(POSITIVE, NEGATIVE, 7), sigma)
    pictures = cfg(space.denoised(X, POSITIVE, sigma), space.denoised(X, NEGATIVE, sigma), 7)
    np.testing.assert_allclose(outputs, pictures, atol=1e-5)


def test_rescaling_brings_each_pictures_deviation_back() -> None:
    guided = cfg(POSITIVE, NEGATIVE, 9)
    whole, half = rescale(guided, POSITIVE, 1.0), rescale(guided, POSITIVE, 0.5)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole.std((1, 2, 3)), POSITIVE.std((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(half, (whole + guided) / 2, rtol=1e-5)
    assert np.array_equal(rescale(guided, POSITIVE, 0.0), guided)


def test_a_picture_is_rescaled_by_itself() -> None:
    guided = cfg(POSITIVE, NEGATIVE, 9)
    np.testing.assert_allclose(rescale(guided, POSITIVE, 0.7)[0], rescale(guided[0], POSITIVE[0], 0.7), rtol=1e-6)
