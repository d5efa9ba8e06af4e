"""One component of a model on disk, under our names: shapes, formats and the mapped bytes, whoever published it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from relight.errors import ModelFileError, WeightMissing
from relight.weights.container import Container, open_container
from relight.weights.formats import FORMATS, nbytes
from relight.weights.mapped import Entry
from relight.weights.names import Place, renamer
from relight.weights.quants import to_float32
from relight.weights.recognise import KINDS, WANTED, Found, recognise
from relight.weights.shards import weight_files
from relight.weights.sizes import missing

SCALE_LEAVES = ("scale_weight", "weight_scale")
"""ComfyUI's names, older and newer, of the factor of an fp8 matrix."""


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor as it lies in the file: `shape` in torch order, values are the stored ones times `scale`.

    Each part is a read-only view of the memory map (uint8, one axis) with whole consecutive rows along axis 0; most
    tensors have one. Parts stay readable for as long as they are held.
    """

    name: str
    shape: tuple[int, ...]
    format: str
    parts: tuple[np.ndarray, ...]
    scale: float = 1.0
    path: Path = Path()

    @property
    def nbytes(self) -> int:
        return sum(part.size for part in self.parts)


class Checkpoint(Mapping[str, StoredTensor]):
    """The tensors of one component by our names. `ignored` names what the files have beside it."""

    def __init__(
        self,
        kind: str,
        found: Found,
        containers: Sequence[Container],
        tensors: dict[str, StoredTensor],
        ignored: list[str],
    ) -> None:
        self.kind = kind
        self.family = found.family
        self.names_as = found.names_as
        self.prefix = found.prefix
        self.paths = tuple(container.path for container in containers)
        self.metadata: dict[str, Any] = {
            k: v for container in reversed(containers) for k, v in container.metadata.items()
        }
        self.ignored = tuple(ignored)
        self._containers = containers
        self._tensors = tensors

    def __getitem__(self, name: str) -> StoredTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def format(self, name: str) -> str:
        return self._tensors[name].format

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def close(self) -> None:
        """Forget the tensors and unmap the files, or leave the unmapping to whoever still holds a view."""
        self._tensors = {}
        self.metadata = {}
        for container in self._containers:
            container.close()


def open_component(kind: str, paths: Path | Sequence[Path]) -> Checkpoint:
    """Open `clip_l`, `t5xxl`, `diffusion` or `vae` from a file, a folder, an index or several files.

    Of an all-in-one file only the component asked for is taken. Raises ModelFileError when the files are broken or hold
    something else, WeightMissing when the network is not whole.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    containers: list[Container] = []
    try:
        containers.extend(open_container(path) for path in weight_files(paths))
        return read_component(kind, containers)
    except BaseException:
        for container in containers:
            container.close()
        raise


def read_component(kind: str, containers: Sequence[Container]) -> Checkpoint:
    """As `open_component`, from files already open, which then belong to the checkpoint."""
    stored = gather(containers)
    found = recognise({name: item.entry.shape for name, item in stored.items()})
    chosen = next((item for item in found if item.kind == kind), None)
    where = ", ".join(str(container.path) for container in containers)
    if chosen is None:
        raise ModelFileError(f"{where}: {_wrong_kind(kind, found, containers)}")
    tensors, ignored = take(chosen, stored)
    if lacking := missing(kind, {name: tensor.shape for name, tensor in tensors.items()}):
        listed = ", ".join(lacking[:3]) + (" ..." if len(lacking) > 3 else "")
        whole = len(tensors) + len(lacking)
        raise WeightMissing(
            f"{where}: {chosen.family} lacks {len(lacking)} of {whole} tensors ({listed}); take a whole file"
        )
    return Checkpoint(kind, chosen, containers, tensors, ignored)


def _wrong_kind(kind: str, found: Sequence[Found], containers: Sequence[Container]) -> str:
    if not found:
        count = sum(len(container.entries) for container in containers)
        return f"none of its {count} tensors belongs to a network relight knows; {WANTED[kind]} is needed here"
    families = " and ".join(dict.fromkeys(item.family for item in found))
    flags = ", ".join(dict.fromkeys("--" + item.kind.replace("_", "-") for item in found if item.usable))
    return f"holds {families}, not {WANTED[kind]}" + (f"; give it with {flags}" if flags else "; take another file")


@dataclass(frozen=True)
class Stored:
    """A tensor of one of several files."""

    entry: Entry
    container: Container

    @property
    def path(self) -> Path:
        return self.container.path

    def bytes(self) -> np.ndarray:
        return self.container.bytes_of(self.entry)


def gather(containers: Sequence[Container]) -> dict[str, Stored]:
    """All tensors of all files by stored name. Raises ModelFileError when two files have one name."""
    stored: dict[str, Stored] = {}
    for container in containers:
        for name, entry in container.entries.items():
            if name in stored:
                raise ModelFileError(f"{container.path} and {stored[name].path} both have {name}; give one of them")
            stored[name] = Stored(_reshaped(entry, container), container)
    return stored


def _reshaped(entry: Entry, container: Container) -> Entry:
    """city96's SD files store some tensors in rows of 256 and keep the true shape beside them."""
    shape = container.metadata.get(f"comfy.gguf.orig_shape.{entry.name}")
    if not isinstance(shape, np.ndarray):
        return entry
    true_shape = tuple(int(size) for size in shape)
    block = FORMATS[entry.format].block_elements if entry.format in FORMATS else 1
    if not 0 < len(true_shape) <= 4 or min(true_shape) < 1 or true_shape[-1] % block:
        return entry
    if nbytes(entry.format, true_shape) != entry.nbytes:
        raise ModelFileError(
            f"{container.path}: {entry.name} of shape {list(entry.shape)} claims to be {list(true_shape)}"
        )
    return Entry(entry.name, true_shape, entry.format, entry.offset, entry.nbytes)


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
        place = rename(short)
        if place is None or _is_bookkeeping(place.name, stored[full]):
            ignored.append(full)
            continue
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
    return leaf not in ("weight", "bias", "scale") and stored.entry.format not in FORMATS


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
    if place.parts > 1:
        shape = (sum(entry.shape[0] for entry in entries), *shape[1:])
    if place.swap_halves:
        parts = _halves_swapped(first, parts[0])
    return StoredTensor(name, shape, first.entry.format, parts, scale, first.path)


def _halves_swapped(stored: Stored, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shape, format_name = stored.entry.shape, stored.entry.format
    if not shape or shape[0] % 2 or (len(shape) == 1 and FORMATS[format_name].block_elements > 1):
        raise ModelFileError(f"{stored.path}: {stored.entry.name} of shape {list(shape)} has no two halves of rows")
    half = raw.size // 2
    return raw[half:], raw[:half]
