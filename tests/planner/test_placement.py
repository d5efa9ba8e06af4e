"""What goes where, with the bytes of FLUX.1 schnell in Q4_K at 1024x1024 as measured on a card, and of Stable Diffusion
1.5 at 512x512 and SDXL at 1024x1024 in F16 as ggml's allocator counts them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

import pytest

from relight.errors import DoesNotFit
from relight.executors.base import MemoryUse
from relight.planner.amounts import GIB, peak
from relight.planner.backends import parse
from relight.planner.placement import Placement, place

TILES = [128, 72, 54, 44, 39, 35, 32]
VAE_BUFFER = {128: 2.5, 72: 0.87, 54: 0.5, 44: 0.35, 39: 0.28, 35: 0.23, 32: 0.2}
FLUX = {"diffusion": (4.54, 0.41), "modulation": (1.8, 0.01), "clip_l": (0.23, 0.01), "t5xxl": (4.7, 0.3)}


def use(weights: float, compute: float) -> MemoryUse:
    return MemoryUse(int(weights * GIB), int(compute * GIB))


def measure(component: str, device: str, sizes: Mapping[str, int]) -> MemoryUse:
    if component == "vae":
        return use(0.18, VAE_BUFFER[sizes["tile"]])
    return use(*FLUX[component])


def wanted(spec: str | None, *names: str) -> dict[str, str]:
    return {name: where for name, where in parse(spec).items() if name in names}


def placed(
    budget: float, spec: str | None = None, *, gpu: str | None = "vulkan0", tile: int | None = None
) -> Placement:
    asked = wanted(spec, *FLUX, "vae")
    return place(asked, gpu=gpu, budget=int(budget * GIB), tiles=TILES, tile=tile, measure=measure)


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
    assert tight.peak_bytes("vulkan0") == peak([measure("diffusion", "", {}), measure("vae", "", {"tile": 72})], False)


@pytest.mark.parametrize("budget", [3, 4])
def test_a_card_too_small_is_refused_with_numbers_and_what_would_fit(budget: float) -> None:
    with pytest.raises(DoesNotFit) as caught:
        placed(budget, "diffusion=vulkan0")
    message = str(caught.value)
    assert "4.95 GiB are needed on vulkan0 (diffusion 4.54 GiB + 0.41 GiB" in message
    assert f"{budget:.2f} GiB are allowed" in message
    assert f"at most {budget - 0.41:.2f} GiB of diffusion weights" in message
    assert "--backend diffusion=cpu" in message
    assert "smaller picture" not in message and "pixels" not in message  # the weights alone are too large


def test_a_backbone_left_open_goes_to_the_cpu_where_it_does_not_fit_and_the_rest_stays() -> None:
    found = placed(3)
    assert found.device["diffusion"] == "cpu" and on_gpu(found) == {"vae", "clip_l"}
    assert "diffusion runs on the CPU" in found.notes[0] and "4.95 GiB are needed" in found.notes[0]
    assert placed(8).notes == ()


def test_what_is_done_sooner_on_the_cpu_leaves_the_gpu() -> None:
    def seconds(placement: Placement) -> float:
        return 10.0 if placement.device["vae"] == "cpu" else 12.0

    asked = wanted(None, *FLUX, "vae")
    found = place(asked, gpu="vulkan0", budget=8 * GIB, tiles=TILES, tile=None, measure=measure, cost=seconds)
    assert on_gpu(found) == {"diffusion", "clip_l"}
    pinned = place(
        asked | {"vae": "vulkan0"}, gpu="vulkan0", budget=8 * GIB, tiles=TILES, tile=None, measure=measure, cost=seconds
    )
    assert "vae" in on_gpu(pinned)


def test_no_tensor_passes_the_largest_allocation_of_the_card() -> None:
    def largest(component: str, sizes: Mapping[str, int]) -> int:
        return sizes["tile"] << 24 if component == "vae" else GIB // 4

    def limited(spec: str | None, limit: int) -> Placement:
        return place(
            wanted(spec, *FLUX, "vae"),
            gpu="vulkan0",
            budget=8 * GIB,
            tiles=TILES,
            tile=None,
            measure=measure,
            max_allocation=limit,
            largest=largest,
        )

    assert limited(None, 40 << 24).tile == 39
    assert limited(None, 31 << 24).device["vae"] == "cpu"
    assert limited(None, GIB // 8).device["diffusion"] == "cpu"
    with pytest.raises(DoesNotFit, match="diffusion has a tensor of 0.25 GiB, and vulkan0 allocates at most 0.12 GiB"):
        limited("diffusion=vulkan0", GIB // 8)


def test_a_smaller_picture_is_named_where_the_weights_fit() -> None:
    with pytest.raises(DoesNotFit, match=r"a picture of at most 57% of the pixels"):
        placed(4.8, "diffusion=vulkan0")


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
    def never(component: str, device: str, sizes: Mapping[str, int]) -> MemoryUse:
        raise AssertionError(component)

    found = place(wanted(None, *FLUX, "vae"), gpu=None, budget=0, tiles=TILES, tile=None, measure=never)
    assert set(found.device.values()) == {"cpu"} and found.tile == 128


def test_a_gpu_that_is_not_wanted_gets_nothing() -> None:
    assert set(placed(24, "cpu").device.values()) == {"cpu"}
    assert placed(24, "cpu").peak_bytes("vulkan0") == 0


def test_diffusion_elsewhere_leaves_the_gpu_to_the_others() -> None:
    assert on_gpu(placed(3, "diffusion=cpu")) == {"vae", "clip_l"}


@pytest.mark.parametrize("budget", [0, -1, 0.001])
def test_no_memory_at_all_is_a_refusal_and_no_crash(budget: float) -> None:
    with pytest.raises(DoesNotFit, match="are allowed"):
        placed(budget, "diffusion=vulkan0")
    assert set(placed(budget).device.values()) == {"cpu"}


def test_small_amounts_are_told_in_mebibytes() -> None:
    def small(component: str, device: str, sizes: Mapping[str, int]) -> MemoryUse:
        return MemoryUse(20 << 20, 5 << 20)

    with pytest.raises(DoesNotFit, match=r"^25\.0 MiB are needed .* and 10\.0 MiB are allowed"):
        place(wanted("vulkan0", "diffusion"), gpu="vulkan0", budget=10 << 20, tiles=TILES, tile=None, measure=small)


# --- Stable Diffusion

GB = 1e9 / GIB
SD_VAE = {128: 2.5, 72: 0.87, 64: 0.688, 56: 0.526, 48: 0.387, 40: 0.269, 32: 0.172}
SD_ENCODER = {128: 1.513, 72: 0.478, 64: 0.378, 56: 0.289, 48: 0.213, 40: 0.148, 32: 0.094}
SD15 = {"diffusion": (1.602, 0.064), "clip_l": (0.229, 0.005)}
SDXL = {"diffusion": (4.785, 0.225), "clip_l": (0.229, 0.005), "clip_g": (1.294, 0.008)}


def measure_sd(
    networks: Mapping[str, tuple[float, float]], component: str, device: str, sizes: Mapping[str, int]
) -> MemoryUse:
    """The backbone's buffer grows with the rows, the autoencoder's with the tile."""
    match component:
        case "vae":
            return use(0.092, SD_VAE[sizes["tile"]])
        case "vae_encoder":
            return use(0.064, SD_ENCODER[sizes["tile"]])
        case "diffusion":
            weights, row = networks[component]
            return use(weights, row * sizes["batch"])
        case "upscaler":
            return use(0.031, 0.6)
    return use(*networks[component])


def placed_sd(
    budget: float,
    spec: str | None = None,
    *,
    networks: Mapping[str, tuple[float, float]] = SD15,
    rows: tuple[int, ...] = (2, 1),
    more: tuple[str, ...] = (),
) -> Placement:
    tiles = [tile for tile in SD_VAE if networks is SDXL or tile <= 64]
    return place(
        wanted(spec, *networks, "vae", *more),
        gpu="vulkan0",
        budget=int(budget * GIB),
        tiles=tiles,
        tile=None,
        measure=partial(measure_sd, networks),
        batches=rows,
    )


def test_sd15_fits_2_6_gb_with_both_passes_in_one_graph() -> None:
    found = placed_sd(2.6 * GB)
    assert {"diffusion", "vae"} <= on_gpu(found) and found.batch == 2 and found.tile == 64
    assert found.peak_bytes("vulkan0") <= 2.6e9


def test_a_card_of_4_gb_holds_all_of_sd15() -> None:
    found = placed_sd(3.75, more=("vae_encoder",))
    assert on_gpu(found) == {"diffusion", "vae", "vae_encoder", "clip_l"} and found.batch == 2 and found.tile == 64


def test_sdxl_at_1024_fits_7_3_gb_with_a_tiled_autoencoder() -> None:
    found = placed_sd(7.3 * GB, networks=SDXL)
    assert {"diffusion", "vae", "clip_l"} <= on_gpu(found) and found.batch == 2 and found.tile < 128
    assert found.peak_bytes("vulkan0") <= 7.3e9
    assert placed_sd(16, networks=SDXL).device == dict.fromkeys(("diffusion", "vae", "clip_l", "clip_g"), "vulkan0")


@pytest.mark.parametrize("budget", [n / 10 for n in range(18, 80, 2)])
def test_no_placement_of_sd_passes_the_budget(budget: float) -> None:
    found = placed_sd(budget, rows=(16, 8, 4, 2, 1), more=("vae_encoder", "upscaler"))
    assert 0 < found.peak_bytes("vulkan0") <= budget * GIB


def test_rows_shrink_until_they_fit() -> None:
    rows = (16, 8, 4, 2, 1)
    room = {budget: placed_sd(budget, "vae=cpu,te=cpu", rows=rows).batch for budget in (1.7, 1.75, 1.9, 2.2, 2.7)}
    assert room == {1.7: 1, 1.75: 2, 1.9: 4, 2.2: 8, 2.7: 16}


def test_more_rows_push_nothing_off_the_gpu_and_shrink_no_tile() -> None:
    few, many = placed_sd(2.7, rows=(1,)), placed_sd(2.7, rows=(16, 8, 4, 2, 1))
    assert on_gpu(few) == {"diffusion", "vae", "clip_l"} and few.tile == 64
    assert many.device == few.device and many.tile == few.tile and 1 < many.batch < 16


def test_on_the_cpu_two_rows_are_enough() -> None:
    assert placed_sd(8, "diffusion=cpu", rows=(16, 8, 4, 2, 1)).batch == 2
    assert placed_sd(8, "cpu", rows=(16, 8, 4, 2, 1)).batch == 2
    assert placed_sd(8, "cpu", rows=(3, 1)).batch == 1


def test_encoder_and_upscaler_join_where_they_fit() -> None:
    more = ("vae_encoder", "upscaler")
    assert {"vae_encoder", "upscaler"} <= on_gpu(placed_sd(3, more=more))
    assert placed_sd(2.35, more=more).device["upscaler"] == "cpu"


@pytest.mark.parametrize("spec", [None, "vae=vulkan0"])
def test_a_tile_is_chosen_for_both_halves_of_the_autoencoder(spec: str | None) -> None:
    alone, both = placed_sd(2.4, spec), placed_sd(2.4, spec, more=("vae_encoder",))
    assert alone.tile == 64 and both.tile == 56
    assert {"vae", "vae_encoder"} <= on_gpu(both)


def test_a_half_left_open_takes_the_tile_of_the_pinned_one() -> None:
    found = placed_sd(2.4, "vae=vulkan0,vae_encoder=auto", more=("vae_encoder",))
    assert found.tile == 64 and found.device["vae_encoder"] == "cpu"
    assert "vae_encoder" in on_gpu(placed_sd(3, "vae=vulkan0,vae_encoder=auto", more=("vae_encoder",)))


def test_ways_out_of_a_refusal_of_sdxl_do_fit_when_taken() -> None:
    pinned = "diffusion=vulkan0,te=vulkan0,vae=vulkan0"
    with pytest.raises(DoesNotFit) as caught:
        placed_sd(5.5, pinned, networks=SDXL, more=("vae_encoder",))
    ways = re.findall(r"--backend (\S+?)(?:,? or |$)", str(caught.value))
    assert "clip_g=cpu" in ways and "vae=cpu" not in ways
    for way in ways:
        found = placed_sd(5.5, f"{pinned},{way}", networks=SDXL, more=("vae_encoder",))
        assert found.peak_bytes("vulkan0") <= 5.5 * GIB
