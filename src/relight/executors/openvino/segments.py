"""A graph cut into runs of operations whose weights together stay under a limit.

OpenVINO touches memory for every input of a model while it compiles it, weights included, and gives it back when the
real ones are set: cutting bounds that. Segments of equal structure, such as blocks of a transformer, compile once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relight.graph import Graph, Tensor

LEAVES = ("input", "weight")


@dataclass(frozen=True)
class Segment:
    """`takes` are values that earlier segments computed, `gives` those that later ones or the caller need."""

    nodes: tuple[Tensor, ...]
    takes: tuple[Tensor, ...]
    gives: tuple[Tensor, ...]


def cut(graph: Graph, weight_bytes: Mapping[int, int], limit: int) -> list[Segment]:
    """`weight_bytes`: of each node's weights, by serial. Each segment has at most `limit` of them, or is one node."""
    nodes = [node for node in graph.nodes if node.op not in LEAVES]
    crossing = _crossing_bytes(graph, nodes)
    bounds, start, held = [0], 0, 0
    for i, node in enumerate(nodes):
        held += weight_bytes.get(node.serial, 0)
        while held > limit and i > start:
            start = _best_cut(crossing, start, i)
            bounds.append(start)
            held = sum(weight_bytes.get(n.serial, 0) for n in nodes[start : i + 1])
    bounds.append(len(nodes))
    return [_segment(graph, nodes[a:b]) for a, b in zip(bounds, bounds[1:], strict=False) if b > a]


def _best_cut(crossing: list[int], start: int, stop: int) -> int:
    """Where a segment that must end by node `stop` ends: in its second half, where least crosses, rather late."""
    places = range(start + 1 + (stop - start) // 2, stop + 1) or range(stop, stop + 1)
    return min(places, key=lambda place: (crossing[place - 1], -place))


def _crossing_bytes(graph: Graph, nodes: list[Tensor]) -> list[int]:
    """After each node, the bytes of computed values that some later node reads."""
    ends: dict[int, int] = {}
    alive, crossing = 0, []
    for node in nodes:
        last = graph.last_use.get(node.serial, node.serial)
        alive += 4 * node.size - ends.pop(node.serial, 0)
        ends[last] = ends.get(last, 0) + 4 * node.size
        alive -= ends.pop(node.serial, 0)
        crossing.append(alive)
    return crossing


def _segment(graph: Graph, nodes: list[Tensor]) -> Segment:
    own = {node.serial for node in nodes}
    wanted = {node.serial for node in graph.outputs.values()}
    takes = {s.serial: s for node in nodes for s in node.inputs if s.op not in LEAVES and s.serial not in own}
    last = nodes[-1].serial
    gives = [n for n in nodes if n.serial in wanted or graph.last_use.get(n.serial, 0) > last]
    return Segment(tuple(nodes), tuple(takes[serial] for serial in sorted(takes)), tuple(gives))
