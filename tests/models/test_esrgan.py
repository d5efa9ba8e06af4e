from __future__ import annotations

import numpy as np
import pytest

from bounds import bound
from golden import small_nets
from golden.weights import conv, random_weights
from relight.errors import ModelFileError, WeightMissing
from relight.executors.base import CompileOptions, Executor
from relight.executors.reference import ReferenceExecutor
from relight.graph import Graph, Weights, input_tensor
from relight.models import esrgan
from running import golden, relative_error, run_graph
from stored import ArraySource

KINDS = [*small_nets.RRDB_KINDS, *small_nets.COMPACT_KINDS]
CONFIGS = {
    "rrdb_x4": esrgan.EsrganConfig(scale=4, blocks=2),
    "rrdb_x2": esrgan.EsrganConfig(scale=2, blocks=2, unshuffle=2),
    "rrdb_x1": esrgan.EsrganConfig(scale=1, blocks=2, unshuffle=4),
    "rrdb_x2_once": esrgan.EsrganConfig(scale=2, blocks=2),
    "compact_x4": esrgan.EsrganConfig(scale=4, blocks=5, compact=True),
    "compact_x2": esrgan.EsrganConfig(scale=2, blocks=5, compact=True),
}


def weights_of(kind: str) -> dict[str, np.ndarray]:
    if kind in small_nets.COMPACT_KINDS:
        return small_nets.compact_weights(small_nets.COMPACT_KINDS[kind])
    return random_weights(small_nets.rrdb_shapes(*small_nets.RRDB_KINDS[kind]))


@pytest.mark.parametrize("format_name", ["F32", "F16"])
@pytest.mark.parametrize("kind", KINDS)
def test_upscaled_pictures_are_the_published_ones(executor: Executor, kind: str, format_name: str) -> None:
    source, expected = ArraySource(weights_of(kind), format_name), golden(kind)
    w = Weights(source)
    graph = esrgan.record(w, esrgan.EsrganConfig.from_weights(w), 12, 20)
    got = run_graph(executor, graph, source, {"image": expected["image"]})["upscaled"]
    assert relative_error(got, expected["upscaled"]) < bound(executor.name, format_name)
    assert w.unused() == []


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_come_from_the_weights(kind: str) -> None:
    assert esrgan.EsrganConfig.from_weights(Weights(ArraySource(weights_of(kind)))) == CONFIGS[kind]


def test_a_picture_that_cannot_be_folded_is_refused() -> None:
    w = Weights(ArraySource(weights_of("rrdb_x2")))
    with pytest.raises(ValueError, match="40x47 pixels: this upscaler takes multiples of 2"):
        esrgan.record(w, esrgan.EsrganConfig.from_weights(w), 47, 40)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (conv("conv_first", 24, 1), "takes 1 channels"),
        (conv("conv_first", 24, 24), "takes 24 channels"),
        (conv("conv_last", 1, 24), "gives 1 channels"),
        (conv("conv_last", 12, 24), "gives 12 channels"),
        (conv("conv_first", 24, 27), "folds 3 pixels and unfolds 4"),
    ],
)
def test_networks_for_other_pictures_are_refused(changed: dict[str, tuple[int, ...]], message: str) -> None:
    w = Weights(ArraySource(random_weights(small_nets.rrdb_shapes() | changed)))
    with pytest.raises(ModelFileError, match=message):
        esrgan.EsrganConfig.from_weights(w)


def test_a_file_of_another_network_is_refused() -> None:
    with pytest.raises(WeightMissing, match=r"no weight conv_first\.weight"):
        esrgan.EsrganConfig.from_weights(Weights(ArraySource(random_weights(conv("decoder.conv_in", 4, 3)))))


def test_a_batch_of_channels_is_folded_and_unfolded_to_what_it_was() -> None:
    """Each channel's squares of 2x2 become channels in reading order, and back."""
    x = np.arange(1 * 3 * 4 * 6, dtype=np.float32).reshape(1, 3, 4, 6)
    node = input_tensor("x", x.shape)
    folded = esrgan.pixel_unshuffle(node, 2)
    graph = Graph({"folded": folded, "back": esrgan.pixel_shuffle(folded, 2)})
    executor = ReferenceExecutor()
    out = executor.compile(graph, executor.load((graph,), {}), CompileOptions()).run({"x": x})
    assert out["folded"].shape == (1, 12, 2, 3)
    assert out["folded"][0, :, 0, 0].tolist() == [0, 1, 6, 7, 24, 25, 30, 31, 48, 49, 54, 55]
    np.testing.assert_array_equal(out["back"], x)
