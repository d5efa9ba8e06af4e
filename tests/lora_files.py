"""LoRA files as trainers write them, with random values, and the names and shapes that published trainers give."""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints import stored_as
from golden import weights as g
from relight.weights.write import TensorSource, write_safetensors

NAMES: dict[str, dict[str, Any]] = json.loads(
    lzma.decompress((Path(__file__).parent / "weights/lora_names.json.xz").read_bytes())
)
"""`files`: shapes and metadata of files by diffusers; `layers`: shapes of the layers of its published networks."""


def write(path: Path, arrays: Mapping[str, np.ndarray], form: str = "F32", metadata: Any = None) -> Path:
    sources = [TensorSource(name, array.shape, form, partial(stored_as, form, array)) for name, array in arrays.items()]
    write_safetensors(path, sources, metadata or {"format": "pt"})
    return path


def golden_file(path: Path, name: str, seed: int) -> Path:
    """A file of diffusers' with the values that the golden outputs were made with."""
    shapes = {key: tuple(shape) for key, shape in NAMES["files"][name]["shapes"].items()}
    return write(path, g.random_weights(shapes, seed), metadata=NAMES["files"][name]["metadata"])
