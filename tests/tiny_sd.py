"""Whole Stable Diffusion 1.x and SDXL checkpoints of a few megabytes with random weights, in the published layout. The
weights are of the size training leaves, so that what the prompt says shows in the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import checkpoints
from checkpoints import prefixed
from golden.weights import UnetSpec, controlnet_shapes, random_weights, unet_shapes
from relight.jobs.request import ModelFiles
from tiny_flux import CLIP_TOKENS

Shapes = dict[str, tuple[int, ...]]

WIDTH = 64
"""Of each text encoder."""


def sd1(path: Path, in_channels: int = 4) -> ModelFiles:
    """One file with UNet, CLIP-L and autoencoder."""
    shapes = prefixed("model.diffusion_model.", unet_shapes(sd1_spec(in_channels)))
    shapes |= prefixed("cond_stage_model.transformer.", clip()) | prefixed("first_stage_model.", vae())
    file = (write(path, shapes),)
    return ModelFiles.of_family("sd1", dict.fromkeys(("unet", "clip_l", "vae"), file))


def sdxl(path: Path) -> ModelFiles:
    """One file with UNet, CLIP-L, CLIP-G as OpenCLIP writes it, and autoencoder."""
    spec = UnetSpec((64, 64), (0, 1), 1, 2 * WIDTH, label=WIDTH + 6 * 256)
    shapes = prefixed("model.diffusion_model.", unet_shapes(spec))
    shapes |= prefixed("conditioner.embedders.0.transformer.", clip()) | prefixed(
        "conditioner.embedders.1.model.", open_clip()
    )
    shapes |= prefixed("first_stage_model.", vae())
    file = (write(path, shapes),)
    return ModelFiles.of_family("sdxl", dict.fromkeys(("unet", "clip_l", "clip_g", "vae"), file))


def sd1_spec(in_channels: int = 4) -> UnetSpec:
    return UnetSpec((64, 64), (1, 0), 1, WIDTH, linear_projection=False, in_channels=in_channels)


def controlnet(path: Path, seed: int = 1) -> Path:
    """One for `sd1`."""
    return write(path, controlnet_shapes(sd1_spec()), seed)


LARGER = {"encoder.conv_out.weight": 8, "input_hint_block": 1.5}
"""Where random weights give too little to show: latents are scaled down, and a hint goes through eight convolutions."""


def write(path: Path, shapes: Shapes, seed: int = 1) -> Path:
    arrays = random_weights(shapes, seed)
    for name in arrays:
        for part, factor in LARGER.items():
            if part in name:
                arrays[name] *= np.float32(factor)
    return checkpoints.safetensors(path, arrays, "F16")


def clip() -> Shapes:
    return checkpoints.clip_shapes() | {"text_model.embeddings.token_embedding.weight": (CLIP_TOKENS, WIDTH)}


def open_clip(layers: int = 2) -> Shapes:
    """The names of OpenCLIP, with q, k and v in one matrix and the projection the other way round."""
    shapes: Shapes = {
        "positional_embedding": (77, WIDTH),
        "token_embedding.weight": (CLIP_TOKENS, WIDTH),
        "text_projection": (WIDTH, WIDTH),
    }
    for name in ("ln_final", *(f"transformer.resblocks.{i}.ln_{n}" for i in range(layers) for n in (1, 2))):
        shapes |= {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}
    for i in range(layers):
        block = f"transformer.resblocks.{i}"
        shapes |= {f"{block}.attn.in_proj_weight": (3 * WIDTH, WIDTH), f"{block}.attn.in_proj_bias": (3 * WIDTH,)}
        for name, rows, columns in (
            ("attn.out_proj", WIDTH, WIDTH),
            ("mlp.c_fc", 4 * WIDTH, WIDTH),
            ("mlp.c_proj", WIDTH, 4 * WIDTH),
        ):
            shapes |= {f"{block}.{name}.weight": (rows, columns), f"{block}.{name}.bias": (rows,)}
    return shapes


def vae() -> Shapes:
    quant = {"quant_conv": (8, 8), "post_quant_conv": (4, 4)}
    shapes = checkpoints.vae_shapes(channels=(32, 32, 32, 32), latent=4)
    for name, (rows, columns) in quant.items():
        shapes |= {f"{name}.weight": (rows, columns, 1, 1), f"{name}.bias": (rows,)}
    return shapes
