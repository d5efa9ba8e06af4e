"""Networks with LoRAs beside their weights, against diffusers with the same files loaded by peft."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import lora_files
from bounds import BOUNDS
from golden import weights as g
from published_unets import step_inputs
from relight.executors.base import CompileOptions, Executor, LoadedWeights
from relight.graph import Graph, Weights
from relight.models import flux, unet
from relight.weights.lora import Adapters, combine, open_lora
from running import golden, is_lavapipe, relative_error
from stored import ArraySource

STRENGTHS = (0.5, -0.3)
FORMATS = ("F32", "Q8_0")


def adapters(folder: Path, kind: str, names: tuple[str, ...], source: ArraySource) -> Adapters:
    paths = [lora_files.golden_file(folder / f"{i}.safetensors", name, seed=20 + i) for i, name in enumerate(names)]
    return combine(list(zip(map(open_lora, paths), STRENGTHS, strict=False)), kind, source)


@pytest.fixture(autouse=True)
def quick(executor: Executor) -> None:
    """lavapipe compiles these networks' kernels for a minute each; tests/ops has LoRA's operations there."""
    if is_lavapipe(executor):
        pytest.skip("lavapipe would compile for minutes")


def run(executor: Executor, graph: Graph, loads: list[LoadedWeights], inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    attention = "chunked" if is_lavapipe(executor) else "auto"
    program = executor.compile(graph, loads, CompileOptions(precision="f32", attention=attention))
    try:
        (output,) = program.run(inputs).values()
        return output.copy()
    finally:
        program.close()


@pytest.mark.parametrize("form", FORMATS)
def test_flux_with_two_loras_is_the_published_one(executor: Executor, tmp_path: Path, form: str) -> None:
    """Every layer there is, modulation and the last one's swapped halves included, and the pieces of fused matrices."""
    source, expected = ArraySource(g.random_weights(g.flux_shapes(False)), form), golden("flux_schnell")
    beside = adapters(tmp_path, "diffusion", ("flux, all layers", "flux, queries"), source)
    w = Weights(source).with_adapters(beside)
    cfg = flux.FluxConfig.from_weights(w)
    steering, step = flux.record_modulation(w, cfg, 1), flux.record(w, cfg, 11, 10, 14)
    assert w.unapplied_adapters() == []
    loads = [executor.load((steering, step), source), executor.load((steering, step), beside)]
    modulation = run(executor, steering, loads, {"timesteps": expected["timesteps"][:1], "pooled": expected["pooled"]})
    inputs = {"modulation": modulation, "positions": flux.positions(11, 5, 7)}
    velocity = run(executor, step, loads, inputs | {name: expected[name] for name in ("latents", "text")})
    assert relative_error(velocity, golden("lora_flux")["velocity"]) < BOUNDS[form]
    assert relative_error(velocity, expected["velocity"][:1]) > 0.3
    for loaded in loads:
        loaded.close()


@pytest.mark.parametrize("form", FORMATS)
def test_a_unet_with_two_loras_is_the_published_one(executor: Executor, tmp_path: Path, form: str) -> None:
    """Every layer there is, convolutions of three kinds included."""
    source, expected = ArraySource(g.unet_weights("sd1"), form), golden("unet_sd1")
    beside = adapters(tmp_path, "unet", ("unet, all layers", "unet, keys"), source)
    w = Weights(source).with_adapters(beside)
    graph = unet.record(w, unet.UnetConfig.from_weights(w), 10, 7, 5, batch=2)
    assert w.unapplied_adapters() == []
    loads = [executor.load((graph,), source), executor.load((graph,), beside)]
    noise = run(executor, graph, loads, step_inputs(expected))
    assert relative_error(noise, golden("lora_unet")["noise"]) < BOUNDS[form]
    assert relative_error(noise, expected["noise"]) > 0.3
    for loaded in loads:
        loaded.close()
