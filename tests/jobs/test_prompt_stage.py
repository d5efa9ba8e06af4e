"""What prompts say, down to the picture: weights, chunks, embeddings, changes on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import checkpoints
from making import ALONE, REQUEST, distance, events_of, made, sd1_files
from relight.errors import RequestError
from relight.jobs.events import Warned
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import Hires
from relight.weights import embeddings

pytestmark = pytest.mark.timeout(60)


def test_emphasis_and_clip_skip_change_the_picture_by_degrees(sd1: Pipeline) -> None:
    plain = made(sd1)
    assert 0 < distance(made(sd1, prompt="a (cat:1.1)"), plain) < distance(made(sd1, prompt="a (cat:1.8)"), plain)
    assert distance(made(sd1, clip_skip=12), plain) > 0.5  # of published depth; the tiny one has the last two of 12
    np.testing.assert_array_equal(made(sd1, prompt="a (cat:1.0)"), plain)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_long_prompts_are_read_to_their_end(family: str, request: pytest.FixtureRequest) -> None:
    pipeline: Pipeline = request.getfixturevalue(family)
    long = "a very long story about a cat " * 20
    ends = [made(pipeline, prompt=long + end) for end in ("in spring", "in autumn")]
    assert distance(*ends) > 0.1
    against = made(pipeline, prompt=long, negative_prompt="dog")  # as many chunks for both
    assert distance(against, made(pipeline, prompt=long, negative_prompt="text")) > 0.1


def test_break_begins_a_chunk(sd1: Pipeline) -> None:
    assert distance(made(sd1, prompt="a red BREAK cat"), made(sd1, prompt="a red cat")) > 0.5


def test_a_prompt_changes_on_the_way(sd1: Pipeline) -> None:
    cat, dog, both = (made(sd1, steps=8, prompt=f"a {what}") for what in ("cat", "dog", "[cat:dog:0.3]"))
    assert distance(both, cat) > 0.1 and distance(both, dog) > 0.1
    early = made(sd1, steps=8, prompt="a [cat:dog:0]")
    assert distance(early, dog) < distance(early, cat)


def test_a_prompt_goes_on_changing_in_the_second_pass(sd1: Pipeline) -> None:
    hires = Hires(scale=1.5)
    assert distance(*(made(sd1, hires=hires, prompt=p) for p in ("a cat", "a [cat:dog:1.2]"))) > 0.1


def test_a_negative_prompt_in_vain_is_told(sd1: Pipeline) -> None:
    told = [e.message for e in events_of(sd1, cfg_scale=1.0, negative_prompt="dog") if isinstance(e, Warned)]
    assert told == ["the negative prompt does nothing at cfg scale 1; give --cfg-scale"]
    assert not [e for e in events_of(sd1, negative_prompt="dog") if isinstance(e, Warned)]


@pytest.fixture
def with_embeddings(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """`harbour` of two vectors for this model's encoder, and `other` for one of another width."""
    monkeypatch.setitem(embeddings.WIDTHS, 64, "clip_l")
    rng = np.random.default_rng(0)
    for name, shape in (("harbour", (2, 64)), ("other", (2, 1024))):
        checkpoints.safetensors(tmp_path / f"{name}.safetensors", {"emb_params": rng.standard_normal(shape)})
    files = {name: tmp_path / f"{name}.safetensors" for name in ("harbour", "other")}
    return Pipeline(replace(sd1_files(shelf), embeddings=files), ALONE)


def test_an_embedding_is_called_by_its_name(with_embeddings: Pipeline, sd1: Pipeline) -> None:
    with with_embeddings as pipeline:
        called, word = made(pipeline, prompt="a harbour"), made(sd1, prompt="a harbour")
        assert distance(called, word) > 0.5
        np.testing.assert_array_equal(made(pipeline), made(sd1))
        assert distance(made(pipeline, negative_prompt="harbour"), made(pipeline)) > 0.1
        with pytest.raises(
            RequestError, match="embedding other is for another model: it has clip_h 1024 wide; clip_l is 64"
        ):
            made(pipeline, prompt="an other")


def test_the_prompt_as_it_was_given_is_reported(sd1: Pipeline) -> None:
    report = sd1.generate(replace(REQUEST, prompt="a (cat:1.2) <lora:ink:0.5>", negative_prompt="dog")).report
    assert report["prompt"] == "a (cat:1.2) <lora:ink:0.5>" and report["negative_prompt"] == "dog"
