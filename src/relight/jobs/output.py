"""Pictures on disk: checked to be writable before the work, written whole or not at all, with their settings inside."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from relight.errors import ConfigError, OutputError
from relight.images import infotext
from relight.images.latent_upscale import A1111
from relight.images.write import encoded
from relight.jobs.events import Previewed
from relight.jobs.families import FAMILIES
from relight.jobs.pictures import Picture
from relight.jobs.request import GenerateRequest
from relight.jobs.upscalers import latent_method

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
    write_whole(path, encoded(picture.image, parameters_text(picture, report), "png"))


def write_whole(path: Path, content: bytes) -> None:
    with written_beside(path) as part:
        with part:
            part.write(content)
        os.replace(part.name, path)


class Previews:
    """Writes each preview over the one before: `relight-preview-1.png` for the first picture of `relight.png`.

    Raises OutputError where there is no such folder."""

    def __init__(self, folder: Path, stem: str) -> None:
        self.folder, self.stem = folder, stem
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"--preview-dir {folder}: {error.strerror or error}; name a folder that exists"
            ) from error

    def write(self, event: Previewed) -> None:
        path = self.folder / f"{self.stem}-preview-{event.picture + 1}.png"
        write_whole(path, encoded(event.image))


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
    """The prompts, then the settings in A1111's spelling on one line."""
    hires = report["hires"]
    settings = {
        "Steps": report["steps"],
        "Sampler": infotext.SAMPLERS.get(report["sampler"], report["sampler"]),
        "Schedule type": infotext.SCHEDULES.get(report["schedule"], report["schedule"]),
        "CFG scale": f"{report['cfg_scale']:g}",
        "Distilled CFG Scale": report["guidance"],
        "Seed": picture.seed,
        "Size": "{}x{}".format(*(hires["from_size"] if hires else (report["width"], report["height"]))),
        "Model": report["model"],
        "Denoising strength": report["strength"] if hires is None else hires["strength"],
        "Clip skip": report["clip_skip"] if report["clip_skip"] != FAMILIES[report["family"]].clip_skip else None,
        "Hires upscale": hires and hires["scale"],
        "Hires steps": hires and hires["steps"],
        "Hires upscaler": hires and upscaler_name(hires["upscaler"]),
        "RNG": {"cpu": "CPU"}.get(report["rng"], "GPU"),
        "Version": "relight",
    }
    return infotext.infotext(prompt_with_loras(report), report["negative_prompt"], settings)


def prompt_with_loras(report: dict[str, Any]) -> str:
    """The prompt, with a tag for each LoRA that was given beside it."""
    prompt: str = report["prompt"]
    tags = [(f"<lora:{lora['name']}:", f"{lora['weight']:g}>") for lora in report["loras"]]
    return "".join([prompt, *(f" {name}{weight}" for name, weight in tags if name not in prompt)])


def upscaler_name(upscaler: str) -> str:
    """As A1111 calls it, where it has it."""
    method = latent_method(upscaler)
    return next((name for name, stands_for in A1111.items() if stands_for == method), upscaler.capitalize())


def most_pixels(request: GenerateRequest) -> int:
    """Of one finished picture, at most: what the disk must have room for."""
    side = max(request.width or 0, request.height or 0) or 1024
    pixels = side**2 * (request.hires.scale if request.hires else 1) ** 2
    if request.redraw and request.redraw.only_masked:
        pixels = request.redraw.image.size // 3
    return round(pixels * (request.upscale or 1) ** 2)
