"""The count against what ggml's allocator measures, and that it is an executor like any other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from checkpoints import flux_shapes, t5_shapes, vae_shapes
from executors_present import EXECUTORS
from golden import small_nets
from golden.weights import UnetSpec, controlnet_shapes, unet_shapes
from published_unets import SD15, SDXL
from relight.errors import OutOfDeviceMemory, UnsupportedOp
from relight.executors.base import CompileOptions
from relight.executors.null import NullExecutor
from relight.graph import Graph, Tensor, Weights, input_tensor, ops
from relight.models import controlnet, esrgan, flux, t5, taesd, unet, vae
from shapes import ShapeIndex
from stored import ArraySource

TOLERANCE = 0.01
"""Of a count to the bytes ggml measures. The worst seen is 0.0003, from the alignment of small tensors."""

SIZES = {
    "small flux": {"double": 2, "single": 2},
    "flux": {"double": 19, "single": 38, "hidden": 3072},
}
VAE_SMALL, VAE = (32, 64, 64), (128, 256, 512, 512)


def flux_step(size: str, tokens: int, side: int) -> Graph:
    w = Weights(ShapeIndex(flux_shapes(**SIZES[size]), "Q4_K"))
    return flux.record(w, flux.FluxConfig.from_weights(w), tokens, side, side)


def flux_modulation(size: str) -> Graph:
    w = Weights(ShapeIndex(flux_shapes(**SIZES[size]), "Q4_K"))
    return flux.record_modulation(w, flux.FluxConfig.from_weights(w), 4)


def vae_decoder(channels: tuple[int, ...], side: int) -> Graph:
    w = Weights(ShapeIndex(vae_shapes(channels), "F16"))
    return vae.record_decoder(w, vae.VaeConfig.from_weights(w), side, side)


def vae_encoder(channels: tuple[int, ...], side: int) -> Graph:
    w = Weights(ShapeIndex(vae_shapes(channels), "F16"))
    return vae.record_encoder(w, vae.VaeConfig.from_weights(w), side, side)


def unet_step(spec: UnetSpec, side: int, batch: int) -> Graph:
    w = Weights(ShapeIndex(unet_shapes(spec), "F16"))
    return unet.record(w, unet.UnetConfig.from_weights(w), side, side, 77, batch)


def controlled_step(spec: UnetSpec, side: int, batch: int) -> Graph:
    beside = {f"control.{name}": shape for name, shape in controlnet_shapes(spec).items()}
    w = Weights(ShapeIndex(unet_shapes(spec) | beside, "F16"))
    control = controlnet.Control(w / "control", unet.UnetConfig.from_weights(w / "control"))
    return controlnet.record(w, unet.UnetConfig.from_weights(w), [control], side, side, 77, batch)


def t5_encoder(length: int, form: str, **sizes: int) -> Graph:
    w = Weights(ShapeIndex(t5_shapes(**sizes), form))
    return t5.record(w, t5.T5Config.from_weights(w), length)


def upscaler(shapes: dict[str, tuple[int, ...]], side: int) -> Graph:
    w = Weights(ShapeIndex(shapes, "F16"))
    return esrgan.record(w, esrgan.EsrganConfig.from_weights(w), side, side)


def tiny_autoencoder(record: Callable[..., Graph], side: int) -> Graph:
    w = Weights(ShapeIndex(small_nets.taesd_shapes(4), "F16"))
    return record(w, taesd.TaesdConfig.from_weights(w), side, side)


def products_of_three_axes() -> Graph:
    """Of a batch of two: views under ggml, so that what follows takes memory of its own."""
    w = Weights(ShapeIndex({"l.weight": (512, 64), "l.bias": (512,)}))
    x = input_tensor("x", (2, 300, 64))
    return Graph({"y": ops.silu(ops.linear(x, w / "l")) * ops.gelu(ops.linear(x, w / "l"))})


AUTO, FLASH = CompileOptions(), CompileOptions(attention="flash")
SMALL_CHUNKS = CompileOptions(attention="chunked", scores_bytes=64 << 20)
TINY_CHUNKS = CompileOptions(attention="chunked", scores_bytes=1 << 20)
IM2COL = CompileOptions(convolution="im2col")
XXL = {"layers": 24, "hidden": 4096, "heads": 64, "mlp": 10240}

MEASURED = {
    "small flux": (flux_step("small flux", 7, 10), AUTO),
    "small flux in tiny chunks": (flux_step("small flux", 7, 64), TINY_CHUNKS),
    "small flux by flash": (flux_step("small flux", 7, 64), FLASH),
    "flux at 1024": (flux_step("flux", 256, 128), AUTO),
    "flux at 1024 in small chunks": (flux_step("flux", 256, 128), SMALL_CHUNKS),
    "flux at 1024 by flash": (flux_step("flux", 256, 128), FLASH),
    "flux at 512 by flash": (flux_step("flux", 256, 64), FLASH),
    "modulation of flux": (flux_modulation("flux"), AUTO),
    "small vae": (vae_decoder(VAE_SMALL, 16), AUTO),
    "small vae by im2col": (vae_decoder(VAE_SMALL, 16), IM2COL),
    "vae at 1024": (vae_decoder(VAE, 128), AUTO),
    "vae at 1024 by im2col": (vae_decoder(VAE, 128), IM2COL),
    "vae tile by flash": (vae_decoder(VAE, 32), FLASH),
    "vae encoder": (vae_encoder(VAE, 512), AUTO),
    "taesd decoder": (tiny_autoencoder(taesd.record_decoder, 64), AUTO),
    "taesd encoder": (tiny_autoencoder(taesd.record_encoder, 512), AUTO),
    "upscaler": (upscaler(small_nets.rrdb_shapes(), 64), AUTO),
    "upscaler that folds pixels": (upscaler(small_nets.rrdb_shapes(2), 64), AUTO),
    "compact upscaler": (upscaler(small_nets.compact_shapes(4), 64), AUTO),
    "sd 1.5 at 512, two rows": (unet_step(SD15, 64, 2), AUTO),
    "sd 1.5 at 512, two rows by flash": (unet_step(SD15, 64, 2), FLASH),
    "sd 1.5 at 768 by im2col": (unet_step(SD15, 96, 2), IM2COL),
    "sd 1.5 with control": (controlled_step(SD15, 64, 2), FLASH),
    "sdxl at 1024": (unet_step(SDXL, 128, 1), AUTO),
    "sdxl at 1024 by flash": (unet_step(SDXL, 128, 2), FLASH),
    "linear over three axes": (products_of_three_axes(), AUTO),
    "small t5": (t5_encoder(77, "F16"), AUTO),
    "t5": (t5_encoder(512, "Q4_K", **XXL), AUTO),
    "t5 in small chunks": (t5_encoder(512, "Q4_K", **XXL), CompileOptions(scores_bytes=8 << 20)),
    "t5 by flash": (t5_encoder(512, "F16", **XXL), FLASH),
}

LARGE = {"sd 1.5 at 768, eight rows by im2col": (unet_step(SD15, 96, 8), IM2COL)}


def error(counted: int, measured: int) -> float:
    return abs(counted / measured - 1)


@pytest.mark.parametrize("case", MEASURED)
def test_counts_what_ggml_measures(case: str) -> None:
    graph, options = MEASURED[case]
    ggml = EXECUTORS["ggml-cpu"]()
    counted, measured = NullExecutor().measure(graph, options), ggml.measure(graph, options)
    assert error(counted.compute, measured.compute) < TOLERANCE
    assert error(counted.weights, measured.weights) < TOLERANCE


@pytest.mark.parametrize("case", [*MEASURED, "sd 1.5 at 768, eight rows by im2col"])
def test_counts_what_ggml_measures_on_a_gpu(case: str) -> None:
    """Its buffers are cut into chunks of 1 GiB, which leaves gaps that one long buffer would not have."""
    graph, options = (MEASURED | LARGE)[case]
    ggml = EXECUTORS["vulkan0"]()
    counted, measured = NullExecutor("vulkan0").measure(graph, options), ggml.measure(graph, options)
    assert error(counted.compute, measured.compute) < TOLERANCE
    assert error(counted.weights, measured.weights) < TOLERANCE


def test_smaller_chunks_hold_less_together(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, options = MEASURED["vae at 1024"]
    whole = NullExecutor("vulkan0").measure(graph, options).compute
    monkeypatch.setenv("GGML_VK_SUBALLOCATION_BLOCK_SIZE", str(1 << 62))
    assert whole != NullExecutor("vulkan0").measure(graph, options).compute
    assert NullExecutor("ggml-cpu").measure(graph, options) == NullExecutor("vulkan0").measure(graph, options)


def test_has_every_operation() -> None:
    null = NullExecutor()
    assert [op for op in ops.OPS if null.why_not(Tensor(op, (1,))) is not None] == []


def test_an_unknown_operation_is_refused_before_it_is_counted() -> None:
    null = NullExecutor()
    graph = Graph({"y": Tensor("fft", (3,), inputs=(input_tensor("x", (3,)),))})
    with pytest.raises(UnsupportedOp, match="null has no fft"):
        null.compile(graph, null.load((graph,), {}), AUTO)


def small_network() -> tuple[Graph, ArraySource]:
    """A linear layer, attention and a convolution, sizes such that a person can count their operations."""
    arrays = {
        "l.weight": np.ones((8, 6), np.float32),
        "l.bias": np.ones(8, np.float32),
        "c.weight": np.ones((3, 1, 3, 3), np.float32),
    }
    source = ArraySource(arrays)
    w = Weights(source)
    heads = ops.linear(input_tensor("x", (5, 6)), w / "l").reshape(1, 5, 2, 4)
    attended = ops.attention(heads, heads, heads)
    return Graph({"y": ops.conv2d(attended.reshape(1, 1, 5, 8), w / "c", padding=1), "heads": heads}), source


def test_operations_are_counted_by_kind() -> None:
    graph, source = small_network()
    null = NullExecutor()
    program = null.compile(graph, null.load((graph,), source), AUTO)
    assert program.nodes == {"linear": 1, "reshape": 2, "attention": 1, "conv2d": 1}
    linear, attention, convolution = 2 * 5 * 6 * 8, 2 * 2 * (5 * 5) * 2 * 4, 2 * (5 * 8) * 3 * 9
    assert program.flops_by_op["linear"] == linear
    assert program.flops_by_op["attention"] == attention
    assert program.flops_by_op["conv2d"] == convolution
    assert program.flops == linear + attention + convolution


def test_a_step_of_flux_at_1024_takes_69_tflop() -> None:
    """A block multiplies each token by 12 matrices of D x D, and each query by each key twice; the rest is small."""
    null = NullExecutor()
    graph = MEASURED["flux at 1024"][0]
    program = null.compile(graph, null.load((graph,), {}), AUTO)
    tokens, size, blocks = 256 + 4096, 3072, 19 + 38
    by_hand = blocks * (2 * tokens * 12 * size**2 + 4 * tokens**2 * size)
    assert program.flops == pytest.approx(by_hand, rel=1e-3)
    assert by_hand == pytest.approx(69.4e12, rel=1e-3)


def test_runs_check_inputs_and_give_zeros_of_the_recorded_shapes() -> None:
    graph, source = small_network()
    null = NullExecutor()
    program = null.compile(graph, null.load((graph,), source), AUTO)
    results = program.run({"x": np.ones((5, 6), np.float32)})
    assert {name: (array.shape, array.dtype, array.any()) for name, array in results.items()} == {
        "y": ((1, 3, 5, 8), np.float32, np.False_),
        "heads": ((1, 5, 2, 4), np.float32, np.False_),
    }
    assert program.runs == 1
    with pytest.raises(ValueError, match=r"input x has shape \(5, 7\), the graph was compiled for \(5, 6\)"):
        program.run({"x": np.ones((5, 7), np.float32)})
    with pytest.raises(ValueError, match=r"inputs \['z'\] given, \['x'\] needed"):
        program.run({"z": np.ones((5, 6), np.float32)})


def test_a_limit_refuses_weights_and_buffers_with_numbers() -> None:
    graph, source = small_network()
    needs = NullExecutor().measure(graph, AUTO)
    null = NullExecutor(limit_bytes=needs.total - 1)
    weights = null.load((graph,), source)
    with pytest.raises(OutOfDeviceMemory, match="the compute buffer needs .* GiB on null"):
        null.compile(graph, weights, AUTO)
    assert null.limit.used == needs.weights
    weights.close()
    assert null.limit.used == 0
    with pytest.raises(OutOfDeviceMemory, match="weights needs"):
        NullExecutor(limit_bytes=needs.weights - 1).load((graph,), source)


def test_close_gives_everything_back_once() -> None:
    graph, source = small_network()
    null = NullExecutor()
    weights = null.load((graph,), source)
    program = null.compile(graph, weights, AUTO)
    assert null.limit.used == program.memory.total
    for _ in range(2):
        program.close()
        weights.close()
    assert null.limit.used == 0
    assert null.limit.peak == program.memory.total


def test_progress_reaches_all_bytes() -> None:
    graph, source = small_network()
    seen: list[tuple[int, int]] = []
    weights = NullExecutor().load((graph,), source, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (weights.nbytes, weights.nbytes)


def test_a_weight_used_twice_is_counted_once() -> None:
    source = ArraySource({"l.weight": np.ones((8, 8), np.float32)})
    w = Weights(source)
    graph = Graph({"y": ops.linear(ops.linear(input_tensor("x", (5, 8)), w / "l"), w / "l")})
    assert NullExecutor().measure(graph, AUTO).weights == 4 * 64


def test_a_chain_takes_the_memory_of_its_first_result() -> None:
    x = input_tensor("x", (1000,))
    chain = ops.silu(ops.gelu(x * 2 + 1))
    assert NullExecutor().measure(Graph({"y": chain}), AUTO).compute == 4 * (1000 + 1000)


def test_a_view_holds_what_it_looks_at() -> None:
    x = input_tensor("x", (10, 100))
    doubled = x * 2
    row = doubled.narrow(0, 0, 1)
    late = ops.concat([ops.silu(x), row * 3], 0)
    assert NullExecutor().measure(Graph({"y": late}), AUTO).compute == 4 * (1000 + 1000 + 1000 + 100 + 1100)
