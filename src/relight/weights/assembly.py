"""A network's tensors put together from the stored ones: renamed, joined, taken apart, turned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import numpy as np

from relight.errors import ModelFileError, WeightMissing
from relight.weights.formats import FORMATS
from relight.weights.names import renamer
from relight.weights.quants import to_float32
from relight.weights.recognise import Found
from relight.weights.renames import Place
from relight.weights.stored import Made, Stored, StoredTensor

SCALE_LEAVES = ("scale_weight", "weight_scale")
"""ComfyUI's names, older and newer, of the factor of an fp8 matrix."""

Pieces = dict[str, dict[int, tuple[Place, Stored]]]
"""Stored tensors by our name and by their place in it."""


def place_names(found: Found, stored: Mapping[str, Stored]) -> tuple[Pieces, list[str]]:
    """The stored tensors of one network under our names, and the names that are no part of it.

    Raises ModelFileError when two stored tensors are the same weight.
    """
    names = {name.removeprefix(found.prefix): name for name in stored if name.startswith(found.prefix)}
    rename = renamer(found.kind, found.names_as, names)
    pieces: Pieces = {}
    ignored = [name for name in stored if not name.startswith(found.prefix)]
    for short, full in names.items():
        places = rename(short)
        if not places or _is_bookkeeping(places[0].name, stored[full]):
            ignored.append(full)
            continue
        for place in places:
            if place.part in pieces.setdefault(place.name, {}):
                other = pieces[place.name][place.part][1].entry.name
                raise ModelFileError(f"{stored[full].path}: {full} and {other} are the same weight, {place.name}")
            pieces[place.name][place.part] = (place, stored[full])
    # T5 files store the embedding once or twice; the copy serves where the original is absent.
    if copy := pieces.pop("encoder.embed_tokens.weight", None):
        pieces.setdefault("shared.weight", copy)
    return pieces, ignored


def take(found: Found, stored: Mapping[str, Stored]) -> tuple[dict[str, StoredTensor], list[str]]:
    """The tensors of one network, whole, and the stored names that are no part of it."""
    pieces, ignored = place_names(found, stored)
    scales = {name: piece for name, piece in pieces.items() if name.rpartition(".")[2] in SCALE_LEAVES}
    weights = {name: piece for name, piece in pieces.items() if name not in scales}
    return {name: _assemble(name, piece, _scale(name, scales)) for name, piece in weights.items()}, ignored


def _is_bookkeeping(name: str, stored: Stored) -> bool:
    """Positions, logit scales, markers and input scales: nothing that is multiplied with."""
    leaf = name.rpartition(".")[2]
    if leaf in ("scale_input", "input_scale", "comfy_quant", "scaled_fp8", "position_ids", "logit_scale"):
        return True
    return leaf not in ("weight", "bias", "scale", "alpha") and stored.entry.format not in FORMATS


def _scale(name: str, scales: Pieces) -> float:
    """The factor of an fp8 matrix, 1 where none is stored."""
    path, _, leaf = name.rpartition(".")
    values = {}
    for scale_leaf in SCALE_LEAVES if leaf == "weight" else ():
        for _, stored in scales.get(f"{path}.{scale_leaf}", {}).values():
            entry = stored.entry
            if entry.format not in ("F32", "F16", "BF16") or math.prod(entry.shape) != 1:
                raise ModelFileError(
                    f"{stored.path}: {entry.name} is {entry.format} {list(entry.shape)}, and one number is read"
                )
            values[float(to_float32(entry.format, stored.bytes(), (1,))[0])] = stored
    if not values:
        return 1.0
    (value, stored), *others = values.items()
    if others or not math.isfinite(value):
        raise ModelFileError(
            f"{stored.path}: {name} has the scales {', '.join(map(str, values))}, and one finite one is read"
        )
    return value


