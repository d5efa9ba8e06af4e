"""ControlNets: what they follow, how strongly, for how long, and whom they fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from making import REQUEST, distance, made, masked, near, photograph
from relight.errors import ModelFileError, RequestError
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import Control, Hires

pytestmark = pytest.mark.timeout(60)


def control(shelf: Path, seed: int = 1, **changes: Any) -> Control:
    return Control(**{"path": shelf / f"control{seed}.safetensors", "image": photograph()} | changes)


@pytest.fixture(scope="module")
def plain(sd1: Pipeline) -> np.ndarray:
    return made(sd1)


def test_a_controlnet_acts_by_its_strength_and_its_picture(sd1: Pipeline, shelf: Path, plain: np.ndarray) -> None:
    followed = made(sd1, controls=(control(shelf),))
    assert distance(followed, plain) > 1
    assert distance(followed, made(sd1, controls=(control(shelf, image=photograph()[::-1]),))) > 0.5
    weak = made(sd1, controls=(control(shelf, strength=0.05),))
    assert 0 < distance(weak, plain) < distance(followed, plain)
    assert near(made(sd1, controls=(control(shelf, strength=0),)), plain)


def test_a_controlnet_acts_in_its_part_of_the_steps_only(sd1: Pipeline, shelf: Path, plain: np.ndarray) -> None:
    """Of four steps a control from 0.9 on sees none: the last one begins at 0.75."""
    assert near(made(sd1, controls=(control(shelf, start=0.9),)), plain)
    first, last = (made(sd1, controls=(control(shelf, **part),)) for part in ({"end": 0.25}, {"start": 0.25}))
    assert distance(first, plain) > 0.5 and distance(last, plain) > 0.5 and distance(first, last) > 0.5


def test_several_act_together_whatever_their_order(sd1: Pipeline, shelf: Path) -> None:
    one, other = control(shelf), control(shelf, 2, strength=0.5, image=photograph()[::-1])
    both = sd1.generate(replace(REQUEST, controls=(one, other)))
    picture = both.pictures[0].image.astype(int)
    assert near(picture, made(sd1, controls=(other, one)))
    assert distance(picture, made(sd1, controls=(one,))) > 0.5
    assert [each["model"] for each in both.report["controls"]] == ["control1", "control2"]


def test_canny_follows_edges_and_a_flat_picture_has_none(sd1: Pipeline, shelf: Path) -> None:
    flat, black = np.full((64, 64, 3), 200, np.uint8), np.zeros((64, 64, 3), np.uint8)
    edges_of_flat = made(sd1, controls=(control(shelf, image=flat, canny=(100, 200)),))
    np.testing.assert_array_equal(edges_of_flat, made(sd1, controls=(control(shelf, image=black),)))
    square = black.copy()
    square[16:48, 16:48] = 255
    assert distance(edges_of_flat, made(sd1, controls=(control(shelf, image=square, canny=(100, 200)),))) > 0.5


def test_batches_and_second_passes_are_controlled_too(sd1: Pipeline, shelf: Path) -> None:
    asked = replace(REQUEST, hires=Hires(scale=1.5), cfg_scale=1.0, batch=2)
    free, bound = (sd1.generate(replace(asked, controls=c)).pictures for c in ((), (control(shelf),)))
    for without, followed in zip(free, bound, strict=True):
        assert distance(without.image.astype(int), followed.image.astype(int)) > 1


def test_an_inpainting_network_takes_controlnets_of_four_channels(inpainting: Pipeline, shelf: Path) -> None:
    redraw = masked(only_masked=True)
    free, bound = (made(inpainting, redraw=redraw, controls=c) for c in ((), (control(shelf),)))
    assert distance(free, bound) > 0.5


def test_without_one_the_picture_is_as_before(sd1: Pipeline, shelf: Path, plain: np.ndarray) -> None:
    made(sd1, controls=(control(shelf),))
    np.testing.assert_array_equal(made(sd1), plain)


def test_a_model_they_are_not_for_says_so_before_any_work(flux: Pipeline, sdxl: Pipeline, shelf: Path) -> None:
    controls = (control(shelf),)
    with pytest.raises(RequestError, match="for Stable Diffusion and SDXL; flux1-schnell-tiny is neither"):
        made(flux, controls=controls)
    with pytest.raises(ModelFileError, match=r"is a ControlNet for text 64 wide; sdxl reads text 128"):
        made(sdxl, controls=controls)


def test_a_file_that_is_no_controlnet_is_named(sd1: Pipeline, shelf: Path) -> None:
    with pytest.raises(ModelFileError, match=r"taesd\.safetensors"):
        made(sd1, controls=(control(shelf, path=shelf / "taesd.safetensors"),))
    assert made(sd1).shape == (64, 64, 3)
