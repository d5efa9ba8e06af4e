"""What is shown while a picture is made, and what is said when it is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from making import ALONE, REQUEST, distance, events_of, made, sd1_files
from relight.errors import RuinedPicture
from relight.images import verdict
from relight.images.verdict import Verdict
from relight.jobs import fleet, lanes, run
from relight.jobs.events import Checkpointed, Event, Previewed, Warned
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import Hires

pytestmark = pytest.mark.timeout(60)
LOOKED_AT = replace(ALONE, check_results=True)


def shown(events: list[Event]) -> list[Previewed]:
    return [event for event in events if isinstance(event, Previewed)]


@pytest.mark.parametrize("family", ["flux", "sd1", "sdxl"])
def test_previews_come_every_so_many_steps_at_the_pictures_size(family: str, request: pytest.FixtureRequest) -> None:
    found = shown(events_of(request.getfixturevalue(family), width=96, steps=5, preview_every=2, text_tokens=16))
    assert [(event.picture, event.done, event.total) for event in found] == [(0, 2, 5), (0, 4, 5)]
    assert all(event.image.shape == (64, 96, 3) and event.image.dtype == np.uint8 for event in found)
    assert distance(*(event.image.astype(int) for event in found)) > 0


def test_none_come_unless_asked_for(sd1: Pipeline) -> None:
    assert shown(events_of(sd1)) == []


def test_each_picture_of_a_group_and_each_pass_is_shown(sd1: Pipeline) -> None:
    found = shown(
        events_of(sd1, batch=2, cfg_scale=1.0, preview_every=4, hires=Hires(scale=1.5, steps=8, strength=0.4))
    )
    assert [(event.picture, event.image.shape[0]) for event in found] == [(0, 64), (1, 64), (0, 96), (1, 96)]


@pytest.fixture
def two_workers(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    """The backbone has a worker of its own, as with a GPU."""
    for module in (lanes, fleet, run):
        monkeypatch.setattr(module, "worker_name", lambda device: "second" if device == "reference" else "cpu")
    with Pipeline(sd1_files(shelf), replace(ALONE, backend="ggml-cpu,diffusion=reference")) as pipeline:
        yield pipeline


def test_beside_the_backbone_the_small_autoencoder_shows_them(two_workers: Pipeline, sd1: Pipeline) -> None:
    """What the last step takes the picture for is the picture."""
    (preview,) = shown(events_of(two_workers, preview_every=4))
    assert distance(preview.image.astype(int), made(sd1, decode_with="taesd")) < 0.5  # two executors
    (rough,) = shown(events_of(sd1, preview_every=4))
    assert distance(rough.image.astype(int), preview.image.astype(int)) > 5


def test_weights_that_are_no_numbers_ruin_the_picture_and_it_is_said_what_helps(shelf: Path, tmp_path: Path) -> None:
    files = sd1_files(shelf)
    broken = Path(shutil.copy(files.of("diffusion")[0], tmp_path / "broken.safetensors"))
    with broken.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        begin, end = json.loads(file.read(length))["model.diffusion_model.out.2.weight"]["data_offsets"]
        file.seek(8 + length + begin)
        file.write(b"\xff" * (end - begin))
    paths = {**files.paths, "unet": (broken,)}
    told: list[Event] = []
    with Pipeline(replace(files, paths=paths), LOOKED_AT) as pipeline, pytest.raises(RuinedPicture) as caught:
        pipeline.generate(REQUEST, told.append, checkpoints=True)
    assert told and not any(isinstance(event, Checkpointed) for event in told), "nobody is to go on from that"
    message = str(caught.value)
    assert message.startswith("picture 1 is ruined: 256 of 256 values of the latents are NaN or infinite. ")
    assert "--backend diffusion=cpu tells which" in message


def test_odd_latents_are_told_and_decoded_all_the_same(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "judge_latents", lambda latents: Verdict("noise", "they are nearly noise", False))
    monkeypatch.setattr(verdict, "judge_picture", lambda *what: None)
    with Pipeline(sd1_files(shelf), LOOKED_AT) as pipeline:
        told = [event.message for event in events_of(pipeline, batch=2) if isinstance(event, Warned)]
    assert told == [f"picture {i} looks odd: they are nearly noise" for i in (1, 2)]


def test_one_ruined_picture_of_several_is_named(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = iter([None, Verdict("constant", "no channel varies", True)])
    monkeypatch.setattr(verdict, "judge_latents", lambda latents: next(verdicts))
    with (
        Pipeline(sd1_files(shelf), LOOKED_AT) as pipeline,
        pytest.raises(RuinedPicture, match=r"picture 2 is ruined: no channel varies\. The weights are damaged"),
    ):
        pipeline.generate(replace(REQUEST, batch=2, cfg_scale=1.0))
