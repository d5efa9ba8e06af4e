"""What a graph takes on the CPU, from its sizes: weights in their forms, values that live at once, scratch."""

from __future__ import annotations

import psutil

from relight.errors import OutOfDeviceMemory
from relight.executors.base import MemoryUse
from relight.executors.openvino.forms import PLAIN, Use, uses
from relight.executors.openvino.lowering import Elements, chunk_bytes
from relight.executors.openvino.segments import LEAVES
from relight.graph import Graph, Tensor


def measure(graph: Graph, e: Elements, segment_bytes: int) -> MemoryUse:
    """Views of the memory map count as weights: they are read at every run and should stay in memory.

    Compiling touches the inputs of one segment, weights included, and gives them back before the first run ends.
    """
    found = list(uses(graph, e.options.precision))
    weights = {use.key: _held(use, e) for _, _, use in found}
    scratch: dict[int, int] = {}
    for node, _, use in found:
        scratch[node.serial] = scratch.get(node.serial, 0) + _unpacked(use, e)
    fed = sum({use.key: use.nbytes for _, _, use in found if use.role != "constant"}.values())
    return MemoryUse(sum(weights.values()), max(_peak(graph, e, scratch), min(fed, segment_bytes)))


def _held(use: Use, e: Elements) -> int:
    """Constants are held twice: as given, and in the layout that the compiled model wants."""
    return use.nbytes + (e.products.size * use.leaf.size if use.role == "constant" else 0)


def _unpacked(use: Use, e: Elements) -> int:
    """A matrix in the type that it is multiplied in, while it is; int4 is put together from two halves."""
    if use.role != "matrix" or (use.form in PLAIN and use.form.lower() == e.products.get_type_name()):
        return 0
    return int(e.products.size) * use.leaf.size * (2 if use.form == "int4" else 1)


def _peak(graph: Graph, e: Elements, scratch: dict[int, int]) -> int:
    """The most bytes that live values and the scratch of one node take together."""
    ends: dict[int, int] = {}
    alive = peak = sum(4 * node.size for node in graph.inputs.values())
    for node in graph.nodes:
        if node.op in LEAVES:
            continue
        size = int(e.values.size) * node.size
        alive += size
        peak = max(peak, alive + scratch.get(node.serial, 0) + _working(node, e))
        last = graph.last_use.get(node.serial, node.serial)
        ends[last] = ends.get(last, 0) + size
        alive -= ends.pop(node.serial, 0)
    return peak


def _working(node: Tensor, e: Elements) -> int:
    """Copies in another layout: of a convolution's input, and of what attention reads and writes."""
    match node.op:
        case "conv2d":
            return int(e.values.size) * node.inputs[0].size
        case "attention":
            return int(e.products.size) * sum(t.size for t in (node, *node.inputs)) + chunk_bytes(e, node)
        case _:
            return 0


def check_room(need: MemoryUse, held: int, instead: dict[str, MemoryUse]) -> None:
    """Raise OutOfDeviceMemory unless what is needed beyond `held` is free. `instead`: the needs of other precisions."""
    free = psutil.virtual_memory().available + held
    if need.total <= free:
        return
    fitting = [f"{name} would take {_gib(use.total)}" for name, use in instead.items() if use.total <= free]
    way_out = f"precision {' and '.join(fitting)}" if fitting else "no precision fits: run this component elsewhere"
    raise OutOfDeviceMemory(
        f"openvino needs {_gib(need.total)} of memory ({_gib(need.weights)} of weights, {_gib(need.compute)} to "
        f"compute) and {_gib(free)} are free; {way_out}"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