def _assemble(name: str, pieces: Mapping[int, tuple[Place, Stored]], scale: float) -> StoredTensor:
    """One tensor from its pieces, which must agree in all but the number of rows."""
    place, first = pieces[min(pieces)]
    if len(pieces) != place.parts:
        have = ", ".join(stored.entry.name for _, stored in pieces.values())
        raise WeightMissing(f"{first.path}: {name} is made of {place.parts} tensors, and only {have} is there")
    if math.prod(first.entry.shape) == 1 and first.entry.format in ("I64", "F64"):
        return _number(name, first)  # the strength of a LoRA, in some files
    entries = [pieces[i][1].entry for i in range(place.parts)]
    if first.entry.format not in FORMATS:
        raise ModelFileError(
            f"{first.path}: {first.entry.name} is stored as {first.entry.format}, which relight does not compute with; "
            f"take a file in {', '.join(FORMATS)}"
        )
    if len({(entry.format, entry.shape[1:]) for entry in entries}) > 1 or not all(entry.shape for entry in entries[1:]):
        stated = ", ".join(f"{entry.name} {entry.format} {list(entry.shape)}" for entry in entries)
        raise ModelFileError(
            f"{first.path}: {name} cannot be joined from {stated}; take a file in black-forest-labs' layout"
        )
    parts = tuple(pieces[i][1].bytes() for i in range(place.parts))
    shape = first.entry.shape
    if place.transposed or first.regrouped:
        return _made(name, place, first)
    if place.parts > 1:
        shape = (sum(entry.shape[0] for entry in entries), *shape[1:])
    if place.swap_halves:
        parts = _spans(first, 2)[::-1]
    if place.cuts > 1:
        parts, shape = (_spans(first, place.cuts)[place.cut],), (shape[0] // place.cuts, *shape[1:])
    return StoredTensor(name, shape, first.entry.format, parts, scale, first.path)


def _spans(stored: Stored, count: int) -> tuple[np.ndarray, ...]:
    """The rows in equal spans. Raises ModelFileError where they do not divide, or blocks would be cut."""
    shape, form = stored.entry.shape, FORMATS[stored.entry.format]
    if not shape or shape[0] % count or (len(shape) == 1 and shape[0] // count % form.block_elements):
        raise ModelFileError(
            f"{stored.path}: {stored.entry.name} of shape {list(shape)} has no {count} equal spans of rows"
        )
    return tuple(stored.bytes().reshape(count, -1))


def _made(name: str, place: Place, stored: Stored) -> StoredTensor:
    """A tensor that no stored bytes are equal to: turned, or decoded because its blocks do not end with its rows."""
    entry = stored.entry
    if place.parts > 1 or place.cuts > 1 or place.swap_halves or (place.transposed and len(entry.shape) != 2):
        raise ModelFileError(
            f"{stored.path}: {entry.name} of shape {list(entry.shape)} cannot be made {name}; take another file"
        )
    plain = FORMATS[entry.format].block_elements == 1
    make = partial(_turned if place.transposed else _decoded, stored)
    shape = entry.shape[::-1] if place.transposed else entry.shape
    return StoredTensor(name, shape, entry.format if plain else "F16", Made(make), path=stored.path)


def _turned(stored: Stored) -> np.ndarray:
    entry = stored.entry
    size = FORMATS[entry.format].block_bytes
    if FORMATS[entry.format].block_elements > 1:
        return _bytes_of(_decoded(stored).view(np.float16).reshape(entry.shape).T)
    return _bytes_of(stored.bytes().view(f"u{size}").reshape(entry.shape).T)


def _decoded(stored: Stored) -> np.ndarray:
    """As F16, in the order the blocks have."""
    count = math.prod(stored.entry.shape)
    return _bytes_of(to_float32(stored.entry.format, stored.bytes(), (count,)).astype(np.float16))


def _bytes_of(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _number(name: str, stored: Stored) -> StoredTensor:
    value = stored.bytes().view("<i8" if stored.entry.format == "I64" else "<f8").astype(np.float32)
    return StoredTensor(name, stored.entry.shape, "F32", (_bytes_of(value),), path=stored.path)
