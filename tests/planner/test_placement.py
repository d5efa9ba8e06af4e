"""What goes where, with the bytes of FLUX.1 schnell in Q4_K at 1024x1024 as measured on a card."""

from __future__ import annotations

import re

import pytest

from relight.errors import DoesNotFit
from relight.executors.base import MemoryUse
from relight.planner.backends import parse
from relight.planner.placement import GIB, Placement, peak, place

TILES = [128, 72, 54, 44, 39, 35, 32]
VAE_BUFFER = {128: 2.5, 72: 0.87, 54: 0.5, 44: 0.35, 39: 0.28, 35: 0.23, 32: 0.2}
FLUX = {"diffusion": (4.54, 0.41), "modulation": (1.8, 0.01), "clip_l": (0.23, 0.01), "t5xxl": (4.7, 0.3)}


def use(weights: float, compute: float) -> MemoryUse:
    return MemoryUse(int(weights * GIB), int(compute * GIB))


def measure(component: str, device: str, tile: int) -> MemoryUse:
    if component == "vae":
        return use(0.18, VAE_BUFFER[tile])
    return use(*FLUX[component])


def placed(
    budget: float, spec: str | None = None, *, gpu: str | None = "vulkan0", tile: int | None = None
) -> Placement:
    return place(parse(spec), gpu=gpu, budget=int(budget * GIB), tiles=TILES, tile=tile, measure=measure)


def on_gpu(placement: Placement) -> set[str]:
    return {name for name, where in placement.device.items() if where == "vulkan0"}


@pytest.mark.parametrize(
    ("budget", "expected", "tile"),
    [
        (5.2, {"diffusion", "vae"}, 44),
        (6, {"diffusion", "vae", "clip_l"}, 72),
        (8, {"diffusion", "vae", "clip_l"}, 72),
        (12, {"diffusion", "vae", "clip_l", "modulation"}, 72),
        (24, {"diffusion", "vae", "clip_l", "modulation"}, 72),
    ],
)
def test_what_the_budget_holds_goes_to_the_gpu(budget: float, expected: set[str], tile: int) -> None:
    found = placed(budget)
    assert on_gpu(found) == expected and found.tile == tile
    assert found.device["t5xxl"] == "cpu"
    assert found.peak_bytes("vulkan0") <= budget * GIB


@pytest.mark.parametrize("budget", [n / 10 for n in range(50, 130)])
def test_no_placement_passes_the_budget(budget: float) -> None:
    assert 0 < placed(budget).peak_bytes("vulkan0") <= budget * GIB


def test_buffers_are_kept_together_only_where_all_of_them_fit() -> None:
    assert placed(8).keep_programs
    tight = placed(5.65)
    assert on_gpu(tight) == {"diffusion", "vae"} and tight.tile == 72
    assert not tight.keep_programs
    assert tight.peak_bytes("vulkan0") == peak([measure("diffusion", "", 0), measure("vae", "", 72)], False)


@pytest.mark.parametrize("budget", [3, 4])
def test_a_card_too_small_is_refused_with_numbers_and_what_would_fit(budget: float) -> None:
    with pytest.raises(DoesNotFit) as caught:
        placed(budget)
    message = str(caught.value)
    assert "4.95 GiB are needed on vulkan0 (diffusion 4.54 GiB + 0.41 GiB" in message
    assert f"{budget:.2f} GiB are allowed" in message
    assert f"at most {budget - 0.41:.2f} GiB of diffusion weights" in message
    assert "--backend diffusion=cpu" in message
    assert "smaller picture" not in message and "pixels" not in message  # the weights alone are too large


def test_a_smaller_picture_is_named_where_the_weights_fit() -> None:
    with pytest.raises(DoesNotFit, match=r"a picture of at most 57% of the pixels"):
        placed(4.8)


PINNED = "diffusion=vulkan0,modulation=vulkan0,clip_l=vulkan0,vae=vulkan0"


def test_pinned_components_stay_where_they_are_put() -> None:
    found = placed(12, "diffusion=vulkan0,clip_l=ggml-cpu,t5xxl=vulkan0,vae=openvino,modulation=cpu")
    assert found.device == {
        "diffusion": "vulkan0",
        "clip_l": "ggml-cpu",
        "t5xxl": "vulkan0",
        "vae": "openvino",
        "modulation": "cpu",
    }
    assert found.tile == 128


def test_a_pinned_vae_takes_the_largest_tile_that_fits_beside_the_rest() -> None:
    assert placed(12, "vae=vulkan0").tile == 72
    tight = placed(5.2, "vae=vulkan0")
    assert tight.tile == 44 and on_gpu(tight) == {"vae", "diffusion"}


def test_ways_out_of_a_refusal_do_fit_when_taken() -> None:
    budget = 5.5
    with pytest.raises(DoesNotFit) as caught:
        placed(budget, PINNED)
    ways = re.findall(r"--backend (\S+?)(?:,? or |$)", str(caught.value))
    assert "modulation=cpu" in ways and "vae=cpu" not in ways
    for way in ways:
        assert placed(budget, f"{PINNED},{way}").peak_bytes("vulkan0") <= budget * GIB


def test_several_components_are_moved_together_where_one_is_not_enough() -> None:
    with pytest.raises(DoesNotFit, match=r"--backend modulation=cpu,clip_l=cpu,vae=cpu"):
        placed(4.96, PINNED)


def test_a_tile_named_by_the_user_is_used_as_it_is() -> None:
    assert placed(12, tile=32).tile == 32
    assert placed(12, "vae=vulkan0", tile=128).tile == 128
    assert placed(12, "cpu", tile=32).tile == 32
    without_room = placed(6, tile=128)
    assert without_room.tile == 128 and without_room.device["vae"] == "cpu"


def test_without_a_gpu_all_is_on_the_cpu_and_nothing_is_measured() -> None:
    def never(component: str, device: str, tile: int) -> MemoryUse:
        raise AssertionError(component)

    found = place(parse(None), gpu=None, budget=0, tiles=TILES, tile=None, measure=never)
    assert set(found.device.values()) == {"cpu"} and found.tile == 128


def test_a_gpu_that_is_not_wanted_gets_nothing() -> None:
    assert set(placed(24, "cpu").device.values()) == {"cpu"}
    assert placed(24, "cpu").peak_bytes("vulkan0") == 0


def test_diffusion_elsewhere_leaves_the_gpu_to_the_others() -> None:
    assert on_gpu(placed(3, "diffusion=cpu")) == {"vae", "clip_l"}


@pytest.mark.parametrize("budget", [0, -1, 0.001])
def test_no_memory_at_all_is_a_refusal_and_no_crash(budget: float) -> None:
    with pytest.raises(DoesNotFit, match="are allowed"):
        placed(budget)


def test_small_amounts_are_told_in_mebibytes() -> None:
    def small(component: str, device: str, tile: int) -> MemoryUse:
        return MemoryUse(20 << 20, 5 << 20)

    with pytest.raises(DoesNotFit, match=r"^25\.0 MiB are needed .* and 10\.0 MiB are allowed"):
        place(parse(None), gpu="vulkan0", budget=10 << 20, tiles=TILES, tile=None, measure=small)
