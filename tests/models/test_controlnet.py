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
from relight.graph import Graph, Weights, input_tensor
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


def residuals(w: Weights, height: int, width: int, text_tokens: int, batch: int) -> Graph:
    """The ControlNet's own outputs, named as the golden files name them."""
    cfg = unet.UnetConfig.from_weights(w)
    hint = input_tensor("hint", (1, 3, 8 * height, 8 * width))
    inputs = unet.record_inputs(cfg, height, width, text_tokens, batch)
    found = controlnet.controlnet(w, cfg, inputs, hint, input_tensor("strength", (1,)))
    return Graph({f"control_{i}": skip for i, skip in enumerate(found.skips)} | {"control_middle": found.middle})


def control_inputs(stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return step_inputs(stored) | {name: stored[name] for name in ("hint", "strength")}


def test_residuals_are_the_published_ones(executor: Executor, source: ArraySource, kind: str) -> None:
    expected = golden(f"controlnet_{kind}")
    graph = residuals(Weights(source), 6, 10, 5, len(expected["latents"]))
    got = run_graph(executor, graph, source, control_inputs(expected))
    assert got.keys() == {name for name in expected if name.startswith("control_")}
    for name, control in got.items():
        assert relative_error(control, expected[name]) < bound(executor.name, "F32"), name


def controlled(kind: str, times: int = 1) -> tuple[Graph, ArraySource]:
    """A UNet with the same ControlNet once or several times in one graph."""
    arrays = dict(g.unet_weights(kind))
    beside = g.random_weights(g.controlnet_shapes(g.UNETS[kind]), seed=2)
    source = ArraySource(arrays | {f"control.{name}": array for name, array in beside.items()})
    w = Weights(source)
    control = controlnet.Control(w / "control", unet.UnetConfig.from_weights(w / "control"))
    batch = len(golden(f"controlnet_{kind}")["latents"])
    return controlnet.record(w, unet.UnetConfig.from_weights(w), [control] * times, 6, 10, 5, batch), source


def test_a_controlled_step_is_the_published_one(executor: Executor, kind: str) -> None:
    expected = golden(f"controlnet_{kind}")
    graph, source = controlled(kind)
    inputs = step_inputs(expected) | {"hint_0": expected["hint"], "strength_0": expected["strength"]}
    got = run_graph(executor, graph, source, inputs)["noise"]
    assert relative_error(got, expected["noise"]) < bound(executor.name, "F32")


def test_several_add_up(kind: str) -> None:
    """Two at half the strength are one at the whole."""
    expected = golden(f"controlnet_{kind}")
    graph, source = controlled(kind, times=2)
    inputs = step_inputs(expected)
    for i in range(2):
        inputs |= {f"hint_{i}": expected["hint"], f"strength_{i}": expected["strength"] / 2}
    got = run_graph(ReferenceExecutor(), graph, source, inputs)["noise"]
    assert relative_error(got, expected["noise"]) < bound("reference", "F32")


def test_at_strength_0_nothing_is_added(source: ArraySource, kind: str) -> None:
    expected = golden(f"controlnet_{kind}")
    graph = residuals(Weights(source), 6, 10, 5, len(expected["latents"]))
    inputs = control_inputs(expected) | {"strength": np.zeros(1, np.float32)}
    got = run_graph(ReferenceExecutor(), graph, source, inputs)
    assert not any(control.any() for control in got.values())


@pytest.mark.parametrize(
    ("spec", "tensors", "parameters"), [(SD15, 340, 361_279_120), (SDXL, 844, 1_251_014_160)], ids=["SD 1.5", "SDXL"]
)
def test_every_tensor_of_the_published_files_has_its_place(spec: g.UnetSpec, tensors: int, parameters: int) -> None:
    shapes = g.controlnet_shapes(spec)
    w = Weights(ShapeIndex(shapes, "F16"))
    graph = residuals(w, 64, 48, 77, 2)
    assert w.unused() == []
    assert (len(w.asked), sum(map(math.prod, shapes.values()))) == (tensors, parameters)
    assert graph.inputs["hint"].shape == (1, 3, 512, 384)


@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_residuals_fit_the_unet_at_odd_sizes(size: tuple[int, int]) -> None:
    w, control = Weights(ShapeIndex(g.unet_shapes(SD15))), Weights(ShapeIndex(g.controlnet_shapes(SD15)))
    beside = controlnet.Control(control, unet.UnetConfig.from_weights(control))
    graph = controlnet.record(w, unet.UnetConfig.from_weights(w), [beside], *size, text_tokens=77)
    assert graph.outputs["noise"].shape == (1, 4, *size)


def test_a_missing_output_is_an_error() -> None:
    shapes = {n: s for n, s in g.controlnet_shapes(SD15).items() if not n.startswith("zero_convs.11.")}
    w = Weights(ShapeIndex(shapes))
    with pytest.raises(ModelFileError, match="12 blocks and 11 outputs"):
        residuals(w, 8, 8, 77, 1)
