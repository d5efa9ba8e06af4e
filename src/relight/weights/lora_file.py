"""A LoRA file: which layers it has, by the names its trainer wrote, and how strongly each is meant."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from relight.errors import ModelFileError
from relight.weights import families
from relight.weights.container import Container, open_container
from relight.weights.formats import FORMATS
from relight.weights.lora_names import role_of
from relight.weights.mapped import Entry
from relight.weights.quants import to_float32

PART = re.compile(
    r"(?P<layer>.+?)(?:[._]lora(?:_linear_layer)?)?\.(?:lora_)?(?P<part>down|up|mid|A|B|alpha)"
    r"(?:\.default(?:_\d+)?)?(?:\.weight)?"
)
"""kohya's `X.lora_down.weight`, PEFT's `X.lora_A.weight` and `X.lora_A.default.weight`, diffusers' `X.lora.down.weight`
and the older `X_lora.down.weight` and `X.lora_linear_layer.down.weight`."""
PARTS = {"A": "down", "B": "up"}

OTHER_KINDS = {
    "hada_": "LoHa (it multiplies two such products element by element)",
    "lokr_": "LoKr (it is a Kronecker product)",
    "dora_scale": "DoRA (it scales the merged weight's columns anew)",
    "lora_magnitude_vector": "DoRA (it scales the merged weight's columns anew)",
    "on_input": "IA3 (it scales a layer's inputs or outputs)",
    "oft_": "OFT (it turns the weight)",
    "boft_": "OFT (it turns the weight)",
    "lora_embedding_": "for embeddings as well (it changes the table of tokens)",
    "diff": "with whole weights beside its pairs",
    "diff_b": "with whole biases beside its pairs",
    "set_weight": "with whole weights beside its pairs",
    "w_norm": "with whole norms beside its pairs",
    "b_norm": "with whole norms beside its pairs",
}
"""What is no product of two small matrices, by the tensors that only such files have, and why it cannot be put beside a
quantised weight."""
OTHER = re.compile(
    r"\.(hada_|lokr_|oft_|boft_|lora_embedding_|(?:dora_scale|lora_magnitude_vector|on_input|diff|diff_b"
    r"|set_weight|w_norm|b_norm)(?=\.|$))"
)


@dataclass(frozen=True)
class Layer:
    """What is added to one weight: `scale` times up [out r ...] times down [r in ...].

    `mid` [r r height width] stands between them where a convolution is taken apart further. The name is the trainer's.
    """

    name: str
    down: Entry
    up: Entry
    mid: Entry | None
    scale: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]


class LoraFile:
    """An opened LoRA. `unread` are tensors of no meaning here, `family` is what it was trained for; files of one
    `identity` have the same contents."""

    def __init__(self, container: Container, layers: dict[str, Layer], unread: tuple[str, ...]) -> None:
        self.path = container.path
        self.identity = (str(container.path), container.file.size, container.path.stat().st_mtime_ns)
        self.layers, self.unread = layers, unread
        self.family = _family(container)
        self._container = container

    @property
    def roles(self) -> tuple[str, ...]:
        """The parts of a model that it changes: `backbone`, `text encoder` ..."""
        return tuple(dict.fromkeys(role_of(name)[0] for name in self.layers))

    def read(self, entry: Entry) -> np.ndarray:
        """One of its tensors as float32."""
        return to_float32(entry.format, self._container.bytes_of(entry), entry.shape)

    def close(self) -> None:
        """Unmap the file, or leave that to whoever still reads from it."""
        self._container.close()


def open_lora(path: Path) -> LoraFile:
    """Raises ModelFileError for a file that is broken, no LoRA, or of a kind that is more than low-rank pairs."""
    container = open_container(path)
    try:
        return _read(container)
    except BaseException:
        container.close()
        raise


def _read(container: Container) -> LoraFile:
    parts: dict[str, dict[str, Entry]] = {}
    unread = []
    for name, entry in container.entries.items():
        if other := OTHER.search(name):
            raise ModelFileError(
                f"{container.path}: {name} makes it a LoRA {OTHER_KINDS[other[1]]}; relight adds LoRA and LoCon, whose "
                f"layers are products of two small matrices: take such a file, or merge this one into its model"
            )
        if match := PART.fullmatch(name):
            parts.setdefault(match["layer"], {})[PARTS.get(match["part"], match["part"])] = entry
        else:
            unread.append(name)
    layers = {name: _layer(container, name, entries) for name, entries in parts.items() if entries.keys() != {"alpha"}}
    if not layers:
        raise ModelFileError(f"{container.path}: none of its {len(container.entries)} tensors is a layer of a LoRA")
    return LoraFile(container, layers, tuple(unread))


def _layer(container: Container, name: str, entries: Mapping[str, Entry]) -> Layer:
    for part in ("down", "up"):
        if part not in entries:
            raise ModelFileError(f"{container.path}: {name} lacks its {part} matrix; download the file again")
    for part, entry in entries.items():
        if part != "alpha" and (entry.format not in FORMATS or len(entry.shape) not in (2, 4)):
            raise ModelFileError(
                f"{container.path}: {entry.name} is {entry.format} {list(entry.shape)}, no matrix or kernel relight "
                f"computes with; take another file"
            )
    down, up, mid = entries["down"], entries["up"], entries.get("mid")
    rank = down.shape[0]
    if up.shape[1] != rank or rank < 1 or (mid is not None and (len(mid.shape) != 4 or mid.shape[:2] != (rank, rank))):
        shapes = ", ".join(f"{part} {list(entry.shape)}" for part, entry in entries.items() if part != "alpha")
        raise ModelFileError(f"{container.path}: the ranks of {name} do not agree ({shapes}); download the file again")
    scale = _number(container, entries["alpha"]) / rank if "alpha" in entries else _peft_scale(container, name, rank)
    if not math.isfinite(scale):
        raise ModelFileError(f"{container.path}: {name} has the alpha {scale * rank}; download the file again")
    return Layer(name, down, up, mid, scale)


def _number(container: Container, entry: Entry) -> float:
    if math.prod(entry.shape) != 1:
        raise ModelFileError(f"{container.path}: {entry.name} of shape {list(entry.shape)} is no number")
    raw = container.bytes_of(entry)
    if entry.format in NUMBERS:
        return float(raw.view(NUMBERS[entry.format])[0])
    return float(to_float32(entry.format, raw, (1,))[0])


NUMBERS = {"F64": "<f8", "I64": "<i8", "I16": "<i2"}


def _peft_scale(container: Container, layer: str, rank: int) -> float:
    """alpha / rank from PEFT's settings, which diffusers keeps in the file and PEFT in one beside it; 1 without them.

    rslora divides by the root of the rank.
    """
    component, _, module = layer.partition(".")
    settings = _settings(container, component)
    if not settings:
        settings, module = _settings_beside(container.path), layer.removeprefix("base_model.model.")
    pattern = settings.get("alpha_pattern")
    alpha = settings.get("lora_alpha")
    for ending, value in pattern.items() if isinstance(pattern, dict) else ():
        if module == ending or module.endswith("." + ending):
            alpha = value
    if not isinstance(alpha, (int, float)):
        return 1.0
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _settings(container: Container, component: str) -> dict[str, Any]:
    text = container.metadata.get("lora_adapter_metadata")
    settings = _json(text, container.path) if isinstance(text, str) else {}
    prefix = component + "."
    return {key.removeprefix(prefix): value for key, value in settings.items() if key.startswith(prefix)}


def _settings_beside(path: Path) -> dict[str, Any]:
    beside = path.with_name("adapter_config.json")
    if not path.name.startswith("adapter_model.") or not beside.is_file() or beside.stat().st_size > MAX_SETTINGS_BYTES:
        return {}
    return _json(beside.read_text(encoding="utf-8"), beside)


MAX_SETTINGS_BYTES = 1 << 20


def _json(text: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: the LoRA's settings are no JSON ({error}); download the file again") from error
    return value if isinstance(value, dict) else {}


def _family(container: Container) -> str:
    told = families.lora({name: entry.shape for name, entry in container.entries.items()})
    return families.TITLES[told.model] if told and told.model else "another model"
