"""Every family makes pictures: the same again for a seed, alone or in company, in one graph or several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executors_present import EXECUTORS
from making import ALONE, REQUEST, distance, made, near, photograph, sd1_files
from relight.executors.base import CompileOptions
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import Control
from relight.planner import placement
from relight.workers.protocol import Message

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("family", ["flux", "sd1", "sdxl"])
def test_a_seed_is_a_picture(family: str, request: pytest.FixtureRequest) -> None:
    pipeline: Pipeline = request.getfixturevalue(family)
    asked = replace(REQUEST, text_tokens=16 if family == "flux" else None)
    result = pipeline.generate(asked)
    image = result.pictures[0].image
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8 and image.std() > 5
    np.testing.assert_array_equal(image, pipeline.generate(asked).pictures[0].image)
    assert distance(image.astype(int), made(pipeline, asked, seed=2)) > 5
    assert result.report["family"] == family


@pytest.mark.parametrize("family", ["flux", "sd1", "sdxl"])
def test_the_prompt_is_heeded_and_at_cfg_scale_1_the_negative_prompt_is_not(
    family: str, request: pytest.FixtureRequest
) -> None:
    pipeline: Pipeline = request.getfixturevalue(family)
    asked = replace(REQUEST, text_tokens=16 if family == "flux" else None, cfg_scale=2.0)
    picture = made(pipeline, asked)
    for changes in ({"prompt": "a dog"}, {"negative_prompt": "dog"}):
        assert not np.array_equal(made(pipeline, asked, **changes), picture)
    alone = replace(asked, cfg_scale=1.0)
    np.testing.assert_array_equal(made(pipeline, alone), made(pipeline, alone, negative_prompt="dog"))


def test_several_pictures_are_those_of_their_seeds(sd1: Pipeline) -> None:
    asked = replace(REQUEST, cfg_scale=1.0)
    together = sd1.generate(replace(asked, batch=2))
    assert together.report["batch_rows"] == 2 and [p.seed for p in together.pictures] == [1, 2]
    for picture in together.pictures:
        assert near(picture.image.astype(int), made(sd1, asked, seed=picture.seed))


def test_rows_of_one_graph_are_those_of_several(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pictures with both passes: in one graph, by picture, and row by row."""
    found = []
    for rows in (4, 2, 1):
        monkeypatch.setattr(placement, "CPU_BATCH", rows)
        with Pipeline(sd1_files(shelf), ALONE) as pipeline:
            result = pipeline.generate(replace(REQUEST, batch=2))
        assert result.report["batch_rows"] == rows
        found.append(np.stack([picture.image.astype(int) for picture in result.pictures]))
    assert near(found[0], found[1]) and near(found[0], found[2])


def test_cfg_scale_1_is_one_pass_and_one_text(sd1: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Mapping[str, Any]]] = []
    call = sd1.fleet.call

    def counted(component: str, method: str, *arguments: Any, **values: Any) -> Message:
        if method == "run":
            calls.append((component, values))
        return call(component, method, *arguments, **values)

    monkeypatch.setattr(sd1.fleet, "call", counted)
    for scale, texts, rows in ((4.0, 2, 2), (1.0, 1, 1)):
        calls.clear()
        result = sd1.generate(replace(REQUEST, cfg_scale=scale))
        (denoising,) = (values["denoising"] for component, values in calls if component == "diffusion")
        assert [component for component, _ in calls].count("clip_l") == texts
        assert (denoising["negative"] is None) == (scale == 1.0) and result.report["batch_rows"] == rows


def test_rescaled_guidance_takes_contrast_back(sd1: Pipeline) -> None:
    plain, strong, tamed = (
        made(sd1, cfg_scale=scale, cfg_rescale=rescale) for scale, rescale in ((1.0, 0.0), (30.0, 0.0), (30.0, 1.0))
    )
    assert distance(plain, tamed) < distance(plain, strong)


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_sde", "lcm", "uni_pc", "DPM++ 3M SDE Exponential"])
def test_samplers_repeat_themselves_by_seed_in_any_company(sd1: Pipeline, sampler: str) -> None:
    asked = replace(REQUEST, sampler=sampler, cfg_scale=1.0)
    second = sd1.generate(replace(asked, batch=2)).pictures[1].image.astype(int)
    assert near(second, made(sd1, asked, seed=2))


@pytest.mark.timeout(180)
def test_a_vulkan_device_makes_the_same_picture_with_all_that_goes_into_a_graph(sd1: Pipeline, shelf: Path) -> None:
    EXECUTORS["vulkan0"]()  # skips where there is none
    control = Control(path=shelf / "control1.safetensors", image=photograph())
    asked = replace(REQUEST, prompt="a cat <lora:ink:1>", controls=(control,), steps=2)
    settings = replace(ALONE, backend="vulkan0,te=cpu", options=CompileOptions(attention="chunked"))
    with Pipeline(sd1_files(shelf), settings) as pipeline:
        result = pipeline.generate(asked)
    assert result.report["components"]["diffusion"]["executor"] == "vulkan0"
    used = result.report["devices"]["vulkan0"]
    assert 0 < used["peak_bytes"] <= used["predicted_bytes"] * 1.02 + (1 << 20)
    assert distance(result.pictures[0].image.astype(int), made(sd1, asked)) < 1
