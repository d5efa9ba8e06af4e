"""Latents: sizes by family, the VAE's scale, the order of a token's features."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relight.errors import RequestError
from relight.sampling.latents import FAMILIES, from_vae, image_tokens, latent_shape, pack, sample, start, to_vae, unpack


def test_a_token_is_a_patch_with_features_channel_row_column() -> None:
    latents = np.arange(16 * 4 * 6, dtype=np.float32).reshape(16, 4, 6)
    tokens = pack(latents)
    assert tokens.shape == (6, 64) and tokens.flags.c_contiguous
    row, column, channel, py, px = 1, 2, 5, 1, 0
    assert tokens[row * 3 + column, channel * 4 + py * 2 + px] == latents[channel, 2 * row + py, 2 * column + px]
    assert tokens[4, :5].tolist() == [14, 15, 20, 21, 38]


@given(st.integers(1, 9), st.integers(1, 9))
def test_unpacking_undoes_packing(rows: int, columns: int) -> None:
    latents = np.random.default_rng(0).standard_normal((16, 2 * rows, 2 * columns)).astype(np.float32)
    again = unpack(pack(latents), 2 * rows, 2 * columns)
    assert again.flags.c_contiguous and np.array_equal(again, latents)


def test_odd_latents_and_wrong_token_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="5x4"):
        pack(np.zeros((16, 5, 4), np.float32))
    with pytest.raises(ValueError, match="7 tokens are not latents of 4x6, which are 6"):
        unpack(np.zeros((7, 64), np.float32), 4, 6)


@pytest.mark.parametrize(
    ("width", "height", "shape", "tokens"),
    [
        (1024, 1024, (16, 128, 128), 4096),
        (1024, 512, (16, 64, 128), 2048),
        (64, 4096, (16, 512, 8), 1024),
        (784, 528, (16, 66, 98), 1617),
    ],
)
def test_sizes_of_flux_in_pixels_and_in_tokens(width: int, height: int, shape: tuple[int, ...], tokens: int) -> None:
    assert latent_shape("flux", width, height) == shape
    assert image_tokens(width, height) == tokens
    assert pack(np.zeros(shape, np.float32)).shape == (tokens, 64)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_unets_take_every_eight_pixels(family: str) -> None:
    assert latent_shape(family, 512, 768) == (4, 96, 64)
    assert latent_shape(family, 520, 1000) == (4, 125, 65)
    with pytest.raises(RequestError, match="513x512 .* multiples of 8 from 64 to 4096: the nearest is 512x512"):
        latent_shape(family, 513, 512)


@pytest.mark.parametrize(
    ("width", "height", "nearest"),
    [
        (1000, 700, "1008x704"),
        (1024, 1023, "1024x1024"),
        (0, 512, "64x512"),
        (-5, 48, "64x64"),
        (4112, 1_000_000_000, "4096x4096"),
        (10**30, 512, "4096x512"),
    ],
)
def test_other_sizes_are_refused_with_the_nearest_that_can_be_made(width: int, height: int, nearest: str) -> None:
    with pytest.raises(RequestError) as caught:
        latent_shape("flux", width, height)
    assert str(caught.value).startswith(f"size: {width}x{height} cannot be made; width and height are multiples of 16")
    assert str(caught.value).endswith(f"from 64 to 4096: the nearest is {nearest}")


def test_sampling_starts_as_noisy_as_its_first_sigma() -> None:
    noise = np.full((1, 2), 2, np.float32)
    assert start(noise, 1.0).tolist() == [[2, 2]]
    assert start(noise, 14.5).tolist() == [[29, 29]] and start(noise, 14.5).dtype == np.float32


@pytest.mark.parametrize(
    ("family", "scale", "shift"),
    [("sd1", 0.18215, 0), ("sd2", 0.18215, 0), ("sdxl", 0.13025, 0), ("flux", 0.3611, 0.1159)],
)
def test_the_vae_takes_latents_over_the_scale_plus_the_shift(family: str, scale: float, shift: float) -> None:
    latents = np.array([-1, 0, scale], np.float32)
    np.testing.assert_allclose(to_vae(family, latents), [shift - 1 / scale, shift, shift + 1], rtol=1e-6)
    np.testing.assert_allclose(from_vae(family, to_vae(family, latents)), latents, atol=1e-6)
    assert to_vae(family, latents).dtype == from_vae(family, latents).dtype == np.float32


def test_every_family_has_the_channels_of_its_vae() -> None:
    assert {name: latents.channels for name, latents in FAMILIES.items()} == {"sd1": 4, "sd2": 4, "sdxl": 4, "flux": 16}


def test_encoded_latents_are_drawn_around_their_mean() -> None:
    mean, log_variance = np.full((1, 4, 2, 3), 2, np.float32), np.full((1, 4, 2, 3), np.log(9), np.float32)
    log_variance[0, 0, 0] = [-1000, 1000, 0]
    moments, noise = np.concatenate([mean, log_variance], axis=1), np.full((1, 4, 2, 3), 0.5, np.float32)
    drawn = sample(moments, noise)
    assert drawn.shape == (1, 4, 2, 3) and drawn.dtype == np.float32
    assert drawn[0, 1, 0, 0] == pytest.approx(2 + 3 * 0.5)
    assert drawn[0, 0, 0].tolist() == pytest.approx([2, 2 + np.exp(10) / 2, 2.5])
    assert np.array_equal(sample(moments, None), mean)
