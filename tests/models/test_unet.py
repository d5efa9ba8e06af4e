from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bounds import bound
from golden import weights as g
from published_unets import SD15, SD21, SDXL, step_inputs
from relight.errors import ModelFileError, WeightMissing
from relight.executors.base import Executor
from relight.executors.reference import ReferenceExecutor
from relight.graph import Weights
from relight.models import unet
from running import golden, relative_error, run_graph
from shapes import ShapeIndex
from stored import ArraySource

FORMATS = ("F32", "Q8_0")  # with Q8_0 kernels are F16

PUBLISHED = {
    "SD 1.5": (SD15, 686, 859_520_964),
    "SD 2.1": (SD21, 686, 865_910_724),
    "SDXL": (SDXL, 1680, 2_567_463_684),
}
"""Tensors and parameters of the published files."""


@pytest.fixture(scope="module", params=g.UNETS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def arrays(kind: str) -> dict[str, np.ndarray]:
    return g.unet_weights(kind)


@pytest.mark.parametrize("format_name", FORMATS)
def test_noise_is_the_published_one(
    executor: Executor, arrays: dict[str, np.ndarray], kind: str, format_name: str
) -> None:
    """Two rows of a batch with timesteps and texts of their own, at a size that halves to odd numbers."""
    source, expected = ArraySource(arrays, format_name), golden(f"unet_{kind}")
    w = Weights(source)
    graph = unet.record(w, unet.UnetConfig.from_weights(w), 10, 7, 5, batch=2)
    inputs = step_inputs(expected)
    got = run_graph(executor, graph, source, inputs)["noise"]
    assert relative_error(got, expected["noise"]) < bound(executor.name, format_name)


def test_projections_may_be_kernels_or_matrices() -> None:
    """SD 1.x keeps proj_in and proj_out as 1x1 kernels, some SDXL files too."""
    arrays = g.unet_weights("sdxl")
    kernels = {
        name: array[:, :, None, None] if "proj_in.weight" in name or "proj_out.weight" in name else array
        for name, array in arrays.items()
    }
    source, expected = ArraySource(kernels), golden("unet_sdxl")
    graph = unet.record(Weights(source), unet.UnetConfig.from_weights(Weights(source)), 10, 7, 5, batch=2)
    inputs = step_inputs(expected)
    got = run_graph(ReferenceExecutor(), graph, source, inputs)["noise"]
    assert relative_error(got, expected["noise"]) < bound("reference", "F32")


@pytest.mark.parametrize("family", PUBLISHED)
def test_every_tensor_of_the_published_files_has_its_place(family: str) -> None:
    spec, tensors, parameters = PUBLISHED[family]
    shapes = g.unet_shapes(spec)
    w = Weights(ShapeIndex(shapes, "F16"))
    graph = unet.record(w, unet.UnetConfig.from_weights(w), 64, 64, 77, batch=2)
    assert w.unused() == []
    assert (len(w.asked), sum(map(math.prod, shapes.values()))) == (tensors, parameters)
    assert graph.outputs["noise"].shape == (2, 4, 64, 64)


@pytest.mark.parametrize("family", PUBLISHED)
def test_heads_are_those_of_the_family(family: str) -> None:
    spec, *_ = PUBLISHED[family]
    w = Weights(ShapeIndex(g.unet_shapes(spec)))
    cfg = unet.UnetConfig.from_weights(w)
    heads = {node.shape[2:] for node in unet.record(w, cfg, 8, 8, 77).nodes if node.op == "attention"}
    expected = {
        "SD 1.5": {(8, 40), (8, 80), (8, 160)},
        "SD 2.1": {(5, 64), (10, 64), (20, 64)},
        "SDXL": {(10, 64), (20, 64)},
    }
    assert heads == expected[family]


def test_sizes_come_from_the_weights(arrays: dict[str, np.ndarray], kind: str) -> None:
    spec = g.UNETS[kind]
    cfg = unet.UnetConfig.from_weights(Weights(ArraySource(arrays)))
    assert cfg == unet.UnetConfig(
        in_channels=spec.in_channels,
        out_channels=4,
        model_channels=spec.channels[0],
        context_dim=spec.context,
        label_dim=spec.label,
        num_heads=8 if spec.context == 768 else None,
    )


def test_the_number_of_heads_can_be_given() -> None:
    w = Weights(ShapeIndex(g.unet_shapes(g.UNETS["sd1"])))
    cfg = replace(unet.UnetConfig.from_weights(w), num_heads=4)
    heads = {node.shape[2] for node in unet.record(w, cfg, 8, 8, 5).nodes if node.op == "attention"}
    assert heads == {4}


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    w = Weights(ShapeIndex(g.unet_shapes(replace(g.UNETS["sd2"], channels=(32, 64)))))
    with pytest.raises(ModelFileError, match="32 channels"):
        unet.record(w, unet.UnetConfig.from_weights(w), 8, 8, 5)


@pytest.mark.parametrize("size", [(65, 97), (8, 8), (7, 5), (1, 1)])
def test_any_size_comes_back_as_it_went_in(size: tuple[int, int]) -> None:
    w = Weights(ShapeIndex(g.unet_shapes(g.UNETS["sd1"])))
    graph = unet.record(w, unet.UnetConfig.from_weights(w), *size, text_tokens=77)
    assert graph.outputs["noise"].shape == (1, 4, *size)


def test_a_missing_weight_is_named() -> None:
    shapes = g.unet_shapes(g.UNETS["sd1"])
    del shapes["output_blocks.4.1.transformer_blocks.0.attn2.to_v.weight"]
    w = Weights(ShapeIndex(shapes))
    with pytest.raises(WeightMissing, match=r"output_blocks\.4\.1\.transformer_blocks\.0\.attn2\.to_v\.weight"):
        unet.record(w, unet.UnetConfig.from_weights(w), 8, 8, 5)


def test_a_missing_output_block_is_an_error() -> None:
    shapes = {n: s for n, s in g.unet_shapes(g.UNETS["sd1"]).items() if not n.startswith("output_blocks.8.")}
    w = Weights(ShapeIndex(shapes))
    with pytest.raises(ModelFileError, match="9 input blocks and 8 output blocks"):
        unet.record(w, unet.UnetConfig.from_weights(w), 8, 8, 5)


def test_label_holds_pooled_text_then_height_before_width() -> None:
    pooled = np.full((1, 1280), 7, np.float32)
    label = unet.sdxl_label(pooled, (1024, 512), (3, 5), (768, 640))
    assert label.shape == (1, 2816) and label.dtype == np.float32
    assert (label[:, :1280] == 7).all()
    first_cosines = label[0, 1280:].reshape(6, 256)[:, 0]
    assert first_cosines == pytest.approx(np.cos([1024, 512, 3, 5, 768, 640]), abs=1e-6)
