"""Pictures on disk: checked to be writable before the work, written whole or not at all, with their settings inside."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from relight.errors import ConfigError, OutputError
from relight.jobs.pipeline import Picture

PARAMETERS = "parameters"
"""The text chunk in which A1111 keeps settings, and where others look for them."""
BYTES_PER_PIXEL = 3
"""Noise does not get smaller as PNG; other pictures take about half."""


def prepare(out: Path, count: int, pixels: int) -> list[Path]:
    """A path for each picture: `cat.png`, or `cat-1.png`, `cat-2.png`.

    Raises ConfigError for a path that can be none, OutputError where nothing can be written or the disk is too full.
    """
    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out {out}: the name must end in .png")
    if not os.path.isdir(out.parent):
        raise ConfigError(f"--out {out}: there is no folder {out.parent}; make it, or name another")
    paths = [out] if count == 1 else [out.with_stem(f"{out.stem}-{i}") for i in range(1, count + 1)]
    for path in paths:
        if os.path.isdir(path):
            raise ConfigError(f"--out {path}: that is a folder; name a file in it")
    _check_room(out.parent, count * pixels * BYTES_PER_PIXEL)
    with written_beside(out):
        pass  # whether files can be made here, of a name as long as this
    return paths


def _check_room(folder: Path, needed: int) -> None:
    disk = shutil.disk_usage(folder)
    if 0 < disk.total and disk.free < needed:
        raise OutputError(
            f"{folder}: {disk.free / 2**20:.2f} MiB are free, and the pictures may take {needed / 2**20:.2f} MiB; "
            "make room, or name another folder with --out"
        )


def write_png(path: Path, picture: Picture, report: dict[str, Any]) -> None:
    """Raises OutputError, and leaves what was at `path` before, when it cannot be written whole."""
    chunk = PngInfo()
    chunk.add_text(PARAMETERS, parameters_text(picture, report))
    with written_beside(path) as part:
        with part:
            Image.fromarray(picture.image).save(part, "PNG", pnginfo=chunk)
        os.replace(part.name, path)


@contextmanager
def written_beside(path: Path) -> Iterator[BinaryIO]:
    """A file in the same folder, to be moved to `path` when it is whole; gone at the end otherwise."""
    name = path.parent / f".{path.stem[:40]}-{secrets.token_hex(4)}.part"
    try:
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(0, "it is there already and may not be changed")
        with name.open("xb") as part:
            yield part
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}; name another place with --out"
        ) from error
    finally:
        with suppress(OSError):
            name.unlink(missing_ok=True)


def parameters_text(picture: Picture, report: dict[str, Any]) -> str:
    """The prompt, then the settings in A1111's spelling on one line."""
    settings = {
        "Steps": len(report["sigmas"]) - 1,
        "Sampler": report["sampler"].capitalize(),
        "CFG scale": 1,
        "Distilled CFG Scale": report["guidance"],
        "Seed": picture.seed,
        "Size": f"{report['width']}x{report['height']}",
        "Model": report["model"],
        "RNG": {"cpu": "CPU"}.get(report["rng"], "GPU"),
        "Version": "relight",
    }
    line = ", ".join(f"{name}: {quoted(value)}" for name, value in settings.items() if value is not None)
    return f"{report['prompt']}\n{line}"


def quoted(value: object) -> str:
    """As A1111 writes a value in which its separators occur."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in ",:\n") else text
