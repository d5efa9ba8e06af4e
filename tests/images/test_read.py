"""Pictures others made: every kind is read, what is hostile or broken is refused in words."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from relight.errors import RequestError
from relight.images.read import read_image, read_mask

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
RED, WHITE = (255, 0, 0), (255, 255, 255)


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and holds nothing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + bytes(4) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_a_picture_is_read_pixel_by_pixel_from_a_path_and_from_bytes(tmp_path: Path, format: str) -> None:
    content = saved(Image.fromarray(PIXELS), format, lossless=True)
    (tmp_path / "a").write_bytes(content)
    for source in (content, tmp_path / "a", str(tmp_path / "a")):
        image = read_image(source)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, PIXELS)


def test_a_jpeg_is_turned_upright() -> None:
    lying = Image.new("RGB", (32, 16), "white")
    lying.paste(RED, (0, 0, 16, 16))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned clockwise: its left is the top
    image = read_image(saved(lying, "JPEG", exif=exif, quality=100))
    assert image.shape == (32, 16, 3)
    assert image[:12, :, 1].max() < 40 and image[20:, :, 1].min() > 215


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_white_on_black_is_read_from_every_mode(mode: str) -> None:
    picture = Image.new("RGB", (8, 8), "black")
    picture.paste(WHITE, (4, 0, 8, 8))
    image = read_image(saved(picture.convert(mode)))
    assert (image[:, :4] == 0).all() and (image[:, 4:] == 255).all()


def test_a_jpeg_in_printers_colours_is_read() -> None:
    image = read_image(saved(Image.new("RGB", (8, 8), RED).convert("CMYK"), "JPEG", quality=100))
    assert abs(image.astype(int) - RED).max() < 30


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    grey = np.array([[0, 0x1234, 0x8000, 0xFFFF]], np.uint16)
    image = read_image(saved(Image.fromarray(grey)))
    np.testing.assert_array_equal(image[0, :, 0], [0, 0x12, 0x80, 0xFF])
    np.testing.assert_allclose(read_mask(saved(Image.fromarray(grey)))[0], [0, 0x12 / 255, 0x80 / 255, 1])


def test_what_is_transparent_is_white() -> None:
    picture = Image.new("RGBA", (3, 1), (*RED, 255))
    picture.putpixel((1, 0), (*RED, 0))
    picture.putpixel((2, 0), (*RED, 51))
    np.testing.assert_array_equal(read_image(saved(picture))[0], [RED, WHITE, (255, 204, 204)])


def test_a_palettes_transparent_colour_counts() -> None:
    picture = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    picture.putpalette([255, 0, 0, 0, 0, 255])
    np.testing.assert_array_equal(read_image(saved(picture, transparency=1))[0], [RED, WHITE])


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_white_in_a_mask_is_painted_anew(mode: str) -> None:
    picture = Image.new("L", (4, 2), 0)
    picture.paste(255, (0, 0, 1, 2))
    mask = read_mask(saved(picture.convert("RGB").convert(mode)))
    assert mask.dtype == np.float32 and mask.tolist() == [[1, 0, 0, 0]] * 2


def test_greys_of_a_mask_are_kept() -> None:
    assert read_mask(saved(Image.new("L", (1, 1), 51)))[0, 0] == pytest.approx(0.2)


def test_in_a_mask_with_transparency_the_strokes_count() -> None:
    layer = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    layer.putpixel((1, 0), (0, 0, 0, 255))
    layer.putpixel((2, 0), (0, 0, 0, 51))
    assert read_mask(saved(layer)).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize(("width", "height"), [(12_000, 12_000), (60_000, 60_000), (10_001, 5_000)])
def test_too_many_pixels_are_refused_before_they_are_unpacked(width: int, height: int) -> None:
    with pytest.raises(RequestError, match="^init image: .*more than|^init image: .*at most 50,000,000"):
        read_image(bomb(width, height), "init image")


def test_a_caller_may_set_a_smaller_limit() -> None:
    with pytest.raises(RequestError, match="7x5 are 35 pixels; at most 34 "):
        read_image(saved(Image.fromarray(PIXELS)), most_pixels=34)


def test_a_file_too_long_is_not_opened(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(200 << 20)
    with pytest.raises(RequestError, match="200 MiB; at most 128"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"<svg/>", saved(Image.new("RGB", (2, 2)), "BMP")])
def test_other_formats_are_refused(content: bytes) -> None:
    with pytest.raises(RequestError, match="^mask: neither PNG nor JPEG nor WebP"):
        read_mask(content, "mask")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_file_that_breaks_off_anywhere_is_an_error_or_a_picture(format: str) -> None:
    content = saved(Image.fromarray(PIXELS), format)
    refused = 0
    for length in range(len(content)):
        try:
            assert read_image(content[:length]).shape == PIXELS.shape
        except RequestError as error:
            assert str(error).startswith("image: ")
            refused += 1
    assert refused > len(content) // 3


def test_a_flipped_byte_anywhere_is_an_error_or_a_picture() -> None:
    rng = np.random.default_rng(0)
    content = saved(Image.fromarray(PIXELS).convert("P"), transparency=3)
    for at in range(len(content)):
        broken = bytearray(content)
        broken[at] ^= int(rng.integers(1, 256))
        try:
            assert read_image(bytes(broken), most_pixels=10_000).ndim == 3
        except RequestError as error:
            assert str(error).startswith("image: ")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(RequestError, match="^image: .*(No such file|Is a directory|Permission)"):
            read_image(path)
