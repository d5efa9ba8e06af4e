"""Counts what a graph would take and run, with no device and no library. Its runs give zeros.

Weights are counted in the formats ggml holds them in, activations as ggml's allocator would place them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from relight.errors import UnsupportedOp
from relight.executors.base import CompileOptions, MemoryUse, Progress, WeightSource, check_inputs
from relight.executors.choices import UNKNOWN_CORES
from relight.executors.leaves import held_format, leaf_nbytes, roles, wanted
from relight.executors.limit import MemoryLimit
from relight.executors.outline import OPS, Outline
from relight.graph import Graph, Tensor


def flops(node: Tensor) -> int:
    """Multiplications and additions of matrix products, attention and convolutions; the rest is not counted."""
    match node.op:
        case "linear":
            return 2 * node.size * node.inputs[0].shape[-1]
        case "conv2d":
            return 2 * node.size * math.prod(node.inputs[1].shape[1:])
        case "attention":
            return 4 * node.size * node.inputs[1].shape[1]
    return 0


@dataclass
class NullWeights:
    limit: MemoryLimit
    nbytes: int

    def close(self) -> None:
        self.limit.give_back(self.nbytes)
        self.nbytes = 0


@dataclass
class NullProgram:
    """`flops` of one run, by operation in `flops_by_op`; `nodes` counts operations; `runs` counts runs so far."""

    graph: Graph
    memory: MemoryUse
    limit: MemoryLimit
    runs: int = 0
    nodes: Counter[str] = field(init=False)
    flops_by_op: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.nodes = Counter(node.op for node in self.graph.nodes if node.op not in ("input", "weight"))
        self.flops_by_op = Counter()
        for node in self.graph.nodes:
            self.flops_by_op[node.op] += flops(node)
        self._taken = self.memory.compute

    @property
    def flops(self) -> int:
        return self.flops_by_op.total()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        check_inputs(self.graph, inputs)
        self.runs += 1
        return {name: np.zeros(node.shape, np.float32) for name, node in self.graph.outputs.items()}

    def close(self) -> None:
        self.limit.give_back(self._taken)
        self._taken = 0


def _held_bytes(leaves: Mapping[object, tuple[Tensor, str]]) -> int:
    return sum(leaf_nbytes(leaf, held_format(leaf, role)) for leaf, role in leaves.values())


class NullExecutor:
    """Stands in for any device: with a name like `vulkan0` it chooses as ggml does on a GPU of so many shader `cores`,
    else as on the CPU."""

    def __init__(self, name: str = "null", *, limit_bytes: int | None = None, cores: int = UNKNOWN_CORES) -> None:
        self.name, self.cores = name, cores
        self.limit = MemoryLimit(name, limit_bytes)

    def why_not(self, node: Tensor) -> str | None:
        return None if node.op in (*OPS, "input", "weight") else f"{self.name} has no {node.op}"

    def measure(self, graph: Graph, options: CompileOptions) -> MemoryUse:
        outline = Outline(graph, options, gpu=self.name.startswith("vulkan"), cores=self.cores)
        return MemoryUse(self.measure_weights((graph,)), outline.fixed_bytes + outline.peak_bytes())

    def measure_weights(self, graphs: tuple[Graph, ...]) -> int:
        return _held_bytes(roles(graphs))

    def load(self, graphs: tuple[Graph, ...], source: WeightSource, progress: Progress | None = None) -> NullWeights:
        nbytes = _held_bytes(wanted(graphs, source))
        self.limit.take(nbytes, "weights")
        if progress:
            progress(nbytes, nbytes)
        return NullWeights(self.limit, nbytes)

    def compile(
        self, graph: Graph, weights: NullWeights | Sequence[NullWeights], options: CompileOptions
    ) -> NullProgram:
        for node in graph.nodes:
            if (reason := self.why_not(node)) is not None:
                raise UnsupportedOp(reason)
        memory = self.measure(graph, options)
        self.limit.take(memory.compute, "the compute buffer")
        return NullProgram(graph, memory, self.limit)

    def close(self) -> None:
        pass
