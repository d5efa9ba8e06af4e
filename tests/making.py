"""Pictures from tiny models: what goes beside a model, what is asked of it, and how pictures compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

import checkpoints
import lora_files
import tiny_sd
from golden import small_nets
from golden.weights import random_weights
from relight.jobs.engine import EngineSettings
from relight.jobs.events import Event, Listener
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import GenerateRequest, ModelFiles, Redraw

ALONE = EngineSettings(backend="ggml-cpu", threads=1, check_results=False)
"""One worker, and models of random weights make no pictures."""
REQUEST = GenerateRequest(prompt="a cat", width=64, height=64, steps=4, seed=1, cfg_scale=4)
UNET_LAYERS = {
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (64, tiny_sd.WIDTH),
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_v": (64, tiny_sd.WIDTH),
}
TEXT_LAYERS = {"lora_te_text_model_encoder_layers_0_mlp_fc1": (128, tiny_sd.WIDTH)}
SIZE = (90, 70)
"""Width and height of the user's picture."""


def lora(path: Path, layers: Mapping[str, tuple[int, int]], seed: int = 1) -> Path:
    """As kohya's trainer writes it, of rank 4."""
    rng, arrays = np.random.default_rng(seed), {}
    for name, (rows, columns) in layers.items():
        arrays[f"{name}.lora_down.weight"] = rng.standard_normal((4, columns)).astype(np.float32)
        arrays[f"{name}.lora_up.weight"] = rng.standard_normal((rows, 4)).astype(np.float32) / 4
        arrays[f"{name}.alpha"] = np.array(4, np.float32)
    return lora_files.write(path, arrays)


def shelf(folder: Path) -> Path:
    """Fills a folder with a tiny Stable Diffusion 1.x, and what goes with it."""
    tiny_sd.sd1(folder / "sd15.safetensors")
    tiny_sd.sd1(folder / "sd15-inpainting.safetensors", in_channels=9)
    checkpoints.safetensors(folder / "taesd.safetensors", random_weights(small_nets.taesd_decoder_shapes(4)))
    checkpoints.safetensors(folder / "x2.safetensors", small_nets.compact_weights(2))
    for seed in (1, 2):
        tiny_sd.controlnet(folder / f"control{seed}.safetensors", seed)
    lora(folder / "ink.safetensors", UNET_LAYERS | TEXT_LAYERS)
    lora(folder / "wash.safetensors", UNET_LAYERS, seed=2)
    return folder


def sd1_files(folder: Path, name: str = "sd15") -> ModelFiles:
    paths = dict.fromkeys(("unet", "clip_l", "vae"), (folder / f"{name}.safetensors",))
    return ModelFiles.of_family(
        "sd1",
        paths | {"taesd": (folder / "taesd.safetensors",), "upscaler": (folder / "x2.safetensors",)},
        loras={name: folder / f"{name}.safetensors" for name in ("ink", "wash")},
    )


def made(
    pipeline: Pipeline, request: GenerateRequest = REQUEST, tell: Listener = lambda event: None, **changes: object
) -> np.ndarray:
    """The first picture, as integers that can be subtracted."""
    return pipeline.generate(replace(request, **changes), tell).pictures[0].image.astype(int)  # type: ignore[arg-type]


def events_of(pipeline: Pipeline, **changes: object) -> list[Event]:
    events: list[Event] = []
    made(pipeline, REQUEST, events.append, **changes)
    return events


def near(a: np.ndarray, b: np.ndarray) -> bool:
    """The same picture, up to rounding."""
    return a.shape == b.shape and int(np.abs(a - b).max()) <= 2


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).mean())


def photograph() -> np.ndarray:
    """What a user might bring: smooth, and no multiple of anything."""
    width, height = SIZE
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 2, y * 3, (x + y) % 256], axis=-1).astype(np.uint8)


def masked(**changes: object) -> Redraw:
    """A rectangle in the photograph to be painted, with hard edges."""
    mask = np.zeros(SIZE[::-1], np.float32)
    mask[20:50, 30:60] = 1
    return Redraw(**{"image": photograph(), "mask": mask, "mask_blur": 0.0, "strength": 1.0} | changes)  # type: ignore[arg-type]
