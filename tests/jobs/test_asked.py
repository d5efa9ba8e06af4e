"""Requests as JSON: everything a request has can be asked for, and what is wrong is named by its field."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from relight.errors import RequestError
from relight.jobs import asked
from relight.jobs.asked import request_of
from relight.jobs.request import Control, GenerateRequest, Hires, Lora, ModelFiles, Redraw

FILES = ModelFiles.of_family("sd1", {}, controlnets={"canny": Path("canny.safetensors")})


def png(width: int = 8, height: int = 6) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (200, 10, 30)).save(out, "PNG")
    return out.getvalue()


INPUTS = {"photo": png(), "mask": png()}


def test_every_field_of_a_request_can_be_asked_for() -> None:
    ours = {field.name for field in dataclasses.fields(GenerateRequest)}
    assert set(asked.FIELDS) == ours
    assert set(asked.REDRAW) == {field.name for field in dataclasses.fields(Redraw)}
    assert set(asked.HIRES) == {field.name for field in dataclasses.fields(Hires)}
    assert set(asked.LORA) == {field.name for field in dataclasses.fields(Lora)}
    assert set(asked.CONTROL) == {field.name for field in dataclasses.fields(Control)} - {"path"} | {"model"}


def test_a_request_with_everything() -> None:
    request = request_of(
        {
            "prompt": "a cat",
            "steps": 4,
            "cfg_scale": 2,
            "sigmas": [1, 0.5, 0],
            "redraw": {"image": "photo", "mask": "mask", "strength": 0.5, "fill": "latent_noise"},
            "hires": {"scale": 1.5},
            "loras": [{"name": "ink", "weight": 0.7}],
            "controls": [{"model": "canny", "image": "photo", "canny": [50, 100]}],
            "negative_prompt": None,
        },
        INPUTS,
        FILES,
    )
    assert request.steps == 4 and request.sigmas == (1.0, 0.5, 0.0) and request.negative_prompt == ""
    assert request.redraw is not None and request.redraw.image.shape == (6, 8, 3) and request.redraw.mask is not None
    assert request.loras == (Lora("ink", 0.7),)
    assert request.controls[0].path == Path("canny.safetensors") and request.controls[0].canny == (50, 100)
    assert np.array_equal(request.controls[0].image, request.redraw.image)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "prompt: is missing"),
        ({"prompt": 3}, "prompt: 3 is no text"),
        ({"prompt": "a", "step": 4}, "step: is not known; did you mean steps"),
        ({"prompt": "a", "steps": True}, "steps: True is no whole number"),
        ({"prompt": "a", "steps": 2.5}, "steps: 2.5 is no whole number"),
        ({"prompt": "a", "cfg_scale": "7"}, "cfg_scale: '7' is no number"),
        ({"prompt": "a", "sigmas": "1,0"}, "sigmas: is no list"),
        ({"prompt": "a", "sigmas": [1, None]}, "sigmas: None is no number"),
        ({"prompt": "a", "redraw": {"strength": 1}}, "redraw.image: is missing"),
        ({"prompt": "a", "redraw": {"image": "other"}}, "redraw.image: no picture 'other' came"),
        ({"prompt": "a", "redraw": []}, "redraw: is no object"),
        ({"prompt": "a", "hires": {"size": 2}}, "hires.size: is not known"),
        ({"prompt": "a", "controls": [{"model": "/etc/passwd", "image": "photo"}]}, "no ControlNet '/etc/passwd'"),
        ({"prompt": "a", "controls": [{"model": "canny", "image": "photo", "canny": [1]}]}, "two thresholds"),
        ({"prompt": "a", "steps": 0}, "steps 0: 1 to 1000"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        request_of(values, INPUTS, FILES)


def test_a_picture_that_is_none_is_refused() -> None:
    with pytest.raises(RequestError, match="redraw.image"):
        request_of({"prompt": "a", "redraw": {"image": "photo"}}, {"photo": b"GIF89a nothing"})
