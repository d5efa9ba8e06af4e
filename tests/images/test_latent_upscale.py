"""Latents in another size, against torch's interpolate (golden/make_latent_upscale.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from relight.errors import RequestError
from relight.images.latent_upscale import A1111, METHODS, upscale_latents

GOLDEN = dict(np.load(Path(__file__).parent / "latent_upscale.npz"))
LATENTS = GOLDEN.pop("latents")


@pytest.mark.parametrize("case", GOLDEN)
def test_every_method_is_torchs(case: str) -> None:
    method, size = case.split("/")
    height, width = map(int, size.split("x"))
    np.testing.assert_allclose(upscale_latents(LATENTS, height, width, method), GOLDEN[case], atol=5e-6)


def test_all_methods_have_a_golden_one() -> None:
    assert {case.split("/")[0] for case in GOLDEN} == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_constant_latents_stay_constant_and_a_batch_is_no_matter(method: str) -> None:
    resized = upscale_latents(np.full((2, 4, 8, 6), 3.0, np.float32), 13, 9, method)
    assert resized.shape == (2, 4, 13, 9) and resized.dtype == np.float32
    np.testing.assert_allclose(resized, 3.0, rtol=1e-6)


def test_other_programs_names_are_methods() -> None:
    assert set(A1111.values()) <= set(METHODS)


def test_an_unknown_method_names_those_there_are() -> None:
    with pytest.raises(RequestError, match="'bislerp'.*nearest-exact"):
        upscale_latents(LATENTS, 4, 4, "bislerp")
