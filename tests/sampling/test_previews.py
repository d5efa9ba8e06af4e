from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from relight.sampling.previews import FACTORS, enlarged, jpeg, preview

CHANNELS = {"sd1": 4, "sd2": 4, "sdxl": 4, "flux": 16}
GREY = {"sd1": [128, 128, 128], "sd2": [128, 128, 128], "sdxl": [141, 125, 127], "flux": [123, 118, 117]}
FIRST = {"sd1": [217, 186, 210], "sd2": [217, 186, 210], "sdxl": [234, 233, 238], "flux": [114, 125, 134]}
LAST = {"sd1": [73, 61, 0], "sd2": [73, 61, 0], "sdxl": [61, 62, 72], "flux": [91, 93, 97]}


@pytest.mark.parametrize("family", CHANNELS)
def test_colours_are_those_of_the_published_factors(family: str) -> None:
    """Of latents of nothing, of twice the first channel alone, and of twice the last: (colour + 1) * 127.5, rounded."""
    latents = np.zeros((CHANNELS[family], 1, 3), np.float32)
    latents[0, 0, 1] = latents[-1, 0, 2] = 2
    assert preview(latents, family).tolist() == [[GREY[family], FIRST[family], LAST[family]]]


@pytest.mark.parametrize("family", CHANNELS)
def test_constant_latents_are_one_colour(family: str) -> None:
    latents = np.ones((CHANNELS[family], 5, 7), np.float32) * np.linspace(-1, 1, CHANNELS[family])[:, None, None]
    image = preview(latents, family)
    assert (image.shape, image.dtype) == ((5, 7, 3), np.uint8)
    assert (image == image[0, 0]).all()


def test_rows_and_columns_stay_where_they_are() -> None:
    latents = np.zeros((4, 3, 5), np.float32)
    latents[:3, 2, 1] = 5
    assert np.argwhere((preview(latents, "sd1") > 200).all(-1)).tolist() == [[2, 1]]


@pytest.mark.parametrize("family", CHANNELS)
def test_noise_is_seen_in_every_channel(family: str) -> None:
    noise = np.random.RandomState(1).standard_normal((CHANNELS[family], 32, 32)).astype(np.float32)
    whole = preview(noise, family)
    assert (whole.reshape(-1, 3).std(0) > 20).all()
    for channel in range(CHANNELS[family]):
        without = noise.copy()
        without[channel] = 0
        assert (preview(without, family) != whole).any()


def test_values_that_are_no_numbers_are_shown() -> None:
    latents = np.zeros((4, 1, 3), np.float32)
    latents[0, 0] = np.nan, np.inf, -np.inf
    assert preview(latents, "sd1").tolist() == [[[128] * 3, [255] * 3, [0] * 3]]


def test_other_families_and_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="no preview of family sd3: there are factors for sd1, sd2, sdxl, flux"):
        preview(np.zeros((16, 2, 2), np.float32), "sd3")
    with pytest.raises(ValueError, match=r"a preview of flux takes latents \[16 h w\], not \[4, 2, 2\]"):
        preview(np.zeros((4, 2, 2), np.float32), "flux")


def test_every_family_has_factors_for_its_channels() -> None:
    assert {family: len(factors) for family, (factors, _) in FACTORS.items()} == CHANNELS


def test_enlarged_previews_are_smooth_and_keep_their_colours() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, 3:] = 200, 100, 50
    shown = enlarged(image, 48, 32)
    assert (shown.shape, shown.dtype) == ((32, 48, 3), np.uint8)
    assert shown[16, 2].tolist() == [0, 0, 0] and shown[16, 46].tolist() == [200, 100, 50]
    assert 50 < shown[16, 24, 0] < 150


def test_jpegs_hold_the_picture_in_fewer_bytes_for_less_quality() -> None:
    image = np.random.RandomState(2).randint(0, 256, (16, 24, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    fine, coarse = jpeg(image, 95), jpeg(image, 20)
    assert len(coarse) < len(fine) / 2
    read = np.asarray(Image.open(io.BytesIO(fine)))
    assert read.shape == image.shape
    assert np.abs(read.astype(int) - image).mean() < 12
