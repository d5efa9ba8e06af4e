from __future__ import annotations

import math

import numpy as np
import pytest

from bounds import bound
from golden import weights as g
from published_unets import SD15, SDXL, step_inputs
from relight.errors import ModelFileError
from relight.executors.base import Executor
from relight.executors.reference import ReferenceExecutor
from relight.graph import Graph, Weights
from relight.models import controlnet, unet
from running import golden, relative_error, run_graph
from shapes import ShapeIndex
from stored import ArraySource


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def source(kind: str) -> ArraySource:
    return ArraySource(g.random_weights(g.controlnet_shapes(g.UNETS[kind]), seed=2))


def record(source: ArraySource, batch: int) -> Graph:
    w = Weights(source)
    return controlnet.record(w, unet.UnetConfig.from_weights(w), 6, 10, 5, batch)


def control_inputs(stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return step_inputs(stored) | {name: stored[name] for name in ("hint", "strength")}


def test_residuals_are_the_published_ones(executor: Executor, source: ArraySource, kind: str) -> None:
    expected = golden(f"controlnet_{kind}")
    graph = record(source, len(expected["latents"]))
    got = run_graph(executor, graph, source, control_inputs(expected))
    assert got.keys() == {name for name in expected if name.startswith("control_")}
    for name, control in got.items():
        assert relative_error(control, expected[name]) < bound(executor.name, "F32"), name


def test_a_controlled_step_is_the_published_one(executor: Executor, kind: str) -> None:
    expected = golden(f"controlnet_{kind}")
    source = ArraySource(g.unet_weights(kind))
    w = Weights(source)
    batch = len(expected["latents"])
    graph = unet.record(w, unet.UnetConfig.from_weights(w), 6, 10, 5, batch, control=True)
    controls = {name: array for name, array in expected.items() if name.startswith("control_")}
    got = run_graph(executor, graph, source, step_inputs(expected) | controls)["noise"]
    assert relative_error(got, expected["noise"]) < bound(executor.name, "F32")


def test_at_strength_0_nothing_is_added(source: ArraySource, kind: str) -> None:
    expected = golden(f"controlnet_{kind}")
    inputs = control_inputs(expected) | {"strength": np.zeros(1, np.float32)}
    got = run_graph(ReferenceExecutor(), record(source, len(expected["latents"])), source, inputs)
    assert not any(control.any() for control in got.values())


@pytest.mark.parametrize(
    ("spec", "tensors", "parameters"), [(SD15, 340, 361_279_120), (SDXL, 844, 1_251_014_160)], ids=["SD 1.5", "SDXL"]
)
def test_every_tensor_of_the_published_files_has_its_place(spec: g.UnetSpec, tensors: int, parameters: int) -> None:
    shapes = g.controlnet_shapes(spec)
    w = Weights(ShapeIndex(shapes, "F16"))
    graph = controlnet.record(w, unet.UnetConfig.from_weights(w), 64, 48, 77, batch=2)
    assert w.unused() == []
    assert (len(w.asked), sum(map(math.prod, shapes.values()))) == (tensors, parameters)
    assert graph.inputs["hint"].shape == (1, 3, 512, 384)


@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_outputs_are_what_the_unet_takes(size: tuple[int, int]) -> None:
    w = Weights(ShapeIndex(g.controlnet_shapes(SD15)))
    outputs = controlnet.record(w, unet.UnetConfig.from_weights(w), *size, text_tokens=77).outputs
    w = Weights(ShapeIndex(g.unet_shapes(SD15)))
    inputs = unet.record(w, unet.UnetConfig.from_weights(w), *size, text_tokens=77, control=True).inputs
    taken = {name: node.shape for name, node in inputs.items() if name.startswith("control_")}
    assert taken == {name: node.shape for name, node in outputs.items()}


def test_a_missing_output_is_an_error() -> None:
    shapes = {n: s for n, s in g.controlnet_shapes(SD15).items() if not n.startswith("zero_convs.11.")}
    w = Weights(ShapeIndex(shapes))
    with pytest.raises(ModelFileError, match="12 blocks and 11 outputs"):
        controlnet.record(w, unet.UnetConfig.from_weights(w), 8, 8, 77)
