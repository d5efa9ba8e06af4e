"""Tensors as they lie in files: by their stored names over several files, and as a network is given them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, overload

import numpy as np

from relight.errors import ModelFileError
from relight.weights.container import Container
from relight.weights.formats import FORMATS, nbytes
from relight.weights.mapped import Entry


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor as it lies in the file: `shape` in torch order, values are the stored ones times `scale`.

    Each part is a read-only view of the memory map (uint8, one axis) with whole consecutive rows along axis 0; most
    tensors have one. The few that no stored bytes are equal to have a `Made` part. Parts stay readable for as long as
    they are held.
    """

    name: str
    shape: tuple[int, ...]
    format: str
    parts: Sequence[np.ndarray]
    scale: float = 1.0
    path: Path = Path()

    @property
    def nbytes(self) -> int:
        return nbytes(self.format, self.shape)


@dataclass(eq=False)
class Made(Sequence[np.ndarray]):
    """One part that is computed when it is asked for, and again for the next who asks unless somebody still holds it.

    Nothing of it stays in memory beside what an executor keeps.
    """

    make: Callable[[], np.ndarray]
    _last: Callable[[], np.ndarray | None] = field(default_factory=lambda: lambda: None, init=False)

    def __len__(self) -> int:
        return 1

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(1)[index]]
        if index not in (0, -1):
            raise IndexError(index)
        array = self._last()
        if array is None:
            array = self.make()
            self._last = weakref.ref(array)
        return array


@dataclass(frozen=True)
class Stored:
    """A tensor of one of several files. `regrouped`: its blocks run on from row to row of `entry.shape`."""

    entry: Entry
    container: Container
    regrouped: bool = False

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
            stored[name] = _reshaped(entry, container)
    return stored


def _reshaped(entry: Entry, container: Container) -> Stored:
    """city96's SD files store some tensors in rows of 256 and keep the true shape beside them."""
    shape = container.metadata.get(f"comfy.gguf.orig_shape.{entry.name}")
    if not isinstance(shape, np.ndarray):
        return Stored(entry, container)
    true_shape = tuple(int(size) for size in shape)
    if not 0 < len(true_shape) <= 4 or min(true_shape) < 1 or entry.format not in FORMATS:
        return Stored(entry, container)
    if prod(true_shape) != prod(entry.shape):
        raise ModelFileError(
            f"{container.path}: {entry.name} of shape {list(entry.shape)} claims to be {list(true_shape)}"
        )
    true = Entry(entry.name, true_shape, entry.format, entry.offset, entry.nbytes)
    return Stored(true, container, regrouped=true_shape[-1] % FORMATS[entry.format].block_elements != 0)
