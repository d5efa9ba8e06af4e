"""A finished picture as the bytes of a file, with its settings where A1111 keeps them, and those read again."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from relight.errors import RequestError
from relight.images.read import MOST_PIXELS, Source, opened

type Format = Literal["png", "jpeg", "webp"]

FORMATS: tuple[Format, ...] = ("png", "jpeg", "webp")
PARAMETERS = "parameters"
"""The text chunk of a PNG."""
UNICODE = b"UNICODE\0"
"""How EXIF marks a comment in UTF-16; A1111's is big-endian."""
LONGEST_COMMENT = 60_000
"""Bytes: a JPEG's EXIF must go into one segment of 64 KiB."""
QUALITY = 90


def encoded(image: np.ndarray, parameters: str = "", format: Format = "png", quality: int = QUALITY) -> bytes:
    """uint8 [H W 3] as a file; `quality`, 1 to 100, is of JPEG and WebP. Settings too long for EXIF are left out there.

    Raises RequestError for a format or quality there is not.
    """
    if format not in FORMATS:
        raise RequestError(f"output format: there is no {format!r}; there are {', '.join(FORMATS)}")
    if not 1 <= quality <= 100:
        raise RequestError(f"output quality: {quality} is not between 1 and 100")
    out = io.BytesIO()
    picture = Image.fromarray(image)
    if format == "png":
        picture.save(out, "PNG", pnginfo=chunk(parameters))
    else:
        picture.save(out, format.upper(), quality=quality, exif=comment(parameters))
    return out.getvalue()


def read_parameters(source: Source, name: str = "image") -> str:
    """The settings A1111 or we wrote into a PNG, JPEG or WebP; empty where there are none. Raises as `read_image`."""
    with opened(source, name, MOST_PIXELS) as image:
        text = image.info.get(PARAMETERS)
        if isinstance(text, str):
            return text
        raw = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if not isinstance(raw, bytes) or not raw.startswith(UNICODE):
        return ""
    return raw.removeprefix(UNICODE).decode("utf-16-be", errors="replace")


def chunk(parameters: str) -> PngInfo:
    chunk = PngInfo()
    if parameters:
        chunk.add_text(PARAMETERS, parameters)
    return chunk


def comment(parameters: str) -> bytes:
    text = parameters.encode("utf-16-be", errors="replace")
    if not text or len(text) > LONGEST_COMMENT:
        return b""
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = UNICODE + text
    return exif.tobytes()
