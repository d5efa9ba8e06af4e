"""Sigmas against diffusers' scheduler as its FLUX pipeline calls it (tests/golden/make_sampling.py)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from relight.errors import RequestError
from relight.sampling.sigmas import flow_shift, flux_mu, given, schedule, simple

SCHNELL = np.load(Path(__file__).parent / "schnell.npz")
DEV = np.load(Path(__file__).parent / "dev.npz")


@pytest.mark.parametrize("steps", SCHNELL)
def test_schnell_sigmas_are_diffusers(steps: str) -> None:
    sigmas = schedule("simple", int(steps), 4096, distilled_guidance=False)
    assert sigmas.dtype == np.float32
    np.testing.assert_allclose(sigmas, SCHNELL[steps], rtol=0, atol=1e-7)


@pytest.mark.parametrize("key", DEV)
def test_dev_sigmas_are_diffusers(key: str) -> None:
    steps, tokens = map(int, key.split("/"))
    sigmas = schedule("simple", steps, tokens, distilled_guidance=True)
    assert sigmas.dtype == np.float32
    np.testing.assert_allclose(sigmas, DEV[key], rtol=0, atol=2e-7)


def test_four_steps_of_both_models_at_1024() -> None:
    assert simple(4).tolist() == [1, 0.75, 0.5, 0.25, 0]
    dev = schedule("simple", 4, 4096, distilled_guidance=True)
    np.testing.assert_allclose(dev, [1, 0.9045, 0.7595, 0.5128, 0], atol=5e-5)


def test_mu_is_that_of_the_published_sizes() -> None:
    assert flux_mu(256) == 0.5 and flux_mu(4096) == pytest.approx(1.15)
    assert flux_mu(1024) == pytest.approx(0.630)


@for_all(st.integers(1, 200), st.floats(-3, 5))
def test_shifted_sigmas_fall_from_one_to_zero(steps: int, mu: float) -> None:
    sigmas = flow_shift(simple(steps), mu)
    assert sigmas[0] == 1 and sigmas[-1] == 0 and (np.diff(sigmas) < 0).all()


def test_a_shift_of_zero_changes_nothing() -> None:
    assert flow_shift(simple(7), 0.0).tolist() == simple(7).tolist()


@pytest.mark.parametrize(
    ("name", "steps", "message"),
    [
        ("karras", 4, "schedule: 'karras' is not one of simple; or give sigmas"),
        ("simple", 0, "steps: 0 is not from 1 to 1000"),
        ("simple", 1001, "steps: 1001 is not from 1 to 1000"),
    ],
)
def test_unknown_schedules_and_step_counts_are_refused(name: str, steps: int, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        schedule(name, steps, 256, distilled_guidance=False)


def test_given_sigmas_end_in_zero() -> None:
    assert given([1, 0.5]).tolist() == [1, 0.5, 0]
    assert given([0.75, 0.25, 0]).tolist() == [0.75, 0.25, 0]
    assert given([1]).dtype == np.float32


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "sigmas: 0 above 0; from 1 to 1000 are needed"),
        ([0], "sigmas: 0 above 0"),
        (np.linspace(1, 0.1, 1001), "sigmas: 1001 above 0"),
        ([1, 1.5, 0], "sigmas: number 2 is 1.5, and a flow model takes 1 to 0"),
        ([14.6, 3], "sigmas: number 1 is 14.6"),
        ([1, -0.1], "sigmas: number 2 is -0.1"),
        ([1, math.nan], "sigmas: number 2 is nan"),
        ([math.inf], "sigmas: number 1 is inf"),
        ([1, 0.5, 0.5, 0], "sigmas: number 3, 0.5, is not smaller than 0.5 before it"),
        ([1, 0, 0.5, 0], "sigmas: number 3, 0.5, is not smaller than 0 before it"),
        ([0.5 + 1e-12, 0.5], "sigmas: number 2, 0.5, is not smaller"),
        ([1e-50], "sigmas: number 2, 0, is not smaller than 1e-50"),
    ],
)
def test_given_sigmas_that_do_not_fall_from_one_are_refused(values: list[float], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        given(values)
