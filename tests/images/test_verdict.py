"""Every ruin is found, and no picture that somebody may have asked for is called one.

Latents are real ones of a published autoencoder (golden/make_latents.py), so that pictures and latents belong together.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pictures
from relight.images.region import Region
from relight.images.verdict import Verdict, judge_latents, judge_numbers, judge_picture

STEP = np.float32(1 / 4)
STORED = np.load(Path(__file__).parent / "pictures_latents.npz")
LATENTS = {name: STORED[name] * STEP for name in STORED.files if not name.endswith("decoded")}
SIDE, TILE = 192, 112
TILES = [Region(x, y, x + TILE, y + TILE) for y in (0, SIDE - TILE) for x in (0, SIDE - TILE)]
DRAWN = dict(pictures.every(SIDE)) | {
    name.removesuffix(", decoded"): STORED[name] for name in STORED.files if name.endswith("decoded")
}
PICTURES = {name: DRAWN[name] for name in LATENTS if name in DRAWN}
PLAIN = [name for name in LATENTS if name.startswith("plain")]
LATENT_NOISE = [name for name in LATENTS if name.endswith("100% noise")]

FORMLESS = ["half_black", "moon", "star_field", "static", "fog", "flat_shapes", "black_square", "wallpaper 128"]
"""In their lower right, or all over, there is too little to be missed."""
FORMED = [name for name in PICTURES if name not in FORMLESS and "noise" not in name]
PERIODIC = ["checkers 8", "checkers 16", "stripes 16"]
"""Their tiles are the same anyway."""


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def certain(verdict: Verdict | None, *kinds: str) -> bool:
    return verdict is not None and verdict.certain and verdict.kind in kinds


def with_tile(picture: np.ndarray, number: int, content: np.ndarray | int) -> np.ndarray:
    changed = picture.copy()
    TILES[number].crop(changed)[:] = content
    return changed


def blended(picture: np.ndarray, number: int, level: int) -> np.ndarray:
    """A tile of one colour, faded into its neighbours where they overlap."""
    weight, ramp = np.ones(TILE), np.linspace(0, 1, 2 * TILE - SIDE)
    weight[: len(ramp)] = ramp
    across, down = (weight if side else weight[::-1] for side in (number % 2, number // 2))
    mask = (down[:, None] * across)[..., None]
    part = TILES[number].crop(picture)
    return with_tile(picture, number, np.rint(part * (1 - mask) + level * mask).astype(np.uint8))


# Nothing is cried over


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_and_its_latents_are_fine(name: str) -> None:
    assert judge_picture(PICTURES[name], LATENTS[name], TILES) is None
    assert judge_picture(PICTURES[name], LATENTS[name]) is None


@pytest.mark.parametrize("name", [name for name in LATENTS if "noise" not in name])
def test_latents_of_any_picture_are_fine(name: str) -> None:
    assert judge_latents(LATENTS[name]) is None


@pytest.mark.parametrize("size", [192, 256, 520])
def test_without_latents_no_drawing_and_no_emoji_is_even_warned_of(size: int) -> None:
    warned = {name: judge_picture(picture) for name, picture in pictures.every(size) if not name.startswith("emoji")}
    assert {name: verdict for name, verdict in warned.items() if verdict} == {}


@pytest.mark.parametrize("size", [128, 384])
def test_all_emoji_are_fine(size: int) -> None:
    assert [i for i, picture in enumerate(pictures.emoji(size)) if judge_picture(picture)] == []


@pytest.mark.parametrize("name", PLAIN)
def test_a_picture_of_one_colour_is_only_warned_of_when_its_latents_are_so_too(name: str) -> None:
    level = int(name.split()[1])
    for latents in (LATENTS[name], None):
        verdict = judge_picture(np.full((SIDE, SIDE, 3), level, np.uint8), latents, TILES)
        assert verdict is not None and not verdict.certain
        assert verdict.kind == ("flat" if level else "black")


# Ruined pictures


@pytest.mark.parametrize(("level", "kind"), [(0, "black"), (255, "flat"), (127, "flat")])
@pytest.mark.parametrize("name", ["photograph", "neon", "emoji 0", "mosaic", "gravel"])
def test_one_colour_where_latents_vary_is_certain(name: str, level: int, kind: str) -> None:
    ruined = np.full((SIDE, SIDE, 3), level, np.uint8)
    verdict = judge_picture(ruined, LATENTS[name])
    assert certain(verdict, kind)
    assert judge_picture(ruined + (noise(SIDE, SIDE, 3) & 1), LATENTS[name]) is not None, "a little noise hides nothing"


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("ruin", [with_tile, blended])
def test_a_dead_tile_is_found_and_named(ruin: Callable[[np.ndarray, int, int], np.ndarray], number: int) -> None:
    for name in ("photograph", "neon", "mosaic", "halftone"):
        verdict = judge_picture(ruin(PICTURES[name], number, 0), LATENTS[name], TILES)
        assert certain(verdict, "tile"), name
        assert verdict is not None and verdict.message.startswith(f"tile {number + 1} of 4 is of one colour"), name


@pytest.mark.parametrize("name", FORMED)
def test_a_tile_of_garbage_is_found(name: str) -> None:
    ruined = with_tile(PICTURES[name], 3, noise(TILE, TILE, 3))
    assert certain(judge_picture(ruined, LATENTS[name], TILES), "tile", "unrelated")


@pytest.mark.parametrize("name", [name for name in FORMED if name not in PERIODIC])
def test_a_tile_that_is_another_again_is_found(name: str) -> None:
    ruined = with_tile(PICTURES[name], 3, TILES[0].crop(PICTURES[name]))
    assert certain(judge_picture(ruined, LATENTS[name], TILES), "repeated", "tile")


def test_tiles_that_are_the_same_are_named() -> None:
    photograph = PICTURES["photograph"]
    ruined = with_tile(photograph, 3, TILES[0].crop(photograph))
    verdict = judge_picture(ruined, LATENTS["photograph"], TILES)
    assert certain(verdict, "repeated")
    assert verdict is not None and verdict.message.startswith("tiles 1 and 4 of 4 are the same")


@pytest.mark.parametrize("name", FORMED)
def test_noise_where_a_picture_was_to_be_decoded_is_certain(name: str) -> None:
    assert certain(judge_picture(noise(SIDE, SIDE, 3), LATENTS[name]), "unrelated")


def test_another_picture_than_the_latents_is_garbled() -> None:
    assert certain(judge_picture(PICTURES["photograph"], LATENTS["sprinkles"]), "unrelated")
    assert certain(judge_picture(PICTURES["sprinkles"][:, ::-1].copy(), LATENTS["sprinkles"]), "unrelated")


def test_a_picture_of_coloured_noise_alone_is_warned_of() -> None:
    for size in (256, 512):
        verdict = judge_picture(noise(size, size, 3))
        assert verdict is not None and (verdict.kind, verdict.certain) == ("noise", False)


def test_colours_thrown_to_their_limits_are_warned_of() -> None:
    field = np.stack([pictures.natural(256, 0.4, seed) for seed in range(3)], axis=-1)
    verdict = judge_picture(((field > 128) * 255).astype(np.uint8))
    assert verdict is not None and (verdict.kind, verdict.certain) == ("saturated", False)


def test_tiles_in_one_piece_are_not_looked_for() -> None:
    assert judge_picture(PICTURES["photograph"], LATENTS["photograph"], [Region(0, 0, SIDE, SIDE)]) is None


def test_latents_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(24, 8\)"):
        judge_picture(PICTURES["photograph"], LATENTS["photograph"][..., :8])


# Ruined latents


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_no_number_is_certain(value: float) -> None:
    latents = LATENTS["photograph"].copy()
    latents[2, 3, 4] = value
    verdict = judge_latents(latents)
    assert certain(verdict, "numbers")
    assert verdict is not None and verdict.message == "1 of 18,432 values of the latents are NaN or infinite"


def test_a_decoders_floats_are_looked_through_too() -> None:
    picture = np.zeros((3, 8, 8), np.float32)
    assert judge_numbers(picture) is None
    picture[0] = np.nan
    assert certain(judge_numbers(picture), "numbers")


@pytest.mark.parametrize(("scale", "expected"), [(1, None), (2.5, None), (6, False), (12, True), (1e6, True)])
def test_latents_too_large_are_warned_of_and_then_certain(scale: float, expected: bool | None) -> None:
    verdict = judge_latents(LATENTS["photograph"] * np.float32(scale))
    assert (verdict and (verdict.kind, verdict.certain)) == (None if expected is None else ("range", expected))


def test_constant_latents_are_certain() -> None:
    latents = np.full((4, 64, 64), 0.3, np.float32)
    assert certain(judge_latents(latents), "constant")
    latents[0, 0] = 1.0
    assert judge_latents(latents) is None


@pytest.mark.parametrize("shape", [(4, 16, 16), (4, 64, 64), (16, 128, 96), (32, 24, 40)])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
def test_a_generators_noise_is_certain(shape: tuple[int, ...], sigma: float) -> None:
    for seed in range(20):
        made = np.random.default_rng(seed).standard_normal(shape, np.float32) * np.float32(sigma)
        assert certain(judge_latents(made), "noise")


@pytest.mark.parametrize("name", LATENT_NOISE)
def test_decoded_noise_is_known_by_its_latents(name: str) -> None:
    """Its picture has forms, as foliage does."""
    assert certain(judge_latents(LATENTS[name]), "noise")
    assert judge_picture(PICTURES[name], LATENTS[name]) is None


def test_a_small_rest_of_the_picture_is_a_warning() -> None:
    latents = LATENTS["photograph"]
    mixed = 0.2 * latents + 0.8 * np.random.default_rng(0).standard_normal(latents.shape)
    verdict = judge_latents(mixed.astype(np.float32))
    assert verdict is not None and verdict.kind == "noise"


def test_noise_that_is_uneven_between_channels_is_a_picture_of_static() -> None:
    static = np.random.default_rng(0).standard_normal((4, 64, 64), np.float32)
    static *= np.array([0.4, 0.9, 0.6, 1.2], np.float32)[:, None, None]
    assert judge_latents(static) is None
