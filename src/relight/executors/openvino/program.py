"""A compiled graph: its segments in turn, each a compiled model with the inputs that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov

from relight.executors.base import MemoryUse, check_inputs
from relight.executors.openvino import tables
from relight.executors.openvino.forms import Use
from relight.executors.openvino.model import SegmentModel
from relight.executors.openvino.weights import WeightSets
from relight.graph import Graph, Tensor

Values = dict[tuple[object, ...], tuple[np.ndarray, ...]]
"""Arrays by the keys of feeds: one, or the parts of a table. Tensors look into them and do not keep them alive."""


@dataclass
class Step:
    """One segment. Segments of equal structure share the request, so results are copied out before the next step."""

    request: Any
    model: SegmentModel
    weights: dict[int, ov.Tensor]  # by number of the model's input


@dataclass
class OpenvinoProgram:
    graph: Graph
    memory: MemoryUse
    steps: list[Step]
    stored: tables.StoredLeaves  # tables to look rows up in
    held: list[np.ndarray]  # what the tensors of the steps, and constants of the models, look into

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = check_inputs(self.graph, inputs)
        values: Values = {
            ("input", node.serial): (np.require(given[name], requirements="W"),)
            for name, node in self.graph.inputs.items()
        }
        for step in self.steps:
            for number, feed in enumerate(step.model.feeds):
                if number in step.weights:
                    step.request.set_input_tensor(number, step.weights[number])
                    continue
                if feed.kind == "table" and feed.key not in values:
                    assert isinstance(feed.source, Tensor)
                    values[feed.key] = tables.make(feed.source, given, self.stored)
                step.request.set_input_tensor(number, ov.Tensor(values[feed.key][feed.part], True))
            step.request.infer()
            for number, node in enumerate(step.model.segment.gives):
                values["value", node.serial] = (step.request.get_output_tensor(number).data.copy(),)
            self._drop_dead(step, values)
        return {name: _result(node, values) for name, node in self.graph.outputs.items()}

    def _drop_dead(self, step: Step, values: Values) -> None:
        last = step.model.segment.nodes[-1].serial
        for node in step.model.segment.takes:
            if self.graph.last_use[node.serial] <= last:
                values.pop(("value", node.serial), None)

    def close(self) -> None:
        self.steps.clear()
        self.held.clear()


def _result(node: Tensor, values: Values) -> np.ndarray:
    (array,) = values["input" if node.op == "input" else "value", node.serial]
    return np.array(array, np.float32)


def weight_tensors(model: SegmentModel, weights: WeightSets) -> dict[int, ov.Tensor]:
    tensors: dict[int, ov.Tensor] = {}
    for number, feed in enumerate(model.feeds):
        if isinstance(feed.source, Use) and feed.part == 0:
            tensors |= dict(enumerate(weights.tensors(feed.source), number))
    return tensors
