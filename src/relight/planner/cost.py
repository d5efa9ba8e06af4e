"""Seconds of one run of a recorded graph on a device of known rates, kind by kind."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

from relight.executors.base import CompileOptions
from relight.executors.choices import queries_a_chunk, uses_direct_convolution, uses_flash
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


def cost(graph: Graph, rates: Rates, options: CompileOptions, *, gpu: bool) -> Cost:
    """Of one run, with everything loaded and compiled."""
    spent: defaultdict[str, float] = defaultdict(float)
    for node in graph.nodes:
        if node.op in VIEWS:
            continue
        kind, seconds = _node(node, rates, options, gpu)
        spent[kind] += seconds
        spent["launch"] += rates.node_s + rates.kernel_s * (kind != "rest")
    return Cost(dict(spent))


def _node(node: Tensor, rates: Rates, options: CompileOptions, gpu: bool) -> tuple[str, float]:
    match node.op:
        case "linear":
            weight = node.inputs[1]
            form = held_format(weight, "matrix")
            reading = leaf_nbytes(weight, form) / rates.weights + _traffic(node) / rates.bandwidth
            return "matrix", max(flops(node) / rates.matrix_rate(form), reading)
        case "conv2d":
            return "convolution", _convolution(node, rates, options)
        case "attention":
            return "attention", _attention(node, rates, options, gpu)
    return "rest", _traffic(node) / rates.bandwidth


def _convolution(node: Tensor, rates: Rates, options: CompileOptions) -> float:
    reading = _traffic(node) / rates.bandwidth
    if uses_direct_convolution(options):
        return max(flops(node) / rates.conv["direct"], reading)
    column_bytes = 2 * node.size // node.shape[1] * math.prod(node.inputs[1].shape[1:])
    return flops(node) / rates.conv["im2col"] + 2 * column_bytes / rates.bandwidth + reading


def _attention(node: Tensor, rates: Rates, options: CompileOptions, gpu: bool) -> float:
    if uses_flash(node, options, gpu=gpu):
        return max(flops(node) / rates.attention["flash"], _traffic(node) / rates.bandwidth)
    queries_a_chunk(node, options)  # raises where one query alone is too large
    batch, queries, heads, _ = node.shape
    scores = 4 * batch * heads * queries * node.inputs[1].shape[1]
    return flops(node) / rates.attention["chunked"] + (scores + _traffic(node)) / rates.bandwidth


def _traffic(node: Tensor) -> int:
    """Bytes of values that are read and written, in float32."""
    return 4 * (node.size + sum(source.size for source in node.inputs if source.op != "weight"))


def largest_tensor(graph: Graph, options: CompileOptions) -> int:
    """Bytes of the largest thing that must lie in one allocation: a weight, a value, columns or a chunk of scores."""
    return max((_largest(node, options) for node in graph.nodes), default=0)


def _largest(node: Tensor, options: CompileOptions) -> int:
    match node.op:
        case "weight":
            return leaf_nbytes(node, held_format(node, "matrix"))
        case "conv2d" if not uses_direct_convolution(options):
            return max(4 * node.size, 2 * node.size // node.shape[1] * math.prod(node.inputs[1].shape[1:]))
        case "attention" if not uses_flash(node, options, gpu=True):
            batch, _, heads, _ = node.shape
            return max(4 * node.size, 4 * batch * heads * queries_a_chunk(node, options) * node.inputs[1].shape[1])
    return 4 * node.size
