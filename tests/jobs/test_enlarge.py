"""Larger pictures: a second pass over latents or pixels, upscalers, and the small decoder."""

from __future__ import annotations

from dataclasses import replace

import pytest

from making import ALONE, REQUEST, distance, made
from relight.errors import ConfigError, ModelFileError, RequestError
from relight.images.latent_upscale import METHODS
from relight.images.resize import FILTERS
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import Hires
from relight.jobs.upscalers import BY_MODEL, UPSCALERS, latent_method

pytestmark = pytest.mark.timeout(60)


def test_each_way_of_enlarging_makes_its_own_picture(sd1: Pipeline) -> None:
    found = []
    for upscaler in ("latent", "latent-nearest", "Latent (bicubic)", "lanczos", "model"):
        result = sd1.generate(replace(REQUEST, hires=Hires(scale=1.5, upscaler=upscaler, strength=0.6)))
        found.append(result.pictures[0].image.astype(int))
        assert found[-1].shape == (96, 96, 3)
        assert ("upscaler" in result.report["components"]) == (upscaler == "model")
        assert ("vae_encoder" in result.report["components"]) == (latent_method(upscaler) is None)
    for i, picture in enumerate(found):
        assert all(distance(picture, other) > 0.5 for other in found[i + 1 :]), i


def test_a_second_pass_has_steps_and_strength_of_its_own(sd1: Pipeline) -> None:
    report = sd1.generate(replace(REQUEST, hires=Hires(scale=2, steps=8, strength=0.5))).report
    assert (report["width"], report["height"]) == (128, 128)
    assert len(report["sigmas"]) == 5 and len(report["hires"]["sigmas"]) == 8 * 0.5 + 2
    assert report["hires"] | {"sigmas": None} == {
        "from_size": [64, 64],
        "scale": 2,
        "steps": 8,
        "strength": 0.5,
        "upscaler": "latent",
        "sigmas": None,
    }
    assert [len(steps) for steps in report["seconds"]["steps"]] == [4 + 5]


def test_a_second_pass_of_several_pictures_in_pixels(sd1: Pipeline) -> None:
    asked = replace(REQUEST, hires=Hires(scale=1.5, upscaler="bicubic", strength=0.4), cfg_scale=1.0)
    first, second = (picture.image.astype(int) for picture in sd1.generate(replace(asked, batch=2)).pictures)
    assert distance(first, made(sd1, asked)) < 0.5 and distance(second, made(sd1, asked, seed=2)) < 0.5


def test_flux_has_a_second_pass_with_steering_of_its_own(flux: Pipeline) -> None:
    asked = replace(REQUEST, text_tokens=16, cfg_scale=2.0, negative_prompt="dog", hires=Hires(scale=1.5))
    assert made(flux, asked, sampler="dpmpp_sde").shape == (96, 96, 3)


def test_a_second_pass_too_large_is_told_the_largest(sd1: Pipeline) -> None:
    with pytest.raises(
        RequestError, match=r"hires scale 8: 1024 pixels become 8192, and 4096 are the most; take at most 4"
    ):
        sd1.generate(replace(REQUEST, width=1024, height=1024, hires=Hires(scale=8)))


@pytest.mark.parametrize(("factor", "side"), [(1.5, 96), (2, 128), (3, 192)])
def test_a_finished_picture_is_made_larger_by_any_factor(sd1: Pipeline, factor: float, side: int) -> None:
    """The network doubles: for more it goes over the picture again, and what is too large is made smaller."""
    asked = replace(REQUEST, upscale=factor)
    result = sd1.generate(asked)
    assert result.pictures[0].image.shape == (side, side, 3) and result.report["upscale"] == factor


def test_latents_can_be_decoded_by_the_small_autoencoder(sd1: Pipeline) -> None:
    whole, small = sd1.generate(REQUEST), sd1.generate(replace(REQUEST, decode_with="taesd"))
    assert "vae" in whole.report["components"] and small.report["decoder"] == "taesd"
    assert "taesd" in small.report["components"] and "vae" not in small.report["components"]
    assert distance(*(result.pictures[0].image.astype(int) for result in (whole, small))) > 1


def test_networks_beside_the_model_are_asked_for_by_their_option(flux: Pipeline) -> None:
    for changes, option in (({"upscale": 2}, "--upscaler"), ({"decode_with": "taesd"}, "--taesd")):
        with pytest.raises(ConfigError, match=f"a model file that is not there; give it with {option}"):
            made(flux, **changes)


def test_a_taesd_of_another_family_is_refused_before_any_work(flux: Pipeline, sd1: Pipeline) -> None:
    files = flux.fleet.files
    paths = {**files.paths, "taesd": sd1.fleet.files.paths["taesd"]}
    with (
        Pipeline(replace(files, paths=paths), ALONE) as pipeline,
        pytest.raises(ModelFileError, match="taesd.safetensors: is a TAESD for 4 latent channels; this model has 16"),
    ):
        made(pipeline, decode_with="taesd")


def test_every_upscaler_that_can_be_named_is_there() -> None:
    assert [name for name in UPSCALERS if latent_method(name) not in METHODS and name not in (*FILTERS, BY_MODEL)] == []
