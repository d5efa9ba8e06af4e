"""Pictures on their way in and out: files, judged by their heads before anything is unpacked."""

from __future__ import annotations

import base64
import binascii
import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from PIL import Image, ImageOps

from relight.gateway.problem import Problem, invalid
from relight.gateway.settings import Limits

Format = Literal["png", "jpeg", "webp"]

FORMATS = ("PNG", "JPEG", "WEBP")
DATA_URL = re.compile(r"data:image/(?:png|jpe?g|webp)(?:;[a-zA-Z0-9=_.-]{1,64})?;base64,", re.IGNORECASE)
SHOWN = ("image/png", "image/jpeg", "image/webp")
"""What a browser may show by itself; everything else is only saved."""
QUALITY = 90
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow raises for files that were made to break it."""


def picture_of_url(url: str, param: str, limits: Limits) -> bytes:
    """The file in a data URL. Raises Problem for one that is elsewhere: nothing is fetched for a client."""
    match = DATA_URL.match(url[:256])
    if match is None:
        if re.match(r"[a-z]+://", url[:32], re.IGNORECASE):
            message = "pictures elsewhere are not fetched; send the picture itself as data:image/png;base64,..."
            raise invalid(param, message, "remote_image")
        raise invalid(param, "is no data URL of a PNG, JPEG or WebP in base64", "invalid_image")
    return picture_of_base64(url[match.end() :], param, limits)


def picture_of_base64(text: str, param: str, limits: Limits) -> bytes:
    """Raises Problem for what is too large, and for what is no picture."""
    if len(text) * 3 // 4 > limits.picture_bytes + 2:
        raise Problem(413, f"{param}: larger than {limits.picture_bytes} bytes", code="picture_too_large", param=param)
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise invalid(param, "is no base64", "invalid_image") from None
    size_of(content, param, limits)
    return content


def size_of(content: bytes, param: str, limits: Limits) -> tuple[int, int]:
    """Width and height as the file's head says. Raises Problem for what is no picture or has too many pixels."""
    with opened(content, param, limits) as image:
        return image.size


@contextmanager
def opened(content: bytes, param: str, limits: Limits) -> Iterator[Image.Image]:
    """The picture, not yet unpacked, of a size that may be."""
    if len(content) > limits.picture_bytes:
        raise Problem(413, f"{param}: larger than {limits.picture_bytes} bytes", code="picture_too_large", param=param)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if max(width, height) > limits.picture_side or width * height > limits.picture_pixels:
                message = f"more than {limits.picture_pixels} pixels, or a side of more than {limits.picture_side}"
                raise invalid(param, message, "image_too_large")
            if getattr(image, "n_frames", 1) > 1:
                raise invalid(param, "has several frames", "invalid_image")
            yield image
    except BROKEN:
        raise invalid(param, "is broken, or neither PNG nor JPEG nor WebP", "invalid_image") from None


def painted_mask(content: bytes, param: str, limits: Limits) -> bytes:
    """OpenAI's mask, transparent where to paint, as relight's: white there. One without transparency is one already."""
    with opened(content, param, limits) as image:
        upright = ImageOps.exif_transpose(image)
        if not upright.has_transparency_data:
            return content
        out = io.BytesIO()
        ImageOps.invert(upright.convert("RGBA").getchannel("A")).save(out, "PNG", compress_level=1)
        return out.getvalue()


def converted(content: bytes, media_type: str, wanted: Format, compression: int | None) -> tuple[bytes, str]:
    """A result in the format that was asked for. `compression`, 0 to 100, is the quality of JPEG and WebP."""
    target = f"image/{wanted}"
    if media_type == target and (wanted == "png" or compression is None):
        return content, target
    with Image.open(io.BytesIO(content)) as image:
        out = io.BytesIO()
        quality = QUALITY if compression is None else max(1, compression)
        image.convert("RGB").save(out, wanted.upper(), quality=quality, exif=image.getexif())
        return out.getvalue(), target


def data_url(content: bytes) -> str:
    kind = "png" if content.startswith(b"\x89PNG") else "webp" if content.startswith(b"RIFF") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
