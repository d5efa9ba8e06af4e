"""Seconds of one run of a recorded graph on a device of known rates, kind by kind."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

from relight.executors.base import CompileOptions
from relight.executors.choices import UNKNOWN_CORES, queries_a_chunk, uses_direct_convolution, uses_flash
from relight.executors.leaves import held_format, leaf_nbytes
from relight.executors.null import flops
from relight.graph import Graph, Tensor
from relight.planner.rates import Rates

VIEWS = ("input", "weight", "reshape", "permute", "narrow")
"""Take no time of their own; copies they lead to are within the error of the rest."""


@dataclass(frozen=True)
class Cost:
    """Seconds by kind: `matrix`, `convolution`, `attention`, `rest`, `launch`."""

    by_kind: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return sum(self.by_kind.values())


AT_EDGES = 17.0
"""How many times slower direct convolution is where a GPU's blocks of outputs and pixels meet an edge
(executors.choices.uses_direct_convolution)."""


@dataclass(frozen=True)
class Lowering:
    """What decides how ggml computes a node: the options, and whether it is a GPU of how many cores."""

    options: CompileOptions
    gpu: bool
    cores: int = UNKNOWN_CORES

    def flash(self, node: Tensor) -> bool:
        return uses_flash(node, self.options, gpu=self.gpu)

    def direct(self, node: Tensor) -> bool:
        return uses_direct_convolution(node, self.options, gpu=self.gpu, cores=self.cores)

    def meets_edges(self, node: Tensor) -> bool:
        return self.gpu and not uses_direct_convolution(node, CompileOptions(), gpu=True, cores=self.cores)


def cost(graph: Graph, rates: Rates, lowering: Lowering) -> Cost:
    """Of one run, with everything loaded and compiled."""
    spent: defaultdict[str, float] = defaultdict(float)
    for node in graph.nodes:
        if node.op in VIEWS:
            continue
        kind, seconds = _node(node, rates, lowering)
        spent[kind] += seconds
        spent["launch"] += rates.node_s + rates.kernel_s * (kind != "rest")
    return Cost(dict(spent))


def _node(node: Tensor, rates: Rates, lowering: Lowering) -> tuple[str, float]:
    match node.op:
        case "linear":
            weight = node.inputs[1]
            form = held_format(weight, "matrix")
            reading = leaf_nbytes(weight, form) / rates.weights + _traffic(node) / rates.bandwidth
            return "matrix", max(flops(node) / rates.matrix_rate(form), reading)
        case "conv2d":
            return "convolution", _convolution(node, rates, lowering)
        case "attention":
            return "attention", _attention(node, rates, lowering)
    return "rest", _traffic(node) / rates.bandwidth


def _convolution(node: Tensor, rates: Rates, lowering: Lowering) -> float:
    reading = _traffic(node) / rates.bandwidth
    if lowering.direct(node):
        slower = AT_EDGES if lowering.meets_edges(node) else 1.0
        return max(slower * flops(node) / rates.conv["direct"], reading)
    column_bytes = 2 * node.size // node.shape[1] * math.prod(node.inputs[1].shape[1:])
    return flops(node) / rates.conv["im2col"] + 2 * column_bytes / rates.bandwidth + reading


def _attention(node: Tensor, rates: Rates, lowering: Lowering) -> float:
    if lowering.flash(node):
        return max(flops(node) / rates.attention["flash"], _traffic(node) / rates.bandwidth)
    queries_a_chunk(node, lowering.options)  # raises where one query alone is too large
    batch, queries, heads, _ = node.shape
    scores = 4 * batch * heads * queries * node.inputs[1].shape[1]
    return flops(node) / rates.attention["chunked"] + (scores + _traffic(node)) / rates.bandwidth


def _traffic(node: Tensor) -> int:
    """Bytes of values that are read and written, in float32."""
    return 4 * (node.size + sum(source.size for source in node.inputs if source.op != "weight"))


def largest_tensor(graph: Graph, lowering: Lowering) -> int:
    """Bytes of the largest thing that must lie in one allocation: a weight, a value, columns or a chunk of scores."""
    return max((_largest(node, lowering) for node in graph.nodes), default=0)


def _largest(node: Tensor, lowering: Lowering) -> int:
    match node.op:
        case "weight":
            return leaf_nbytes(node, held_format(node, "matrix"))
        case "conv2d" if not lowering.direct(node):
            return max(4 * node.size, 2 * node.size // node.shape[1] * math.prod(node.inputs[1].shape[1:]))
        case "attention" if not lowering.flash(node):
            batch, _, heads, _ = node.shape
            return max(
                4 * node.size, 4 * batch * heads * queries_a_chunk(node, lowering.options) * node.inputs[1].shape[1]
            )
    return 4 * node.size
