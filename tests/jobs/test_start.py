"""Pictures that begin from a picture: how much of it is left, what a mask keeps, and what inpainting networks see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from making import REQUEST, SIZE, distance, made, masked, photograph
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import Hires, Redraw
from relight.workers.protocol import Message

pytestmark = pytest.mark.timeout(60)
OUTSIDE = np.ones(SIZE[::-1], bool)
OUTSIDE[20:50, 30:60] = False


def sent_to_backbone(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[Mapping[str, Any]]:
    """The arrays of each pass."""
    sent: list[Mapping[str, Any]] = []
    call = pipeline.fleet.call

    def noted(component: str, method: str, sizes: Any, arrays: Any = None, *more: Any, **values: Any) -> Message:
        if (component, method) == ("diffusion", "run"):
            sent.append(arrays)
        return call(component, method, sizes, arrays, *more, **values)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.fleet, "call", noted)
        made(pipeline, **changes)
    return sent


@pytest.mark.parametrize(("strength", "steps"), [(0.0, 1), (0.5, 3), (0.99, 4), (1.0, 4)])
def test_strength_is_the_share_of_the_steps(sd1: Pipeline, strength: float, steps: int) -> None:
    result = sd1.generate(replace(REQUEST, redraw=Redraw(image=photograph(), strength=strength)))
    assert len(result.report["sigmas"]) - 1 == steps and result.report["steps"] == 4
    assert result.report["strength"] == strength


def test_the_less_strength_the_more_of_the_picture_is_left(sd1: Pipeline) -> None:
    """By how much two seeds differ: not at all where nothing is made anew, wholly where everything is."""

    def apart(strength: float) -> float:
        redraw = Redraw(image=photograph(), strength=strength)
        return distance(*(made(sd1, seed=seed, redraw=redraw) for seed in (1, 2)))

    assert apart(0.0) < apart(1.0) / 4


def test_flux_begins_from_pictures_too(flux: Pipeline) -> None:
    asked = replace(REQUEST, text_tokens=16, cfg_scale=1.0, redraw=Redraw(image=photograph(), strength=0.3))
    picture = made(flux, asked)
    assert picture.shape == (64, 64, 3) and distance(picture, made(flux, asked, redraw=None)) > 5


@pytest.mark.parametrize("fit", ["stretch", "crop", "fill"])
def test_a_picture_of_any_shape_comes_to_the_size(sd1: Pipeline, fit: str) -> None:
    redraw = Redraw(image=photograph(), strength=0.3, fit=fit)  # type: ignore[arg-type]
    assert made(sd1, width=96, redraw=redraw).shape == (64, 96, 3)


def test_what_is_not_masked_stays_as_it_was(sd1: Pipeline) -> None:
    """At the picture's own size nothing is resized, so that pixels can be compared."""
    image, mask = photograph()[:64, :64], np.zeros((64, 64), np.float32)
    mask[16:40, 16:40] = 1
    picture = made(sd1, redraw=Redraw(image=image, mask=mask, mask_blur=0, strength=1.0))
    np.testing.assert_array_equal(picture[mask == 0], image[mask == 0])
    assert distance(picture[mask == 1], image[mask == 1].astype(int)) > 10


def test_fills_are_what_painting_begins_from(sd1: Pipeline) -> None:
    fills, image = ("original", "fill", "latent_noise", "latent_nothing"), photograph()
    image[20:50, 30:60] = 255
    found = [made(sd1, redraw=masked(image=image, fill=fill, strength=0.3, only_masked=True)) for fill in fills]
    for i, picture in enumerate(found):
        assert min((distance(picture, other) for other in found[i + 1 :]), default=1) > 0.5, fills[i]


def test_latents_outside_the_mask_are_the_pictures(sd1: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    (sent,) = sent_to_backbone(sd1, monkeypatch, redraw=masked())
    assert sent["mask"].shape == (1, 8, 8) and set(np.unique(sent["mask"])) == {0.0, 1.0}
    assert sent["original"].shape == (1, 4, 8, 8)


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_only_the_masked_region_is_made_and_put_back(sd1: Pipeline, strength: float) -> None:
    picture = made(sd1, redraw=masked(only_masked=True, padding=8, strength=strength))
    original = photograph().astype(int)
    assert picture.shape == original.shape
    np.testing.assert_array_equal(picture[OUTSIDE], original[OUTSIDE])
    assert distance(picture[~OUTSIDE], original[~OUTSIDE]) > 10


def test_an_inpainting_network_sees_the_mask_and_what_is_around_it(
    inpainting: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sent,) = sent_to_backbone(inpainting, monkeypatch, redraw=masked(only_masked=True))
    beside = sent["concat"]
    assert beside.shape == (1, 5, 8, 8) and set(np.unique(beside[0, 0])) == {0.0, 1.0}
    (whole,) = sent_to_backbone(inpainting, monkeypatch)
    assert whole["concat"][0, 0].min() == 1.0  # without a picture all of it is to be painted
    assert distance(whole["concat"][0, 1:], beside[0, 1:]) > 0.1


def test_an_inpainting_network_keeps_what_is_not_masked(inpainting: Pipeline) -> None:
    picture = made(inpainting, batch=2, redraw=masked(only_masked=True))
    np.testing.assert_array_equal(picture[OUTSIDE], photograph()[OUTSIDE])


def test_an_inpainting_network_sees_the_larger_picture_in_a_second_pass(
    inpainting: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sent_to_backbone(inpainting, monkeypatch, redraw=masked(), hires=Hires(scale=1.5))
    assert first["concat"].shape == (1, 5, 8, 8) and second["concat"].shape == (1, 5, 12, 12)
