"""Paths to weights. A path is the name in the published checkpoint; `Weights` keeps count of what was asked for."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from relight.errors import ModelFileError, WeightMissing
from relight.graph.tensor import ShapeError, Tensor


class WeightIndex(Protocol):
    """What there is in a checkpoint: names, shapes (outermost axis first) and formats in GGUF's spelling."""

    def __contains__(self, name: object) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def format(self, name: str) -> str: ...


class AdapterIndex(WeightIndex, Protocol):
    """Low-rank pairs beside weights: `lora:NAME.down` [R in ...], shaped as weight NAME but for its rows, and
    `lora:NAME.up` [out R ...]; their product is added to the weight."""

    def ranks(self, name: str, rows: np.ndarray | None) -> tuple[int, int] | None:
        """First and one past last of the ranks of weight NAME's pair that reach some rows of it (all where None); None
        where there is no such pair."""
        ...


@dataclass(frozen=True, eq=False)
class RowSelection:
    """Rows of a weight (axis 0) to take at load, by index, in order. Equal selections have equal keys."""

    index: np.ndarray

    @property
    def key(self) -> bytes:
        return self.index.tobytes()

    @property
    def span(self) -> tuple[int, int] | None:
        """(first, one past last) where the rows lie together and in order, else None."""
        first, count = int(self.index[0]), len(self.index)
        return (first, first + count) if np.array_equal(self.index, np.arange(first, first + count)) else None


@dataclass(frozen=True)
class Weights:
    """A place in a checkpoint: `w / "img_attn" / "qkv"` is a path, `w["weight"]` the tensor under it.

    `rows` and `columns` select a part of each matrix under the path. Executors apply them while they load, in whole
    blocks of the file's format, so a fused matrix can be used in pieces or reordered without being unpacked.
    `adapters` are low-rank pairs, which linear layers and convolutions add by themselves.
    """

    index: WeightIndex
    path: str = ""
    asked: set[str] = field(default_factory=set)
    selected_rows: RowSelection | None = None
    selected_columns: tuple[int, int] | None = None
    adapters: AdapterIndex | None = None

    def with_adapters(self, adapters: AdapterIndex | None) -> Weights:
        """The same place with these low-rank pairs instead of any others."""
        return replace(self, adapters=adapters)

    def __truediv__(self, part: str | int) -> Weights:
        return replace(self, path=f"{self.path}.{part}" if self.path else str(part))

    def rows(self, start_or_index: int | np.ndarray, stop: int | None = None) -> Weights:
        """Rows `start` to `stop`, or those of an index array in its order; of biases and scales the same elements."""
        if not isinstance(start_or_index, np.ndarray):
            assert stop is not None
            start_or_index = np.arange(start_or_index, stop)
        return replace(self, selected_rows=RowSelection(start_or_index.astype(np.int64)))

    def columns(self, start: int, stop: int) -> Weights:
        """Columns `start` to `stop` of matrices (the input axis of a linear layer)."""
        return replace(self, selected_columns=(start, stop))

    def __contains__(self, name: str) -> bool:
        return (self / name).path in self.index

    def __getitem__(self, name: str) -> Tensor:
        """A leaf of the graph. Raises WeightMissing with the full name and the nearest ones."""
        full = (self / name).path
        if full not in self.index:
            near = difflib.get_close_matches(full, list(self.index), n=3)
            raise WeightMissing(f"no weight {full}" + (f"; nearest are {', '.join(near)}" if near else ""))
        self.asked.add(full)
        rows, columns = self.selected_rows, self.selected_columns
        shape = list(self.index.shape(full))
        if rows is not None:
            if rows.index.min() < 0 or rows.index.max() >= shape[0]:
                raise ShapeError(f"{full}: rows {rows.index.min()} to {rows.index.max()} of {shape[0]}")
            shape[0] = len(rows.index)
        if len(shape) < 2:
            columns = None
        if columns is not None:
            if columns[0] < 0 or columns[1] > shape[1]:
                raise ShapeError(f"{full}: columns {columns[0]} to {columns[1]} of {shape[1]}")
            shape[1] = columns[1] - columns[0]
        key = (full, rows.key if rows else None, columns)
        attrs = {"rows": rows, "columns": columns, "key": key}
        return Tensor("weight", tuple(shape), self.index.format(full), attrs=attrs, name=full)

    def get(self, name: str) -> Tensor | None:
        return self[name] if name in self else None

    def adapter(self, name: str) -> tuple[Tensor, Tensor] | None:
        """`down` and `up` of the pair beside a weight: `down` has the columns selected here, `up` the rows."""
        full, rows = (self / name).path, self.selected_rows
        if self.adapters is None:
            return None
        ranks = self.adapters.ranks(full, None if rows is None else rows.index)
        if ranks is None:
            return None
        pair = Weights(self.adapters, f"lora:{full}", self.asked)
        down, up = replace(pair, selected_columns=self.selected_columns), replace(pair, selected_rows=rows)
        if ranks != (0, pair.shape("down")[0]):
            down, up = down.rows(*ranks), up.columns(*ranks)
        return down["down"], up["up"]

    def count(self) -> int:
        """How many numbered children the path has: 19 for `double_blocks` of FLUX."""
        prefix = self.path + "." if self.path else ""
        heads = {name[len(prefix) :].split(".", 1)[0] for name in self.index if name.startswith(prefix)}
        return 1 + max((int(head) for head in heads if head.isdigit()), default=-1)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a whole weight in the file; models read their sizes from it. Raises WeightMissing."""
        return replace(self, selected_rows=None, selected_columns=None, asked=set())[name].shape

    def unused(self, ignore: tuple[str, ...] = ()) -> list[str]:
        """Names under this path that were never asked for, but for those that start with one of `ignore`."""
        prefix = self.path + "." if self.path else ""
        names = (n for n in self.index if n.startswith(prefix) and not n.startswith(ignore))
        return sorted(name for name in names if name not in self.asked)

    def unapplied_adapters(self) -> list[str]:
        """Weights whose pairs no operation has added: the network does something else with them."""
        names = (name for name in self.adapters or () if name.endswith(".up") and name not in self.asked)
        return sorted(name.removeprefix("lora:").removesuffix(".up") for name in names)

    def require_all_used(self, what: str, ignore: tuple[str, ...] = ()) -> None:
        """Raise ModelFileError if the file has weights the network never asked for: it is another network's."""
        if left := self.unused(ignore):
            raise ModelFileError(f"{what}: {len(left)} weights have no place in this network, first {left[0]}")
