"""Weights of a checkpoint as OpenVINO takes them: views of the memory map where that is possible, packed else."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import openvino as ov

from relight.executors.base import Progress, WeightSource
from relight.executors.leaves import joined, leaf_nbytes
from relight.executors.openvino.forms import Use, layout, pack
from relight.graph import Graph, Tensor
from relight.weights.stored import Made, StoredTensor

PAGE = 4096
READ_BYTES = 64 << 20


@dataclass
class OpenvinoWeights:
    """Leaves by key, and their packed arrays once a program has asked for them; programs share both."""

    stored: dict[object, tuple[Tensor, StoredTensor]]
    threads: int
    arrays: dict[tuple[object, ...], list[np.ndarray]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Of what programs use, or before there are any, of the leaves in the file. Views of the map are counted."""
        if self.arrays:
            return sum(array.nbytes for arrays in self.arrays.values() for array in arrays)
        return sum(leaf_nbytes(leaf, stored.format) for leaf, stored in self.stored.values())

    @property
    def private_nbytes(self) -> int:
        """Of packed arrays alone, without the views of the map, which are read-only."""
        return sum(array.nbytes for arrays in self.arrays.values() for array in arrays if array.flags.writeable)

    def packed(self, use: Use) -> list[np.ndarray]:
        if use.key not in self.arrays:
            self.arrays[use.key] = pack(use, self.stored[use.leaf.attrs["key"]][1], self.threads)
        return self.arrays[use.key]

    def tensors(self, use: Use) -> list[ov.Tensor]:
        """Tensors over the packed arrays, which must outlive them: these weights hold them until they are closed."""
        return [
            shared_tensor(array, getattr(ov.Type, element))
            for array, (element, _) in zip(self.packed(use), layout(use), strict=True)
        ]

    def close(self) -> None:
        self.arrays.clear()
        self.stored.clear()


@dataclass(frozen=True)
class WeightSets:
    """The loads that one graph takes its weights from, each leaf from its own, where it is packed and stays."""

    sets: Sequence[OpenvinoWeights]
    owner: Mapping[object, OpenvinoWeights]

    @classmethod
    def of(cls, graph: Graph, sets: Sequence[OpenvinoWeights]) -> WeightSets:
        """Raises WeightMissing for a leaf that none of them has."""
        return cls(sets, joined(graph, [dict.fromkeys(loaded.stored, loaded) for loaded in sets]))

    @property
    def stored(self) -> dict[object, tuple[Tensor, StoredTensor]]:
        return {key: loaded.stored[key] for key, loaded in self.owner.items()}

    @property
    def private_nbytes(self) -> int:
        return sum(loaded.private_nbytes for loaded in self.sets)

    def already_packed(self, use: Use) -> list[np.ndarray]:
        """Empty for constants of a model that was compiled before: they are not packed again."""
        return self.owner[use.leaf.attrs["key"]].arrays.get(use.key, [])

    def packed(self, use: Use) -> list[np.ndarray]:
        return self.owner[use.leaf.attrs["key"]].packed(use)

    def tensors(self, use: Use) -> list[ov.Tensor]:
        return self.owner[use.leaf.attrs["key"]].tensors(use)


def load(graphs: tuple[Graph, ...], source: WeightSource, threads: int, progress: Progress | None) -> OpenvinoWeights:
    """Reads what the graphs need into the page cache. Nothing is converted before a program says to which form."""
    leaves = {leaf.attrs["key"]: leaf for graph in graphs for leaf in graph.weights if leaf.name in source}
    stored = {key: (leaf, source[leaf.name]) for key, leaf in leaves.items()}
    tensors = {tensor.name: tensor for _, tensor in stored.values()}
    done, total = 0, sum(tensor.nbytes for tensor in tensors.values())
    for tensor in tensors.values():
        if not isinstance(tensor.parts, Made):
            _touch(tensor)
        done += tensor.nbytes
        if progress:
            progress(done, total)
    return OpenvinoWeights(stored, threads)


def _touch(tensor: StoredTensor) -> None:
    for part in tensor.parts:
        for start in range(0, part.size, READ_BYTES):
            part[start : start + READ_BYTES : PAGE].max(initial=0)


def writable(array: np.ndarray) -> np.ndarray:
    """The same memory, called writable: OpenVINO shares no other arrays, though it only reads. Not kept alive."""
    view: Callable[[int], ctypes.Array[ctypes.c_uint8]] = (ctypes.c_uint8 * array.nbytes).from_address
    return np.frombuffer(view(array.ctypes.data), array.dtype).reshape(array.shape)


def shared_tensor(array: np.ndarray, element: ov.Type) -> ov.Tensor:
    if element == ov.Type.bf16:  # NumPy has no such type; any of two bytes carries it
        return ov.Tensor(writable(array).view(np.float16), ov.Shape(array.shape), element)
    return ov.Tensor(writable(array), shared_memory=True)
