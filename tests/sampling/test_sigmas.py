"""Schedules against ComfyUI's (tests/golden/make_samplers.py) and FLUX's against diffusers' (make_sampling.py)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from relight.errors import RequestError
from relight.sampling.parameterisation import Discrete, Flow, Parameterisation
from relight.sampling.sigmas import SCHEDULES, flux_mu, given, schedule, stretch, truncate

HERE = Path(__file__).parent
COMFYUI = dict(np.load(HERE / "schedules.npz"))
SCHNELL = np.load(HERE / "schnell.npz")
DEV = np.load(HERE / "dev.npz")
SPACES: dict[str, Parameterisation] = {
    "discrete": Discrete(),
    "zero_snr": Discrete(zero_snr=True),
    "dev": Flow(1.15),
    "schnell": Flow(),
    "sd1": Discrete(family="sd1"),
    "sdxl": Discrete(family="sdxl"),
}


@pytest.mark.parametrize("key", COMFYUI)
def test_schedules_are_comfyuis(key: str) -> None:
    name, kind, steps = key.split("/")
    space = SPACES[kind]
    sigmas = schedule(name, int(steps), space)
    assert sigmas.dtype == np.float32 and sigmas[-1] == 0 and (np.diff(sigmas) < 0).all()
    # ComfyUI's simple takes the next of so many levels; ours, as diffusers', falls between them.
    atol = 4 / len(space.levels) if name == "simple" and space.flow else 0
    # Its times are float32: near the last level of zero SNR, 48 times the one before, 6e-5 of a place is that much.
    rtol = 2e-4 if kind == "zero_snr" else 5e-6
    np.testing.assert_allclose(sigmas, COMFYUI[key], rtol=rtol, atol=atol)


def test_every_schedule_has_published_numbers() -> None:
    assert {key.split("/")[0] for key in COMFYUI} == set(SCHEDULES)


@pytest.mark.parametrize("steps", SCHNELL)
def test_schnell_sigmas_are_diffusers(steps: str) -> None:
    sigmas = schedule("simple", int(steps), Flow())
    np.testing.assert_allclose(sigmas, SCHNELL[steps], rtol=0, atol=1e-7)


@pytest.mark.parametrize("key", DEV)
def test_dev_sigmas_are_diffusers(key: str) -> None:
    steps, tokens = map(int, key.split("/"))
    sigmas = schedule("simple", steps, Flow(flux_mu(tokens)))
    np.testing.assert_allclose(sigmas, DEV[key], rtol=0, atol=2e-7)


def test_four_steps_of_both_flux_models_at_1024() -> None:
    assert schedule("simple", 4, Flow()).tolist() == [1, 0.75, 0.5, 0.25, 0]
    np.testing.assert_allclose(schedule("simple", 4, Flow(flux_mu(4096))), [1, 0.9045, 0.7595, 0.5128, 0], atol=5e-5)


def test_sdxl_turbo_begins_at_the_highest_level_and_follows_its_trailing_timesteps() -> None:
    space = Discrete(family="sdxl")
    one, four = (schedule("sgm_uniform", steps, space) for steps in (1, 4))
    assert one.tolist() == pytest.approx([14.614642, 0], rel=1e-6)
    assert [round(space.timestep(float(sigma)), 2) for sigma in four[:-1]] == [999, 749.25, 499.5, 249.75]


def test_mu_is_that_of_the_published_sizes() -> None:
    assert flux_mu(256) == 0.5 and flux_mu(4096) == pytest.approx(1.15)
    assert flux_mu(1024) == pytest.approx(0.630)


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("discard", [False, True])
def test_schedules_fall_from_the_highest_level_to_zero(name: str, kind: str, discard: bool) -> None:
    if name == "align_your_steps" and SPACES[kind].flow:
        return
    for steps in (1, 2, 3, 5, 8, 13, 30, 77, 300, 333, 501, 998, 999, 1000 - discard):
        check_shape(name, SPACES[kind], steps, discard)


def check_shape(name: str, space: Parameterisation, steps: int, discard: bool) -> None:
    sigmas = schedule(name, steps, space, discard_penultimate=discard)
    assert np.isfinite(sigmas).all() and (np.diff(sigmas) < 0).all() and sigmas[-1] == 0
    if name == "ddim_uniform":
        assert len(sigmas) + discard >= min(steps, 999)
    elif name == "beta":
        assert len(sigmas) <= steps + 1
    else:
        assert len(sigmas) == steps + 1
    if name not in ("ddim_uniform", "align_your_steps"):
        assert sigmas[0] == pytest.approx(space.sigma_max, rel=1e-6)


def test_the_penultimate_sigma_is_that_of_a_schedule_one_longer() -> None:
    longer = schedule("karras", 8, Discrete())
    assert schedule("karras", 7, Discrete(), discard_penultimate=True).tolist() == [*longer[:7].tolist(), 0]


@pytest.mark.parametrize(
    ("name", "steps", "message"),
    [
        ("gits", 4, "schedule: 'gits' is not one of normal, simple, karras"),
        ("simple", 0, "steps: 0 is not from 1 to 1000"),
        ("simple", 1001, "steps: 1001 is not from 1 to 1000"),
        ("align_your_steps", 4, "align_your_steps is there for sd1, sd2, sdxl, not for flux; take simple or beta"),
    ],
)
def test_unknown_schedules_and_step_counts_are_refused(name: str, steps: int, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        schedule(name, steps, Flow())


@pytest.mark.parametrize(
    ("steps", "strength", "run"),
    [
        (20, 0.75, 16),
        (20, 0.5, 11),
        (20, 1.0, 20),
        (20, 0.0, 1),
        (20, 0.04, 1),
        (20, 0.05, 2),
        (1, 0.7, 1),
        (4, 0.5, 3),
    ],
)
def test_strength_leaves_the_last_steps_as_a1111_counts_them(steps: int, strength: float, run: int) -> None:
    sigmas = schedule("karras", steps, Discrete())
    assert truncate(sigmas, strength).tolist() == sigmas[steps - run :].tolist()


@pytest.mark.parametrize(
    ("steps", "strength", "whole"), [(20, 0.75, 26), (20, 0.5, 40), (20, 1.0, 20), (20, 0.99995, 20), (7, 0.3, 23)]
)
def test_comfyuis_denoise_makes_a_longer_schedule(steps: int, strength: float, whole: int) -> None:
    assert stretch(steps, strength) == whole


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan])
def test_strengths_beyond_0_and_1_are_refused(strength: float) -> None:
    with pytest.raises(RequestError, match="strength: .* is not from 0 to 1"):
        truncate(schedule("simple", 4, Flow()), strength)
    with pytest.raises(RequestError, match="strength: .* is not from 0 to 1"):
        stretch(20, strength)


@pytest.mark.parametrize("strength", [0.0, 0.01])
def test_too_weak_a_denoise_would_schedule_too_many_steps(strength: float) -> None:
    with pytest.raises(RequestError, match="of which 20 steps are run makes more than 1000 in all"):
        stretch(20, strength)


def test_given_sigmas_end_in_zero() -> None:
    assert given([1, 0.5], Flow()).tolist() == [1, 0.5, 0]
    assert given([0.75, 0.25, 0], Flow()).tolist() == [0.75, 0.25, 0]
    assert given([1], Flow()).dtype == np.float32


def test_unets_take_sigmas_above_one_and_lists_rounded_up() -> None:
    assert given([14.615, 6.5, 0.029], Discrete()).tolist() == pytest.approx([14.615, 6.5, 0.029, 0], rel=1e-6)


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
        given(values, Flow())


def test_given_sigmas_beyond_the_models_are_refused() -> None:
    with pytest.raises(RequestError, match=r"sigmas: number 1 is 80, and this model takes 14\.6146 to 0"):
        given([80, 1], Discrete())
