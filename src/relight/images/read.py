"""Pictures and masks from files or bytes that others made: limits before anything is unpacked, then plain arrays.

Only PNG, JPEG and WebP are opened; of an animation, the first frame. Turned upright as EXIF says.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from relight.errors import RequestError

FORMATS = ("PNG", "JPEG", "WEBP")
MOST_PIXELS = 50_000_000
"""Telephones take pictures of this size; unpacked they are 200 MB."""
MOST_BYTES = 128 << 20
PAINTED = 128
"""A1111's border between masked and not, in an alpha channel."""

type Source = str | os.PathLike[str] | bytes


def read_image(source: Source, name: str = "image", most_pixels: int = MOST_PIXELS) -> np.ndarray:
    """A picture as uint8 [H W 3]; what is transparent is laid over white.

    `name` is the parameter that messages speak of. Raises RequestError for what is too large, broken or no picture.
    """
    with opened(source, name, most_pixels) as image:
        return np.asarray(over_white(image))


def read_mask(source: Source, name: str = "mask", most_pixels: int = MOST_PIXELS) -> np.ndarray:
    """What is to be painted again as float32 [H W] of 0 to 1: white, or, in a mask with transparent parts, what was
    painted, as A1111 reads it: hard, opaque means more than half. Raises RequestError as `read_image` does.
    """
    with opened(source, name, most_pixels) as image:
        if not transparent(image):
            return np.asarray(eight_bits(image).convert("L"), np.float32) / 255
        return (np.asarray(image.convert("RGBA"))[..., 3] > PAINTED).astype(np.float32)


@contextmanager
def opened(source: Source, name: str, most_pixels: int) -> Iterator[Image.Image]:
    """The picture, upright and decoded, as it lies in the file otherwise."""
    check_bytes(source, name)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            check_pixels(image.width, image.height, name, most_pixels)
            image.load()
            upright = ImageOps.exif_transpose(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RequestError(f"{name}: far more than {most_pixels:,} pixels; make it smaller first") from error
    except UnidentifiedImageError as error:
        raise RequestError(f"{name}: neither PNG nor JPEG nor WebP; convert it to one of them") from error
    except OSError as error:
        raise RequestError(
            f"{name}: cannot be read: {error.strerror or error}; check the path, or save it anew"
        ) from error
    except (ValueError, SyntaxError, EOFError, OverflowError, MemoryError) as error:  # as Pillow meets broken chunks
        raise RequestError(f"{name}: the file is broken; save it anew") from error
    yield upright


def check_bytes(source: Source, name: str) -> None:
    try:
        size = len(source) if isinstance(source, bytes) else os.stat(source).st_size
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RequestError(f"{name}: {os.fspath(source)!r} cannot be read: {reason}") from error
    if size > MOST_BYTES:
        raise RequestError(
            f"{name}: {size / 2**20:.0f} MiB; at most {MOST_BYTES >> 20} MiB are read: make it smaller first"
        )


def check_pixels(width: int, height: int, name: str, most_pixels: int) -> None:
    if width * height > most_pixels:
        raise RequestError(
            f"{name}: {width}x{height} are {width * height:,} pixels; at most {most_pixels:,} are read: "
            "make it smaller first"
        )


def transparent(image: Image.Image) -> bool:
    """Whether any pixel is less than opaque."""
    return image.has_transparency_data and image.convert("RGBA").getextrema()[-1] != (255, 255)


def over_white(image: Image.Image) -> Image.Image:
    if not transparent(image):
        return eight_bits(image).convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def eight_bits(image: Image.Image) -> Image.Image:
    """Greyscale of 16 bits in eight, which Pillow's own conversion would clip instead of scale."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
