"""The trained networks as relight's files: Q8_0 and F16 in the published layout, with the vocabulary inside T5's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from relight.weights.checkpoint import StoredTensor, open_component
from relight.weights.quants import read_float32
from relight.weights.write import TensorSource, write_gguf, write_safetensors

FILES = {
    "diffusion": "flux1-emoji-Q8_0.gguf",
    "clip_l": "clip-emoji-Q8_0.gguf",
    "t5xxl": "t5-emoji-Q8_0.gguf",
    "vae": "ae-emoji.safetensors",
}
WHOLE = ("img_in.", "final_layer.linear.", "position_embedding.", "relative_attention_bias.")
ARCHITECTURES = {"diffusion": "flux", "clip_l": "clip", "t5xxl": "t5encoder"}


def stored_as(kind: str, name: str, shape: tuple[int, ...]) -> str:
    if kind == "vae":
        return "F16"
    if len(shape) < 2:
        return "F32"
    if "relative_attention_bias" in name:
        return "F32"
    return "F16" if any(part in name for part in WHOLE) or shape[-1] % 32 else "Q8_0"


def export(folder: Path, networks: Mapping[str, nn.Module], vocabulary: Mapping[str, Any]) -> dict[str, int]:
    """Write the four files and return their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for kind, network in networks.items():
        tensors = [source(kind, name, value) for name, value in network.state_dict().items()]
        if kind == "vae":
            sizes[kind] = write_safetensors(folder / FILES[kind], tensors, {"license": "see LICENSES.txt"})
            continue
        metadata: dict[str, Any] = {
            "general.architecture": ARCHITECTURES[kind],
            "general.name": "relight's embedded emoji model",
            "general.quantization_version": np.uint32(2),
            "general.file_type": np.uint32(7),
        }
        sizes[kind] = write_gguf(folder / FILES[kind], tensors, metadata | (vocabulary if kind == "t5xxl" else {}))
    return sizes


def source(kind: str, name: str, value: torch.Tensor) -> TensorSource:
    array = value.detach().float().cpu().numpy()
    form = stored_as(kind, name, array.shape)
    content = q8_0(array) if form == "Q8_0" else array.astype(np.float16 if form == "F16" else np.float32)
    return TensorSource(name, array.shape, form, lambda: content)


def q8_0(array: np.ndarray) -> np.ndarray:
    """Blocks of 32: a float16 step, the largest magnitude over 127, and 32 signed bytes."""
    blocks = array.reshape(-1, 32).astype(np.float32)
    step = np.abs(blocks).max(1, keepdims=True) / 127
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.where(step > 0, np.rint(blocks / step), 0).astype(np.int8)
    return np.concatenate([step.astype(np.float16).view(np.uint8), steps.view(np.uint8)], 1)


def load(folder: Path, networks: Mapping[str, nn.Module]) -> None:
    """Read what `export` wrote back into the networks, as it is after quantisation."""
    for kind, network in networks.items():
        checkpoint = open_component(kind, (folder / FILES[kind],))
        state = network.state_dict()
        values = {name: torch.from_numpy(numbers(checkpoint[name])).reshape(state[name].shape) for name in state}
        network.load_state_dict(values)


def numbers(stored: StoredTensor) -> np.ndarray:
    """Float32, a block format without the package that relight decodes it with."""
    if stored.format != "Q8_0":
        return read_float32(stored).copy()
    blocks = np.concatenate([np.frombuffer(part, np.uint8) for part in stored.parts]).reshape(-1, 34)
    return blocks[:, 2:].view(np.int8) * blocks[:, :2].copy().view(np.float16).astype(np.float32)
