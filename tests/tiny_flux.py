"""A whole FLUX.1 of a few megabytes with random weights, in the published layout: for tests of everything around it."""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

import checkpoints
from relight.jobs.request import ModelFiles
from relight.weights.write import TensorSource, write_safetensors

TOKENIZER = Path(__file__).parent / "models/t5_tokenizer.json.xz"
CLIP_TOKENS, T5_TOKENS = 49408, 32128
SPREAD = 0.02


def write(folder: Path) -> ModelFiles:
    """`flux1-schnell-tiny.safetensors`, `clip_l.safetensors`, `t5xxl_fp16.safetensors`, `ae.safetensors` and a T5
    tokenizer; 10 MB."""
    folder.mkdir(parents=True, exist_ok=True)
    flux = checkpoints.flux_shapes(double=1, single=1)
    clip = checkpoints.clip_shapes() | {"text_model.embeddings.token_embedding.weight": (CLIP_TOKENS, 64)}
    t5 = checkpoints.t5_shapes() | {"shared.weight": (T5_TOKENS, 64)}
    vae = checkpoints.vae_shapes(channels=(32, 32, 32, 32))
    paths = {
        "diffusion": (write_f16(folder / "flux1-schnell-tiny.safetensors", flux),),
        "clip_l": (write_f16(folder / "clip_l.safetensors", clip),),
        "t5xxl": (write_f16(folder / "t5xxl_fp16.safetensors", t5),),
        "vae": (write_f16(folder / "ae.safetensors", vae),),
    }
    files = ModelFiles.of_family("flux", paths, t5_tokenizer=folder / "tokenizer.json")
    (folder / "tokenizer.json").write_bytes(lzma.decompress(TOKENIZER.read_bytes()))
    return files


def write_f16(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path:
    """A safetensors file of random values that stay finite through a network."""
    sources = [
        TensorSource(name, shape, "F16", partial(_values, i, name, shape))
        for i, (name, shape) in enumerate(shapes.items())
    ]
    write_safetensors(path, sources, {"format": "pt"})
    return path


def _values(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Norms near 1, the rest near 0, so that values stay finite through the whole path."""
    noise = np.random.default_rng(seed).standard_normal(shape, np.float32) * SPREAD
    return checkpoints.stored_as("F16", noise + (len(shape) == 1 and name.endswith(("weight", "scale"))))
