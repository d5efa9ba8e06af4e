"""LoRA: named in prompts and beside them, changed between pictures, and never a reason to load the model again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from making import ALONE, REQUEST, distance, events_of, lora, made, near, sd1_files
from relight.errors import ModelFileError, RequestError
from relight.jobs.events import Advanced, Event, Warned
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import Lora

pytestmark = pytest.mark.timeout(60)
INK = "a cat <lora:ink:0.8>"


@pytest.fixture(scope="module")
def plain(sd1: Pipeline) -> np.ndarray:
    return made(sd1)


def warnings(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Warned)]


def test_a_lora_acts_by_its_weight(sd1: Pipeline, plain: np.ndarray) -> None:
    strong, weak = made(sd1, prompt=INK), made(sd1, prompt="a cat <lora:ink:0.1>")
    assert distance(strong, plain) > distance(weak, plain) > 0
    assert near(made(sd1, prompt="a cat <lora:ink:0>"), plain)


def test_a_tag_and_a_parameter_are_the_same(sd1: Pipeline) -> None:
    tagged = sd1.generate(replace(REQUEST, prompt=INK))
    assert near(tagged.pictures[0].image.astype(int), made(sd1, loras=(Lora("ink", 0.8),)))
    assert tagged.report["loras"] == [{"name": "ink", "weight": 0.8}]


def test_a_weight_of_its_own_for_the_text(sd1: Pipeline) -> None:
    everywhere, backbone_only = made(sd1, loras=(Lora("ink"),)), made(sd1, loras=(Lora("ink", 1.0, 0.0),))
    assert distance(everywhere, backbone_only) > 0.1
    assert near(backbone_only, made(sd1, prompt="a cat <lora:ink:te=0:unet=1>"))


def test_several_at_once_are_more_than_one(sd1: Pipeline) -> None:
    both, one, other = (made(sd1, prompt=p) for p in (f"{INK} <lora:wash:1>", INK, "a cat <lora:wash:1>"))
    assert distance(both, one) > 0.1 and distance(both, other) > 0.1


def test_another_set_loads_no_weights_and_leaves_no_trace(sd1: Pipeline, plain: np.ndarray) -> None:
    for prompt in (INK, "a cat <lora:wash:1>", "a cat"):
        stages = [event.stage for event in events_of(sd1, prompt=prompt) if isinstance(event, Advanced)]
        assert "denoise" in stages and not [stage for stage in stages if stage.startswith("load")], prompt
    np.testing.assert_array_equal(made(sd1), plain)


def test_an_unknown_name_is_told_with_the_nearest(sd1: Pipeline) -> None:
    with pytest.raises(RequestError, match=r"LoRA inc: no such file in the LoRA folders \(nearest are ink\)"):
        made(sd1, prompt="a cat <lora:inc:1>")
    with pytest.raises(RequestError, match=r"LoRA zzz: no such file in the LoRA folders \(2 are there\)"):
        made(sd1, loras=(Lora("zzz"),))


def test_layers_that_fit_nothing_are_told_once(shelf: Path, tmp_path: Path) -> None:
    odd = lora(
        tmp_path / "odd.safetensors",
        {
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (64, 64),
            "lora_unet_down_blocks_9_attentions_0_proj_in": (64, 64),
        },
    )
    files = sd1_files(shelf)
    with Pipeline(replace(files, loras={**files.loras, "odd": odd}), ALONE) as pipeline:
        (told,) = warnings(events_of(pipeline, prompt="a cat <lora:odd:1>"))
        assert "1 of its weights fit nothing in this model" in told and "down_blocks_9" in told
        assert warnings(events_of(pipeline, prompt="a cat <lora:odd:1>")) == []
        assert warnings(events_of(pipeline, prompt=INK)) == []


def test_a_lora_of_another_model_is_refused_and_the_next_picture_is_made(
    shelf: Path, tmp_path: Path, plain: np.ndarray
) -> None:
    wide = lora(
        tmp_path / "wide.safetensors",
        {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (64, 2048)},
    )
    files = sd1_files(shelf)
    with Pipeline(replace(files, loras={**files.loras, "wide": wide}), ALONE) as pipeline:
        for _ in range(2):
            with pytest.raises(ModelFileError, match=r"wide\.safetensors: is a LoRA for .*, not for this model"):
                made(pipeline, prompt="a cat <lora:wide:1>")
            np.testing.assert_array_equal(made(pipeline), plain)
