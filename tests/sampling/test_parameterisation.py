"""Levels, scales and what outputs mean, against ComfyUI's (tests/golden/make_samplers.py)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relight.errors import RequestError
from relight.sampling.parameterisation import Discrete, Flow, of, values_of

HERE = Path(__file__).parent
COMFYUI = dict(np.load(HERE / "spaces.npz"))
X, OUTPUT = np.load(HERE / "samplers.npz")["draws"][:2]
SPACES: dict[str, Discrete | Flow] = {
    "discrete": Discrete(),
    "v": Discrete("v"),
    "zero_snr": Discrete(zero_snr=True),
    "dev": Flow(1.15),
    "schnell": Flow(),
}


@pytest.mark.parametrize("kind", SPACES)
def test_levels_are_comfyuis(kind: str) -> None:
    np.testing.assert_allclose(SPACES[kind].levels[[0, 1, 2, 499, -2, -1]], COMFYUI[f"levels/{kind}"], rtol=2e-6)


@pytest.mark.parametrize("key", [key for key in COMFYUI if not key.startswith("levels")])
def test_scaled_inputs_outputs_and_noisy_pictures_are_comfyuis(key: str) -> None:
    what, kind, level = key.split("/")
    space, sigma = SPACES[kind], float(level)
    made = {
        "denoised": lambda: space.denoised(X, OUTPUT, sigma),
        "input": lambda: X * space.input_scale(sigma),
        "noisy": lambda: space.noisy(X, OUTPUT, sigma),
    }[what]()
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, COMFYUI[key], rtol=1e-6, atol=1e-6)


def test_stable_diffusions_levels_end_where_they_are_known_to() -> None:
    space = Discrete()
    assert (space.sigma_min, space.sigma_max) == pytest.approx((0.0291672, 14.6146412), rel=1e-5)
    assert Discrete(zero_snr=True).sigma_max == pytest.approx(4518.8, rel=1e-4)


def test_timesteps_of_unets_have_fractions_and_stop_at_the_ends() -> None:
    space = Discrete()
    assert [space.timestep(float(level)) for level in space.levels[[0, 7, 999]]] == [0, 7, 999]
    between = math.sqrt(space.levels[500] * space.levels[501])
    assert space.timestep(between) == pytest.approx(500.5, abs=1e-6)
    assert space.timestep(20.0) == 999 and space.timestep(0.001) == 0


@given(st.floats(0, 999))
def test_sigma_and_timestep_of_unets_are_inverse(t: float) -> None:
    space = SPACES["discrete"]
    assert space.timestep(float(space.sigma_of(t))) == pytest.approx(t, abs=1e-6)


@given(st.floats(0.02, 0.999))
def test_log_snr_is_the_ratio_of_picture_to_noise(sigma: float) -> None:
    for space, picture in ((SPACES["discrete"], 1.0), (SPACES["dev"], 1 - sigma)):
        assert math.exp(space.half_log_snr(sigma)) == pytest.approx(picture / sigma)
        assert space.sigma_at(space.half_log_snr(sigma)) == pytest.approx(sigma)


def test_log_snr_at_the_ends() -> None:
    assert Discrete().half_log_snr(0) == Flow().half_log_snr(0) == math.inf
    assert Flow().half_log_snr(1) == -math.inf


@pytest.mark.parametrize("kind", ["discrete", "v", "dev"])
def test_a_network_that_is_right_gives_the_picture_back(kind: str) -> None:
    space, sigma = SPACES[kind], 0.7
    x, root = space.noisy(X, OUTPUT, sigma), math.sqrt(sigma**2 + 1)
    right = {"discrete": OUTPUT, "v": (OUTPUT - X * sigma) / root, "dev": OUTPUT - X}[kind]
    np.testing.assert_allclose(space.denoised(x, right.astype(np.float32), sigma), X, atol=1e-6)


def test_flow_models_are_told_sigma_and_see_x_as_it_is() -> None:
    assert Flow(1.15).timestep(0.3) == 0.3 and Flow().input_scale(0.3) == 1
    assert Flow().sigma_of(np.float32([0, 0.25, 1])).tolist() == [0, 0.25, 1]


@pytest.mark.parametrize("space", [*SPACES.values(), Discrete(family="sdxl")])
def test_a_message_carries_a_parameterisation(space: Discrete | Flow) -> None:
    assert of(json.loads(json.dumps(values_of(space)))) == space


def test_an_unknown_prediction_is_refused() -> None:
    with pytest.raises(RequestError, match="prediction: 'x0' is not one of eps, v"):
        Discrete("x0")
