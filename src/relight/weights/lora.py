"""LoRAs put beside a network's weights: y = W x + up(down(x)), W left as it is in its file.

All files that change one weight become one pair, their ranks one after the other, with each file's strength in `up`: a
graph grows by the same three operations whatever their number. Pieces of a fused weight have rows of their own in `up`,
and zeros beside them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from relight.errors import ModelFileError, RequestError
from relight.graph import WeightIndex
from relight.weights.families import BY_CONTEXT, TITLES
from relight.weights.formats import nbytes
from relight.weights.lora_file import Layer, LoraFile, open_lora
from relight.weights.lora_names import BACKBONE, ROLES, FindTarget, Target, role_of, target_finder
from relight.weights.stored import Made, StoredTensor

__all__ = ["Adapters", "LoraFile", "combine", "open_lora"]

FORM = "F16"
LARGEST = 60_000.0
RANK_STEP = 8
"""Ranks are filled up with zeros to a multiple of this, as kernels like their rows."""


@dataclass(frozen=True)
class Block:
    """One layer of one file in its place: it changes rows `start` to `stop` of a weight of the given shape."""

    file: LoraFile
    layer: Layer
    strength: float
    target: Target
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raises ModelFileError for sizes that are not the weight's."""
        layer = self.layer
        kernel = self.shape[1:] if layer.mid is None else (self.shape[1], *(1 for _ in self.shape[2:]))
        needed = [(layer.down.shape[1:], kernel), (layer.up.shape, (self.rows, layer.rank))]
        if layer.mid is not None:
            needed.append((layer.mid.shape[2:], self.shape[2:]))
        if any(_plain(given) != _plain(wanted) for given, wanted in needed):
            theirs = f"{list(layer.up.shape)} by {list(layer.down.shape)}"
            raise ModelFileError(
                f"{self.file.path}: is a LoRA for {self.file.family}, not for this model: {layer.name} is {theirs}, "
                f"and {self.target.name} has {self.rows} rows of {list(self.shape[1:])} for it"
            )

    @property
    def start(self) -> int:
        return self.target.start or 0

    @property
    def stop(self) -> int:
        return self.shape[0] if self.target.stop is None else self.target.stop

    @property
    def rows(self) -> int:
        return self.stop - self.start

    @property
    def ranks(self) -> int:
        return math.ceil(self.layer.rank / RANK_STEP) * RANK_STEP

    def down(self) -> np.ndarray:
        """[r in ...], of the size of `up`."""
        return self._plain_down() * np.float32(2.0**-self.exponent)

    def up(self) -> np.ndarray:
        """[rows r], with the strength in it."""
        values = self._plain_up() * np.float32(self.strength * 2.0**self.exponent)
        return np.concatenate(np.split(values, 2)[::-1]) if self.target.swap_halves else values

    @cached_property
    def exponent(self) -> int:
        """Of the power of two that goes from `down` into `up`, so that their ranges are alike: F16 is poor in small
        numbers. Raises ModelFileError for values that are not finite."""
        sizes = [float(np.abs(values).max()) for values in (self._plain_down(), self._plain_up() * self.strength)]
        if not math.sqrt(sizes[0] * sizes[1]) <= LARGEST:
            raise ModelFileError(
                f"{self.file.path}: {self.layer.name} has values up to {sizes[0]} and, at strength "
                f"{self.strength:.4g}, {sizes[1]}; the file is damaged, or the strength too large"
            )
        return round(math.log2(sizes[0] / sizes[1]) / 2) if min(sizes) > 0 else 0

    def _plain_down(self) -> np.ndarray:
        down = self.file.read(self.layer.down).reshape(self.layer.rank, -1)
        if self.layer.mid is not None:
            down = np.einsum("rshw,si->rihw", self.file.read(self.layer.mid), down, optimize=True)
        return down.reshape(self.layer.rank, *self.shape[1:])

    def _plain_up(self) -> np.ndarray:
        return self.file.read(self.layer.up).reshape(self.rows, self.layer.rank)


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its last axes of 1: a 1x1 kernel and a matrix are the same to a LoRA."""
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


@dataclass(frozen=True)
class Pair:
    """`down` [R in ...] and `up` [out R ...] of one weight, from all the blocks that change it, by their first rows."""

    shape: tuple[int, ...]
    blocks: tuple[Block, ...]

    @property
    def rank(self) -> int:
        return sum(block.ranks for block in self.blocks)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        ones = tuple(1 for _ in self.shape[2:])
        return {"down": (self.rank, *self.shape[1:]), "up": (self.shape[0], self.rank, *ones)}

    def placed(self) -> Iterator[tuple[int, Block]]:
        """Blocks with their first ranks."""
        first = 0
        for block in self.blocks:
            yield first, block
            first += block.ranks

    def reaching(self, rows: np.ndarray | None) -> tuple[int, int] | None:
        spans = [
            (first, first + block.ranks)
            for first, block in self.placed()
            if rows is None or ((rows >= block.start) & (rows < block.stop)).any()
        ]
        return (spans[0][0], spans[-1][1]) if spans else None

    def down(self) -> np.ndarray:
        out = np.zeros(self.shapes["down"], np.float16)
        for first, block in self.placed():
            out[first : first + block.layer.rank] = block.down()
        return out

    def up(self) -> np.ndarray:
        out = np.zeros((self.shape[0], self.rank), np.float16)
        for first, block in self.placed():
            out[block.start : block.stop, first : first + block.layer.rank] = block.up()
        return out


class Adapters(Mapping[str, StoredTensor]):
    """Low-rank pairs beside the weights of one network: what `Weights` takes as adapters, and a source to load from.

    `unmatched` names layers that have no place in the network, with their files. `key` is equal for sets that change it
    equally, and () for one that does not. Pairs are made from the files whenever they are read.
    """

    def __init__(self, pairs: dict[str, Pair], unmatched: tuple[str, ...], key: tuple[Hashable, ...]) -> None:
        self.unmatched, self.key = unmatched, key
        self._pairs = pairs

    def __getitem__(self, name: str) -> StoredTensor:
        weight, part = self._parts(name)
        pair = self._pairs[weight]
        return StoredTensor(name, pair.shapes[part], FORM, Made(partial(_bytes, pair, part)))

    def __iter__(self) -> Iterator[str]:
        for weight in self._pairs:
            yield from (f"lora:{weight}.down", f"lora:{weight}.up")

    def __len__(self) -> int:
        return 2 * len(self._pairs)

    def shape(self, name: str) -> tuple[int, ...]:
        weight, part = self._parts(name)
        return self._pairs[weight].shapes[part]

    def format(self, name: str) -> str:
        return FORM

    def ranks(self, name: str, rows: np.ndarray | None) -> tuple[int, int] | None:
        return self._pairs[name].reaching(rows) if name in self._pairs else None

    @property
    def nbytes(self) -> int:
        return sum(nbytes(FORM, shape) for pair in self._pairs.values() for shape in pair.shapes.values())

    def _parts(self, name: str) -> tuple[str, str]:
        weight, _, part = name.removeprefix("lora:").rpartition(".")
        return weight, part


def _bytes(pair: Pair, part: str) -> np.ndarray:
    values = pair.down() if part == "down" else pair.up()
    return values.reshape(-1).view(np.uint8)


def combine(loras: Sequence[tuple[LoraFile, float]], kind: str, index: WeightIndex) -> Adapters:
    """What files, each with its strength, change of the network of this kind with these weights.

    Raises ModelFileError for a file that was trained for another model, RequestError for a strength that is no number.
    """
    find = target_finder(kind, index)
    blocks: dict[str, list[Block]] = {}
    unmatched: list[str] = []
    key: list[Hashable] = []
    for file, strength in loras:
        if not math.isfinite(strength):
            raise RequestError(f"lora {file.path.name}: the strength {strength} is no number")
        placed, left = _place(file, strength, kind, index, find) if strength else ([], [])
        for block in placed:
            blocks.setdefault(block.target.name, []).append(block)
        unmatched += [f"{file.path.name}: {name}" for name in left]
        if placed:
            key.append((*file.identity, strength))
    pairs = {name: Pair(index.shape(name), _in_order(found)) for name, found in blocks.items()}
    return Adapters(pairs, tuple(unmatched), tuple(key))


def _place(
    file: LoraFile, strength: float, kind: str, index: WeightIndex, find: FindTarget
) -> tuple[list[Block], list[str]]:
    """The layers that belong to a network of this kind, and the names of those among them that have no place in it."""
    roles = ROLES.get(kind, ())
    placed, left = [], list(file.unread) if BACKBONE in roles else []
    for layer in file.layers.values():
        role, name = role_of(layer.name)
        if role not in roles:
            continue
        if target := find(name):
            placed.append(Block(file, layer, strength * layer.scale, target, index.shape(target.name)))
        else:
            left.append(layer.name)
    if left and not placed:
        raise ModelFileError(
            f"{file.path}: is a LoRA for {file.family}, and the model is {_family(kind, index)}: none of its "
            f"{len(left)} layers has a place there, the first being {left[0]}"
        )
    return placed, left


def _in_order(blocks: list[Block]) -> tuple[Block, ...]:
    """By their first rows, so that blocks of one piece of a fused weight lie together."""
    return tuple(sorted(blocks, key=lambda block: block.start))


def _family(kind: str, index: WeightIndex) -> str:
    if kind != "unet":
        return TITLES["flux"] if kind == "diffusion" else kind
    widths = (index.shape(name)[1] for name in index if name.endswith("attn2.to_k.weight"))
    _, model = BY_CONTEXT.get(next(widths, 0), ("", ""))
    return TITLES[model] or "another UNet"
