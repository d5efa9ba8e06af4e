"""Pictures on disk: checked to be writable before the work, written whole or not at all, with their settings inside."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from relight.errors import ConfigError
from relight.jobs.pipeline import Picture

PARAMETERS = "parameters"
"""The text chunk in which A1111 keeps settings, and where others look for them."""


def prepare(out: Path, count: int) -> list[Path]:
    """A path for each picture: `cat.png`, or `cat-1.png`, `cat-2.png`. Raises ConfigError where they cannot be written."""
    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out {out}: the name must end in .png")
    folder = out.parent
    if not folder.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {folder}")
    if out.is_dir():
        raise ConfigError(f"--out {out}: that is a folder")
    if not os.access(folder, os.W_OK) or (out.exists() and not os.access(out, os.W_OK)):
        raise ConfigError(f"--out {out}: cannot be written; choose another folder or change its permissions")
    return [out] if count == 1 else [out.with_stem(f"{out.stem}-{i}") for i in range(1, count + 1)]


def write_png(path: Path, picture: Picture, report: dict[str, Any]) -> None:
    """Written beside its place and moved there, so that no half file is ever seen."""
    chunk = PngInfo()
    chunk.add_text(PARAMETERS, parameters_text(picture, report))
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
            try:
                Image.fromarray(picture.image).save(part, "PNG", pnginfo=chunk)
                part.close()
                os.replace(part.name, path)
            except BaseException:
                os.unlink(part.name)
                raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


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
    line = ", ".join(f"{name}: {value}" for name, value in settings.items() if value is not None)
    return f"{report['prompt']}\n{line}"
