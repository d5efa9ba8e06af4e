"""What may be asked for, whatever the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relight.errors import RequestError
from relight.jobs.request import MAX_SEED, Control, GenerateRequest, Hires, Lora, ModelFiles, Redraw

IMAGE, MASK = np.zeros((64, 96, 3), np.uint8), np.ones((64, 96), np.float32)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"height": 8192}, "size: 8192 pixels; 64 to 4096 can be made"),
        ({"width": 32}, "size: 32 pixels"),
        ({"steps": 0}, "steps 0: 1 to 1000"),
        ({"batch": -1}, "batch -1: 1 to 64"),
        ({"seed": -1}, "seed -1: 0 to"),
        ({"seed": MAX_SEED, "batch": 2}, f"seed {MAX_SEED}: 0 to {MAX_SEED - 2}"),
        ({"guidance": float("nan")}, "guidance nan: 0 to 100"),
        ({"cfg_scale": -1}, "cfg scale -1: 0 to 100"),
        ({"cfg_rescale": 1.5}, r"cfg rescale 1\.5: 0 to 1"),
        ({"clip_skip": 0}, "clip skip 0: 1 to 12"),
        ({"sampler": "dmpp_2m"}, "sampler: 'dmpp_2m' is not one of .*; did you mean dpmpp_2m"),
        ({"sampler": "DPM fast"}, "sampler: 'DPM fast' is not made: it chooses its own noise levels"),
        ({"schedule": "karas"}, "schedule: 'karas' is not one of .*; did you mean karras"),
        ({"rng": ""}, "rng: ''"),
        ({"tile": 15}, "vae tile size 15: 16 to 512"),
        ({"text_tokens": 513}, "text tokens 513: 1 to 512"),
        ({"upscale": 9}, "upscale 9: 1 to 8"),
        ({"preview_every": -1}, "preview every -1"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        GenerateRequest(prompt="a cat", **wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"strength": 1.1}, r"strength 1\.1: 0 to 1"),
        ({"strength": float("nan")}, "strength nan"),
        ({"fit": "squeeze"}, "resize mode: there is no 'squeeze'; there are stretch, crop, fill"),
        ({"fill": "original", "only_masked": True}, "for a picture with a mask"),
        ({"fill": "latent_noise"}, "for a picture with a mask"),
        ({"mask": MASK, "fill": "white"}, "inpainting fill: there is no 'white'"),
        ({"mask": MASK, "mask_blur": -1}, "mask blur -1"),
        ({"mask": MASK[:, :64]}, "mask: 64x64 pixels, and the picture has 96x64"),
        ({"mask": 0 * MASK}, "mask: nothing in it is white"),
    ],
)
def test_a_picture_to_begin_from_is_checked_with_its_mask(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        Redraw(image=IMAGE, **wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"scale": 0.5}, r"hires scale 0\.5: 1 to 8"),
        ({"strength": 2}, "hires strength 2"),
        ({"steps": 0}, "hires steps 0"),
        ({"upscaler": "Latent (sharp)"}, r"hires upscaler: 'Latent \(sharp\)' is not one of latent, "),
    ],
)
def test_a_second_pass_is_checked(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        Hires(**wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"strength": 11}, "control strength 11"),
        ({"start": 0.5, "end": 0.4}, r"control end 0\.4: 0\.5 to 1"),
        ({"canny": (200, 100)}, "canny 200,100: the second threshold is no less than the first"),
    ],
)
def test_a_controlnet_is_checked(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        Control(path=Path("c"), image=IMAGE, **wrong)


def test_a_loras_weight_is_a_number_that_can_be_meant() -> None:
    with pytest.raises(RequestError, match="weight of LoRA ink 200: -20 to 20"):
        Lora("ink", 200)


def test_a_seed_is_drawn_once_where_none_is_given() -> None:
    seeded = GenerateRequest(prompt="a cat").with_seed()
    assert seeded.seed is not None and seeded.with_seed() is seeded
    assert GenerateRequest(prompt="a cat", seed=0).with_seed().seed == 0


def test_components_share_the_files_of_their_networks() -> None:
    files = ModelFiles.of_family("flux", {"diffusion": (Path("flux"),), "vae": (Path("ae"),), "taesd": (Path("tae"),)})
    assert files.of("modulation") == files.of("diffusion") == (Path("flux"),)
    assert files.of("vae_encoder") == files.of("vae") and files.of("taesd") == (Path("tae"),)
    assert files.of("upscaler") == () and files.name == "flux"
    assert ModelFiles.of_family("sd1", {"unet": (Path("v1-5.safetensors"),)}).name == "v1-5"
