"""Seconds by the model: against what was measured on the calibrated device, and how they follow the rates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from relight.executors.base import CompileOptions
from relight.executors.null import flops
from relight.jobs import models
from relight.planner import rates
from relight.planner.cost import Lowering, largest_tensor
from relight.planner.networks import Networks
from relight.planner.profiles import PROFILES

AUTO, IM2COL = CompileOptions(), CompileOptions(convolution="im2col")
CHUNKED = CompileOptions(attention="chunked")


@pytest.fixture(scope="module")
def networks(full_models: Path) -> Iterator[dict[str, Networks]]:
    files = {name: models.model_files(str(full_models / name), {}) for name in ("flux", "sd15.safetensors")}
    opened = {name.partition(".")[0]: Networks(found, 132) for name, found in files.items()}
    yield opened
    for each in opened.values():
        each.__exit__(None, None, None)


def flux(side: int) -> dict[str, int]:
    return {"text_tokens": 256, "latent_height": side // 8, "latent_width": side // 8}


def unet(rows: int) -> dict[str, int]:
    return {"text_tokens": 77, "latent_height": 64, "latent_width": 64, "batch": rows}


def tile(size: int) -> dict[str, int]:
    return {"latent_height": size, "latent_width": size, "tile": size}


@pytest.mark.parametrize(
    ("model", "component", "sizes", "options", "runs", "measured"),
    [
        ("flux", "diffusion", flux(1024), AUTO, 1, 2.636),
        ("flux", "diffusion", flux(768), AUTO, 1, 1.454),
        ("flux", "diffusion", flux(512), AUTO, 1, 0.765),
        ("flux", "diffusion", flux(1024), CHUNKED, 1, 2.767),
        ("sd15", "diffusion", unet(1), AUTO, 1, 0.086),
        ("sd15", "diffusion", unet(2), AUTO, 1, 0.123),
        ("sd15", "diffusion", unet(2), IM2COL, 1, 0.140),
        ("flux", "vae", tile(72), AUTO, 4, 0.64),
        ("flux", "vae", tile(128), AUTO, 1, 0.50),
    ],
)
def test_the_calibrated_device_is_met_within_15_percent(
    networks: dict[str, Networks],
    model: str,
    component: str,
    sizes: dict[str, int],
    options: CompileOptions,
    runs: int,
    measured: float,
) -> None:
    """docs/measurements.md, the H100 held to Polaris features."""
    found = networks[model].cost(component, "vulkan0", rates.H100_AS_POLARIS, sizes, options)
    assert runs * found.seconds == pytest.approx(measured, rel=0.15)


def test_each_kind_of_work_follows_its_own_rate(networks: dict[str, Networks]) -> None:
    card = rates.of_card(PROFILES["rx580-8g"])
    twice = replace(card, source="twice", matrix={form: 2 * rate for form, rate in card.matrix.items()})
    before, after = (networks["flux"].cost("diffusion", "vulkan0", r, flux(512), AUTO).by_kind for r in (card, twice))
    assert after["matrix"] == pytest.approx(before["matrix"] / 2, rel=0.01)
    assert {k: v for k, v in after.items() if k != "matrix"} == {k: v for k, v in before.items() if k != "matrix"}


def test_a_gpu_and_a_cpu_choose_attention_by_their_own_rule(networks: dict[str, Networks]) -> None:
    card = rates.of_card(PROFILES["rx580-8g"])
    flash = replace(card, source="flash", attention={"flash": 1e9, "chunked": 1e15})
    on_gpu = networks["flux"].cost("diffusion", "vulkan0", flash, flux(512), AUTO).by_kind["attention"]
    on_cpu = networks["flux"].cost("diffusion", "ggml-cpu", flash, flux(512), AUTO).by_kind["attention"]
    assert on_gpu > 100 * on_cpu


def test_the_largest_tensor_of_a_decode_by_columns_is_its_columns(networks: dict[str, Networks]) -> None:
    graph = networks["flux"].graph("vae", tile(128))
    assert largest_tensor(graph, Lowering(AUTO, True)) == 4 * 256 * 1024 * 1024  # 256 channels at full size
    assert largest_tensor(graph, Lowering(IM2COL, True)) == 2 * 9 * 256 * 1024 * 1024  # 3x3 of each in F16


@pytest.mark.parametrize(
    ("description", "card"),
    [
        ("AMD Radeon RX 580 Series (RADV POLARIS10)", "rx580-8g"),
        ("Radeon RX 580 2048SP", "rx580-8g"),
        ("AMD Radeon RX 470 Graphics (RADV POLARIS10)", "rx470-8g"),
        ("NVIDIA GeForce GTX 1070", "gtx1070-8g"),
        ("NVIDIA GeForce GTX 1060 6GB", "gtx1060-6g"),
        ("Intel(R) Arc(tm) A380 Graphics (DG2)", "arc-a380-6g"),
        ("AMD Radeon RX Vega 56 (RADV VEGA10)", "vega56-8g"),
        ("Quadro P620", None),
    ],
)
def test_cards_are_known_by_what_drivers_call_them(description: str, card: str | None) -> None:
    assert rates.card_named(description) == card


@pytest.mark.parametrize(("side", "tflop"), [(1024, 69.5), (768, 37.6), (512, 17.7)])
def test_a_step_of_flux_computes_what_its_matrices_and_tokens_say(
    networks: dict[str, Networks], side: int, tflop: float
) -> None:
    """57 blocks of 113.2 million weights for each token, and attention over all of them."""
    graph = networks["flux"].graph("diffusion", flux(side))
    tokens = (side // 16) ** 2 + 256
    by_hand = 57 * (2 * 113_246_208 * tokens + 4 * 3072 * tokens**2)
    counted = sum(flops(node) for node in graph.nodes)
    assert counted == pytest.approx(by_hand, rel=0.001) and counted == pytest.approx(tflop * 1e12, rel=0.002)
