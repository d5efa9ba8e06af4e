"""One segment of a graph as an OpenVINO model: what it takes, what makes two alike, and its construction."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import openvino as ov
from openvino import opset15 as op

from relight.executors.openvino import tables
from relight.executors.openvino.forms import Use, layout
from relight.executors.openvino.lowering import OPS, Elements, Matrix, Node, convert
from relight.executors.openvino.segments import Segment
from relight.executors.openvino.weights import WeightSets, writable
from relight.graph import Tensor

Uses = Mapping[tuple[int, int], Use]
"""By serial of the node and number of its input."""


@dataclass(frozen=True)
class Feed:
    """What an input of a model is given at each run: part `part` of a graph input, table, computed value or weight."""

    kind: Literal["input", "table", "value", "weight"]
    source: Tensor | Use
    part: int
    element: str
    shape: tuple[int, ...]

    @property
    def key(self) -> tuple[object, ...]:
        match self.source:
            case Use() as use:
                return "weight", *use.key
            case node if self.kind == "table":
                return "table", *tables.key(node)
            case node:
                return self.kind, node.serial


@dataclass(frozen=True)
class Argument:
    """An input of a node: an earlier node, a constant, or `count` feeds; `place` is its number, or the first one's."""

    kind: Literal["node", "constant", "plain", "matrix", "table"]
    place: int
    count: int = 1


@dataclass
class SegmentModel:
    segment: Segment
    uses: Uses
    elements: Elements
    feeds: list[Feed] = field(init=False, default_factory=list)
    constants: list[Use] = field(init=False, default_factory=list)
    arguments: list[list[Argument]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        nodes = {node.serial: i for i, node in enumerate(self.segment.nodes)}
        places: dict[tuple[object, ...], int] = {}
        for node in self.segment.nodes:
            self.arguments.append([])
            on_host = tables.replaced_inputs(node)
            for number, source in enumerate(node.inputs):
                use = self.uses.get((node.serial, number))
                if number in on_host:
                    if number > on_host[0]:
                        continue
                    argument = self._argument(_table_feeds(node), places)
                elif source.serial in nodes:
                    argument = Argument("node", nodes[source.serial])
                elif use is not None and use.role == "constant":
                    argument = Argument("constant", len(self.constants))
                    self.constants.append(use)
                else:
                    argument = self._argument(_feeds(source, use), places)
                self.arguments[-1].append(argument)

    def _argument(self, feeds: list[Feed], places: dict[tuple[object, ...], int]) -> Argument:
        """Equal keys are fed once."""
        place = places.setdefault(feeds[0].key, len(self.feeds))
        if place == len(self.feeds):
            self.feeds.extend(feeds)
        return Argument(_kind(feeds[0]), place, len(feeds))

    @property
    def weights(self) -> list[Use]:
        """All of them, fed and constant, each once."""
        fed = [feed.source for feed in self.feeds if isinstance(feed.source, Use)]
        return list({use.key: use for use in (*fed, *self.constants)}.values())

    @property
    def gives(self) -> list[int]:
        """Which nodes' results are the outputs of the model."""
        return [self.segment.nodes.index(node) for node in self.segment.gives]

    @property
    def signature(self) -> str:
        """Equal for segments that one compiled model serves."""
        nodes = [
            (node.op, node.shape, node.dtype, sorted(node.attrs.items()), arguments)
            for node, arguments in zip(self.segment.nodes, self.arguments, strict=True)
        ]
        feeds = [
            (feed.kind, feed.element, feed.shape, feed.source.form if isinstance(feed.source, Use) else "")
            for feed in self.feeds
        ]
        constants = [use.key for use in self.constants]
        whole = repr((nodes, feeds, constants, self.gives, self.elements))
        return hashlib.sha256(whole.encode()).hexdigest()

    def build(self, weights: WeightSets) -> ov.Model:
        parameters = [op.parameter(list(feed.shape), getattr(ov.Type, feed.element)) for feed in self.feeds]
        constants = [op.constant(writable(weights.packed(use)[0]), shared_memory=True) for use in self.constants]
        results: list[Node] = []
        for node, arguments in zip(self.segment.nodes, self.arguments, strict=True):
            inputs: list[Node | Matrix] = []
            for argument in arguments:
                match argument.kind:
                    case "node":
                        inputs.append(results[argument.place])
                    case "constant":
                        inputs.append(self._value(constants[argument.place]))
                    case _:
                        inputs.extend(self._fed(argument, parameters))
            results.append(OPS[node.op](self.elements, node, *inputs))
        return ov.Model([op.result(_leaving(results[i])) for i in self.gives], parameters, "relight")

    def _fed(self, argument: Argument, parameters: list[Node]) -> list[Node | Matrix]:
        given = parameters[argument.place : argument.place + argument.count]
        source = self.feeds[argument.place].source
        if argument.kind == "matrix" and isinstance(source, Use):
            rows = source.leaf.shape[0]
            return [Matrix(source.form, tuple(given), rows, source.leaf.size // rows)]
        return [self._value(part) for part in given] if argument.kind == "plain" else list(given)

    def _value(self, x: Node) -> Node:
        """Numbers stay what they are, all else takes the element type of values."""
        return x if x.get_element_type() == ov.Type.i32 else convert(x, self.elements.values)


def _table_feeds(node: Tensor) -> list[Feed]:
    return [Feed("table", node, part, "f32", shape) for part, shape in enumerate(tables.shapes(node))]


def _feeds(source: Tensor, use: Use | None) -> list[Feed]:
    if use is not None:
        return [Feed("weight", use, part, *form) for part, form in enumerate(layout(use))]
    return [Feed("input" if source.op == "input" else "value", source, 0, source.dtype, source.shape)]


def _kind(feed: Feed) -> Literal["plain", "matrix", "table"]:
    if feed.kind == "table":
        return "table"
    return "matrix" if isinstance(feed.source, Use) and feed.source.role == "matrix" else "plain"


def _leaving(y: Node) -> Node:
    return y if y.get_element_type() == ov.Type.i32 else convert(y, ov.Type.f32)
