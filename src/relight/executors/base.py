"""The seam between graphs and devices: what every executor, and every program it compiles, can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from relight.graph import Graph, Tensor
from relight.weights.stored import StoredTensor

WeightSource = Mapping[str, StoredTensor]
Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all) while weights are loaded."""


@dataclass(frozen=True)
class MemoryUse:
    """Bytes on the device: of weights, and of everything a run needs besides (inputs, activations, scratch)."""

    weights: int
    compute: int

    @property
    def total(self) -> int:
        return self.weights + self.compute


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """How an executor may lower a graph where it has a choice.

    `attention`: `flash` (one fused kernel), `chunked` (scores never exceed `scores_bytes`), or `auto`.
    `convolution`: `direct`, `im2col` or `auto`. `precision`: of OpenVINO's arithmetic and weights, `f32`, `bf16`,
    `int8`, `int4` or `auto`; ggml computes in float32 from the file's formats and takes no notice of it.
    """

    attention: Literal["auto", "flash", "chunked"] = "auto"
    scores_bytes: int = 256 << 20
    convolution: Literal["auto", "direct", "im2col"] = "auto"
    precision: Literal["auto", "f32", "bf16", "int8", "int4"] = "auto"


class LoadedWeights(Protocol):
    """Weights where a device can use them; shared by the programs compiled over them."""

    @property
    def nbytes(self) -> int: ...

    def close(self) -> None: ...


class Program(Protocol):
    """A graph compiled for a device. Not for use by two threads at once."""

    memory: MemoryUse

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by the names of the graph's inputs in, by those of its outputs out (float32)."""
        ...

    def close(self) -> None: ...


class Executor(Protocol):
    """Turns graphs into programs for one device. Everything that can fail, fails in `load` or `compile`."""

    name: str
    """As the user types it: `vulkan0`, `ggml-cpu`, `openvino`, `reference`, `null`."""

    def why_not(self, node: Tensor) -> str | None:
        """Why this operation cannot run here, in words; None when it can."""
        ...

    def measure(self, graph: Graph, options: CompileOptions) -> MemoryUse:
        """What the graph would take, without allocating it."""
        ...

    def load(self, graphs: tuple[Graph, ...], source: WeightSource, progress: Progress | None = None) -> LoadedWeights:
        """Bring to the device those weights of these graphs that the source has: a network and its adapters are loaded
        apart, so that either can be closed alone. Raises OutOfDeviceMemory, UnsupportedOp.
        """
        ...

    def compile(self, graph: Graph, weights: Any, options: CompileOptions) -> Program:
        """`weights` are what this executor's `load` gave, once or several times: one of them or a sequence.

        Raises WeightMissing where none of them has a weight, UnsupportedOp or OutOfDeviceMemory; never in run().
        """
        ...

    def close(self) -> None: ...


def loaded_sets[W](weights: W | Sequence[W]) -> Sequence[W]:
    """What `compile` was given, as a sequence."""
    return weights if isinstance(weights, Sequence) else (weights,)


def check_inputs(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs as contiguous arrays of the recorded type. Raises ValueError for a missing, unknown or misshapen one."""
    if inputs.keys() != graph.inputs.keys():
        raise ValueError(f"inputs {sorted(inputs)} given, {sorted(graph.inputs)} needed")
    arrays = {}
    for name, node in graph.inputs.items():
        array = np.ascontiguousarray(inputs[name], np.int32 if node.dtype == "i32" else np.float32)
        if array.shape != node.shape:
            raise ValueError(f"input {name} has shape {array.shape}, the graph was compiled for {node.shape}")
        arrays[name] = array
    return arrays
