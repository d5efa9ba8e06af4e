"""What a graph takes on the CPU, from its sizes: weights in their forms, values that live at once, scratch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import openvino as ov
import psutil

from relight.errors import OutOfDeviceMemory
from relight.executors.base import MemoryUse
from relight.executors.openvino.forms import ELEMENT_BYTES, PLAIN, Use
from relight.executors.openvino.lowering import Elements, chunk_bytes
from relight.executors.openvino.model import SegmentModel
from relight.graph import Graph, Tensor


def measure(graph: Graph, models: Sequence[SegmentModel], e: Elements) -> MemoryUse:
    """Views of the memory map count as weights: they are read at every run and should stay in memory.

    Compiling touches memory for all inputs of a model, weights included, and the first run gives it back; after that
    each model keeps its own scratch. Models of equal structure are one.
    """
    weights = {use.key: _held(use) for model in models for use in model.weights}
    distinct = {model.signature: model for model in models}.values()
    compiling = sum(prod(feed.shape) * ELEMENT_BYTES[feed.element] for model in distinct for feed in model.feeds)
    running = sum(_peak(graph, model, e) for model in distinct)
    return MemoryUse(sum(weights.values()), max(compiling, running))


def _held(use: Use) -> int:
    """Of constants OpenVINO makes one copy more in float32, in its own layout, or two in bfloat16."""
    return use.nbytes + (4 * use.leaf.size if use.role == "constant" else 0)


def _peak(graph: Graph, model: SegmentModel, e: Elements) -> int:
    """The most bytes that live values of a segment and the scratch of one node take together."""
    ends: dict[int, int] = {}
    fed = sum(prod(feed.shape) * ELEMENT_BYTES[feed.element] for feed in model.feeds if feed.kind != "weight")
    alive = peak = fed + sum(_unpacked(use, e) for use in model.weights if use.form not in PLAIN)
    for node in model.segment.nodes:
        size = int(e.values.size) * node.size
        alive += size
        peak = max(peak, alive + _scratch(node, model, e))
        last = graph.last_use.get(node.serial, node.serial)
        ends[last] = ends.get(last, 0) + size
        alive -= ends.pop(node.serial, 0)
    return peak + sum(4 * node.size for node in model.segment.gives)


def _scratch(node: Tensor, model: SegmentModel, e: Elements) -> int:
    """Matrices in another type; what attention reads and writes in its order; convolutions' inputs in another order.

    In bfloat16 OpenVINO also computes the shortcut around a decoder's block first, from one more copy, and keeps both:
    2.58 GB measured at 1024x1024, and 2.57 counted. In float32 it does not: 1.77 GB measured at 768x768, 2.03 counted.
    """
    match node.op:
        case "linear":
            use = model.uses[node.serial, 1]
            return _unpacked(use, e) if use.form in PLAIN else 0
        case "conv2d":
            size = node.inputs[0].size
            return int(e.values.size) * (2 * size + node.size if e.values == ov.Type.bf16 else size)
        case "attention":
            return int(e.products.size) * sum(t.size for t in (node, *node.inputs)) + chunk_bytes(e, node)
        case _:
            return 0


def _unpacked(use: Use, e: Elements) -> int:
    """A matrix in the type that it is multiplied in; half as much again for int4, put together from two halves.

    OpenVINO unpacks about all of a segment's int8 and int4 matrices before it multiplies by them, others when needed.
    """
    if use.form.lower() == e.products.get_type_name():
        return 0
    return int(e.products.size) * use.leaf.size * (3 if use.form == "int4" else 2) // 2


def check_room(need: MemoryUse, held: int, alternatives: Callable[[], Mapping[str, MemoryUse]]) -> None:
    """Raise OutOfDeviceMemory unless what is needed beyond `held` is free. `alternatives`: needs by precision.

    The page cache counts as free, and so do the views of the file that are in it.
    """
    free = psutil.virtual_memory().available + held
    if need.total <= free:
        return
    fitting = [f"{name} would take {_gib(use.total)}" for name, use in alternatives().items() if use.total <= free]
    way_out = f"precision {' and '.join(fitting)}" if fitting else "no precision fits: run this component elsewhere"
    raise OutOfDeviceMemory(
        f"openvino needs {_gib(need.total)} of memory ({_gib(need.weights)} of weights, {_gib(need.compute)} to "
        f"compute) and {_gib(free)} are free; {way_out}"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
