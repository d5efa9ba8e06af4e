"""A decode that went wrong is made again from the same latents another way, and the way that works is remembered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from making import ALONE, REQUEST, made, near, sd1_files
from relight.errors import ExecutorError, OutOfDeviceMemory, RuinedPicture, WorkerLost
from relight.images import verdict
from relight.images.verdict import judge_picture
from relight.jobs import decode
from relight.jobs.decode import Way
from relight.jobs.events import Event, Warned
from relight.jobs.pipeline import Pipeline
from relight.jobs.run import Run

pytestmark = pytest.mark.timeout(60)
decode_once = decode.decode_once


class Decoder:
    """Decodes, and ruins what is decoded in ways that `ruins` names by a part of their words."""

    def __init__(self) -> None:
        self.ruins: dict[str, Any] = {}
        self.tried: list[str] = []

    def __call__(self, run: Run, which: Any, latents: np.ndarray, picture: int, way: Way) -> np.ndarray:
        self.tried.append(way.words)
        image = decode_once(run, which, latents, picture, way)
        ruin = next((ruin for words, ruin in self.ruins.items() if words in way.words), None)
        if isinstance(ruin, Exception):
            raise ruin
        return image if ruin is None else np.full_like(image, ruin)


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Decoder:
    """In its place; latents of random weights pass, pictures are looked at."""
    decoder = Decoder()
    monkeypatch.setattr(decode, "decode_once", decoder)
    monkeypatch.setattr(verdict, "judge_latents", lambda latents: None)
    monkeypatch.setattr(verdict, "judge_picture", flat_is_ruined)
    return decoder


def flat_is_ruined(image: np.ndarray, latents: np.ndarray, tiles: object = ()) -> verdict.Verdict | None:
    """The real verdict of a flat picture; none of what random weights make."""
    return judge_picture(image, latents) if np.ptp(image) == 0 else None


@pytest.fixture
def pipeline(shelf: Path, decoder: Decoder) -> Iterator[Pipeline]:
    with Pipeline(sd1_files(shelf), replace(ALONE, check_results=True)) as pipeline:
        yield pipeline


def warnings(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Warned)]


@pytest.mark.parametrize(
    ("ruin", "said"),
    [
        (0, "the picture is black: no value is above 0, though its latents vary"),
        (127, r"the picture is of one colour: about \(127, 127, 127\), though its latents vary"),
        (ExecutorError("values that are not numbers"), "values that are not numbers"),
        (OutOfDeviceMemory("1 GiB asked"), "1 GiB asked"),
    ],
    ids=["black", "flat", "no numbers", "no memory"],
)
def test_a_ruined_decode_is_made_again_and_what_worked_is_remembered(
    pipeline: Pipeline, decoder: Decoder, sd1: Pipeline, ruin: Any, said: str
) -> None:
    expected, decoder.ruins = made(sd1), {"as planned": ruin}
    decoder.tried.clear()
    events: list[Event] = []
    assert near(made(pipeline, REQUEST, events.append), expected)
    (told,) = warnings(events)
    assert told.startswith("picture 1, decoded as planned: ") and told.endswith(
        "; decoding again with im2col convolutions"
    )
    assert re.search(said, told)
    assert decoder.tried == ["as planned", "with im2col convolutions"]
    events.clear()
    made(pipeline, REQUEST, events.append, seed=2)
    assert warnings(events) == [] and decoder.tried[2:] == ["with im2col convolutions"]


def test_ruined_every_way_is_an_error_that_says_what_may_help(pipeline: Pipeline, decoder: Decoder) -> None:
    decoder.ruins = {"": 0}
    with pytest.raises(RuinedPicture) as caught:
        made(pipeline)
    assert str(caught.value).startswith("picture 1 came out ruined every way it was decoded (the picture is black")
    assert "try another VAE, or --backend vae=cpu" in str(caught.value)
    tried = list(decoder.tried)
    decoder.ruins = {}
    made(pipeline)
    assert decoder.tried[len(tried) :] == ["as planned"]  # no way was at fault


def test_what_the_last_way_raised_is_the_error(pipeline: Pipeline, decoder: Decoder) -> None:
    decoder.ruins = {"": ExecutorError("no convolutions today")}
    with pytest.raises(ExecutorError, match="^no convolutions today$"):
        made(pipeline)


def test_a_worker_that_was_lost_is_not_asked_again(pipeline: Pipeline, decoder: Decoder) -> None:
    decoder.ruins = {"": WorkerLost("gone")}
    with pytest.raises(WorkerLost, match="gone"):
        made(pipeline)
    assert decoder.tried == ["as planned"]


def test_each_picture_of_a_batch_is_looked_at(pipeline: Pipeline, decoder: Decoder) -> None:
    decoder.ruins = {"as planned": 0}
    events: list[Event] = []
    pipeline.generate(replace(REQUEST, batch=2, cfg_scale=1.0), events.append)
    assert len(warnings(events)) == 1 and decoder.tried == ["as planned", *["with im2col convolutions"] * 2]


def test_the_small_autoencoder_is_looked_at_too(pipeline: Pipeline, decoder: Decoder) -> None:
    decoder.ruins = {"as planned": 0}
    assert np.ptp(made(pipeline, decode_with="taesd")) > 0 and len(decoder.tried) == 2


def test_nobody_looks_where_nobody_is_asked_to(shelf: Path, decoder: Decoder) -> None:
    decoder.ruins = {"": 0}
    with Pipeline(sd1_files(shelf), ALONE) as pipeline:
        assert np.ptp(made(pipeline)) == 0


class Planned:
    """As much of a run as `ways` asks for: a GPU of some kind, and what the CPU would take."""

    def __init__(self, device: str, tile: int, on_cpu: str = "openvino", convolution: str = "auto") -> None:
        self.request = type("Request", (), {"decode_with": "vae"})
        self.placement = type("Placement", (), {"device": {"vae": device}, "tile": tile})
        options = type("Options", (), {"convolution": convolution})
        self.fleet = type("Fleet", (), {"settings": type("Settings", (), {"options": options}), "executor": self.where})
        self.on_cpu = on_cpu

    def where(self, component: str, device: str) -> str:
        return self.on_cpu if device == "cpu" else device


def ways(planned: Planned, side: int = 128) -> list[tuple[str, int, str]]:
    which = type("Pass", (), {"latent_size": (side, side)})
    return [(way.device, way.tile, way.convolution) for way in decode.Decoding().ways(planned, which)]  # type: ignore[arg-type]


def test_on_a_gpu_ways_go_from_smaller_tiles_to_the_cpu() -> None:
    assert ways(Planned("vulkan0", 72)) == [
        ("vulkan0", 72, "auto"),
        ("vulkan0", 36, "auto"),
        ("vulkan0", 36, "im2col"),
        ("openvino", 64, "auto"),
        ("ggml-cpu", 64, "auto"),
    ]
    assert ways(Planned("vulkan0", 128, convolution="im2col"), side=32) == [
        ("vulkan0", 32, "im2col"),
        ("vulkan0", 32, "direct"),
        ("openvino", 32, "im2col"),
        ("ggml-cpu", 32, "im2col"),
    ]


def test_the_cpu_has_another_way_too() -> None:
    assert ways(Planned("cpu", 64)) == [("openvino", 64, "auto"), ("ggml-cpu", 64, "auto")]
    assert ways(Planned("cpu", 32, on_cpu="ggml-cpu")) == [("ggml-cpu", 32, "auto"), ("ggml-cpu", 32, "im2col")]
