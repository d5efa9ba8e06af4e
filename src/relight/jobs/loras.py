"""LoRAs by name: their files, and how strongly each acts on the backbone and on the text encoders."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from relight.errors import RequestError
from relight.jobs.request import Lora, ModelFiles

LoraSet = list[tuple[Path, float]]


def for_backbone(files: ModelFiles, loras: Sequence[Lora]) -> LoraSet:
    """Raises RequestError, with the nearest names, for one that is not there."""
    return [(path_of(files, lora.name), lora.weight) for lora in loras]


def for_text(files: ModelFiles, loras: Sequence[Lora]) -> LoraSet:
    weights = [lora.weight if lora.text_weight is None else lora.text_weight for lora in loras]
    return [(path_of(files, lora.name), weight) for lora, weight in zip(loras, weights, strict=True)]


def path_of(files: ModelFiles, name: str) -> Path:
    if name in files.loras:
        return files.loras[name]
    near = difflib.get_close_matches(name, files.loras, n=3)
    known = f"nearest are {', '.join(near)}" if near else f"{len(files.loras)} are there"
    raise RequestError(f"LoRA {name}: no such file in the LoRA folders ({known}); name a folder with --lora-dir")
