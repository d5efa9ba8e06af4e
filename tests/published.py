"""Stable Diffusion's networks under the names and at the sizes they are published with, in files without values."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

from checkpoints import prefixed

Shapes = dict[str, tuple[int, ...]]

PUBLISHED: dict[str, dict[str, tuple[list[int], str]]] = json.loads(
    gzip.decompress((Path(__file__).parent / "weights" / "published_sd.json.gz").read_bytes())
)
"""By diffusers' or transformers' name the shape, and the name CompVis or OpenCLIP gave it: weights/make_published."""


def theirs(network: str) -> Shapes:
    """As diffusers and transformers write it."""
    return {name: tuple(shape) for name, (shape, _) in PUBLISHED[network].items()}


def original(network: str) -> Shapes:
    """As the first publisher wrote it, without prefix: OpenCLIP's queries, keys and values in one matrix."""
    found: Shapes = {}
    for shape, name in PUBLISHED[network].values():
        if name == "text_projection":
            found[name] = tuple(shape[::-1])
        elif "in_proj" in name:
            found[name] = (3 * shape[0], *shape[1:])
        else:
            found[name] = tuple(shape)
    return found


def zeros(path: Path, shapes: Shapes, dtype: str = "F16", **metadata: str) -> Path:
    """A safetensors file with a hole for its values, which takes no room."""
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * (4 if dtype == "F32" else 2)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


def sd1_checkpoint() -> Shapes:
    return (
        prefixed("model.diffusion_model.", original("sd1_unet"))
        | prefixed("first_stage_model.", original("vae_4"))
        | prefixed("cond_stage_model.transformer.", theirs("clip_l"))
        | {"cond_stage_model.transformer.text_model.embeddings.position_ids": (1, 77)}
        | {"betas": (1000,), "model_ema.decay": (), "alphas_cumprod": (1000,)}
    )


def sd2_checkpoint() -> Shapes:
    return (
        prefixed("model.diffusion_model.", original("sd2_unet"))
        | prefixed("first_stage_model.", original("vae_4"))
        | prefixed("cond_stage_model.model.", original("clip_h") | {"text_projection": (1024, 1024), "logit_scale": ()})
    )


def sdxl_checkpoint() -> Shapes:
    return (
        prefixed("model.diffusion_model.", original("sdxl_unet"))
        | prefixed("first_stage_model.", original("vae_4"))
        | prefixed("conditioner.embedders.0.transformer.", theirs("clip_l"))
        | prefixed("conditioner.embedders.1.model.", original("clip_g") | {"logit_scale": ()})
    )


def averages(model: str) -> Shapes:
    """LitEma's copies: dots left out."""
    unet = {name.replace(".", ""): shape for name, shape in original(f"{model}_unet").items()}
    return prefixed("model_ema.diffusion_model", unet)


CHECKPOINTS = {"sd1": sd1_checkpoint, "sd2": sd2_checkpoint, "sdxl": sdxl_checkpoint}
