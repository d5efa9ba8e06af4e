"""A request that was broken off goes on from its checkpoints and ends in the same picture, byte for byte."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

import tiny_sd
from relight.jobs.engine import EngineSettings
from relight.jobs.events import Checkpointed, Event
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import GenerateRequest, Hires

pytestmark = pytest.mark.timeout(120)
REQUEST = GenerateRequest(prompt="a [cat:dog:0.5]", width=64, height=64, steps=5, seed=1, batch=2, cfg_scale=2)


class BrokenOff(Exception):
    pass


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    files = tiny_sd.sd1(tmp_path_factory.mktemp("sd") / "tiny.safetensors")
    with Pipeline(files, EngineSettings(backend="ggml-cpu", threads=1, check_results=False)) as pipeline:
        yield pipeline


def broken_off(pipeline: Pipeline, request: GenerateRequest, part: str, step: int) -> dict[str, Checkpointed]:
    """The last checkpoint of each part, of a request that ended at a step of one of them."""
    last: dict[str, Checkpointed] = {}

    def tell(event: Event) -> None:
        if isinstance(event, Checkpointed):
            last[event.part] = event
            if (event.part, event.step) == (part, step):
                raise BrokenOff

    with pytest.raises(BrokenOff):
        pipeline.generate(request, tell, checkpoints=True)
    return last


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m_sde", "uni_pc", "res_multistep"])
def test_the_picture_is_the_same(pipeline: Pipeline, sampler: str) -> None:
    request = replace(REQUEST, sampler=sampler)
    whole = pipeline.generate(request).pictures
    saved = broken_off(pipeline, request, "0.1", 3)
    assert {part: event.step for part, event in saved.items()} == {"0.0": 5, "0.1": 3}
    resumed = pipeline.generate(request, resume=saved)
    assert [len(steps) for steps in resumed.report["seconds"]["steps"]] == [2]  # those after the checkpoint, no others
    for before, after in zip(whole, resumed.pictures, strict=True):
        assert np.array_equal(before.image, after.image)


def test_a_second_pass_goes_on_too(pipeline: Pipeline) -> None:
    request = replace(REQUEST, batch=1, hires=Hires(scale=1.5, strength=0.9))
    whole = pipeline.generate(request).pictures[0].image
    saved = broken_off(pipeline, request, "1.0", 2)
    assert np.array_equal(pipeline.generate(request, resume=saved).pictures[0].image, whole)


def test_requests_beside_one_another_do_not_disturb_each_other(pipeline: Pipeline) -> None:
    request = replace(REQUEST, batch=1)
    prompts = ["a cat", "a dog", "a cat", "a bird"]
    alone = {prompt: pipeline.generate(replace(request, prompt=prompt)).pictures[0].image for prompt in set(prompts)}
    made: dict[int, np.ndarray] = {}

    def make(i: int) -> None:
        made[i] = pipeline.generate(replace(request, prompt=prompts[i])).pictures[0].image

    threads = [threading.Thread(target=make, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(made[i], alone[prompt]) for i, prompt in enumerate(prompts))


def test_one_that_is_broken_off_leaves_the_other_alone(pipeline: Pipeline) -> None:
    request = replace(REQUEST, batch=1)
    whole = pipeline.generate(request).pictures[0].image
    made: list[np.ndarray] = []
    other = threading.Thread(target=lambda: made.append(pipeline.generate(request).pictures[0].image))

    def tell(event: Event) -> None:
        if isinstance(event, Checkpointed) and event.step == 2:
            other.start()
            raise BrokenOff

    with pytest.raises(BrokenOff):
        pipeline.generate(replace(request, seed=9), tell, checkpoints=True)
    other.join()
    assert np.array_equal(made[0], whole)


def test_what_a_larger_group_left_is_not_taken_for_a_smaller_one(pipeline: Pipeline) -> None:
    """After a failure less of the card may be used, and fewer pictures denoised at a time."""
    request = replace(REQUEST, batch=2)
    whole = pipeline.generate(request).pictures
    both = Checkpointed("0.0", 3, {"latents": np.zeros((2, 4, 8, 8), np.float32)})
    for before, after in zip(whole, pipeline.generate(request, resume={"0.0": both}).pictures, strict=True):
        assert np.array_equal(before.image, after.image)
