"""Budgets of single components: refused with both numbers, or met by smaller tiles and another executor."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from relight.errors import DoesNotFit
from relight.executors.base import MemoryUse
from relight.jobs.budgets import MARGIN, Budget, Within
from relight.planner.placement import Placement, place

MIB = 1 << 20
WEIGHTS = {"diffusion": 4649, "modulation": 1813, "clip_l": 235, "t5xxl": 9084, "vae": 95, "vae_encoder": 65}
TILES = (128, 64, 32, 16)


def measure(component: str, device: str, sizes: Mapping[str, int]) -> MemoryUse:
    """FLUX.1 in Q4_K at 1024x1024: MiB on ggml; OpenVINO keeps the autoencoder's weights twice."""
    if component in ("vae", "vae_encoder"):
        times = 2 if device == "cpu" else 1
        return MemoryUse(times * WEIGHTS[component] * MIB, 44 * MIB * sizes["tile"] ** 2 // 256)
    return MemoryUse(WEIGHTS[component] * MIB, {"diffusion": 417 * MIB}.get(component, MIB))


def on_gpu(mib: float, *components: str) -> Within:
    return Within([Budget(components, True, int(mib * MIB), "relight.yaml:9: vram_budget")], measure)


def on_cpu(mib: float, *components: str) -> Within:
    return Within([Budget(components, False, int(mib * MIB), "relight.yaml:9: ram_budget")], measure)


def placed(within: Within, budget_gib: float = 16, **wanted: str) -> Placement:
    everything = dict.fromkeys(("clip_l", "t5xxl", "modulation", "diffusion", "vae"), "auto") | wanted
    limit = int(budget_gib * 1024 * MIB)
    return place(everything, gpu="vulkan0", budget=limit, tiles=TILES, tile=None, measure=within)


def test_what_needs_more_is_refused_with_both_numbers() -> None:
    with pytest.raises(DoesNotFit) as caught:
        on_gpu(4096, "diffusion")("diffusion", "vulkan0", {})
    assert "relight.yaml:9: vram_budget allows 4.00 GiB, and 4.95 GiB are needed" in str(caught.value)
    assert "(diffusion 4.54 GiB + 0.41 GiB; weights + buffer)" in str(caught.value)


def test_weights_alone_within_the_budget_are_not_enough() -> None:
    with pytest.raises(DoesNotFit):
        on_gpu(4800, "diffusion")("diffusion", "vulkan0", {})


def test_a_budget_is_passed_by_more_than_the_error_of_what_is_known() -> None:
    """The published recipe gives CLIP-L 235 MB, which its weights take without their buffer."""
    assert on_gpu(235, "clip_l")("clip_l", "vulkan0", {}).total == 236 * MIB
    with pytest.raises(DoesNotFit):
        on_gpu(236 / (1 + MARGIN) - 0.1, "clip_l")("clip_l", "vulkan0", {})


def test_a_budget_holds_on_its_own_side_alone() -> None:
    assert on_gpu(1, "clip_l")("clip_l", "cpu", {}).total == 236 * MIB
    assert on_cpu(1, "clip_l")("clip_l", "vulkan0", {}).total == 236 * MIB
    assert on_gpu(1, "clip_l")("diffusion", "vulkan0", {}).total == 5066 * MIB


def test_what_was_told_to_go_to_the_gpu_is_refused_and_not_moved() -> None:
    with pytest.raises(DoesNotFit, match="vram_budget allows 4.00 GiB"):
        placed(on_gpu(4096, "diffusion", "modulation"), diffusion="vulkan0")


def test_the_modulation_stays_off_the_card_where_it_would_pass_the_budget() -> None:
    within, roomy = on_gpu(6656, "diffusion", "modulation"), on_gpu(8192, "diffusion", "modulation")
    assert placed(within, diffusion="vulkan0").device["modulation"] == "cpu"
    assert placed(roomy, diffusion="vulkan0").device["modulation"] == "vulkan0"


def test_tiles_on_the_card_are_as_small_as_the_budget_takes() -> None:
    found = placed(on_gpu(300, "vae", "vae_encoder"), diffusion="vulkan0", vae="vulkan0")
    assert (found.device["vae"], found.tile) == ("vulkan0", 32)


@pytest.mark.parametrize(
    ("mib", "device", "tile"), [(4000, "cpu", 128), (1000, "cpu", 64), (240, "cpu", 16), (160, "ggml-cpu", 16)]
)
def test_on_the_cpu_tiles_shrink_before_another_executor_is_taken(mib: int, device: str, tile: int) -> None:
    within = on_cpu(mib, "vae")
    start = placed(within, vae="cpu", diffusion="vulkan0")
    found = within.on_cpu(start, TILES, ())
    assert (found.device["vae"], found.tile) == (device, tile)


def test_what_takes_too_much_of_the_memory_is_refused() -> None:
    within = on_cpu(4096, "t5xxl")
    with pytest.raises(DoesNotFit, match="ram_budget allows 4.00 GiB, and 8.87 GiB are needed"):
        within.on_cpu(placed(within), TILES, ())
    small = on_cpu(100, "vae")
    with pytest.raises(DoesNotFit, match="ram_budget allows 100.0 MiB, and 0.14 GiB are needed"):
        small.on_cpu(placed(small, vae="cpu"), TILES, ())


def test_what_is_known_from_before_needs_no_memory() -> None:
    within = on_cpu(4096, "t5xxl")
    start = placed(within)
    assert within.on_cpu(start, TILES, {"t5xxl"}) == start
