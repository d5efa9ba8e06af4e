"""What settings mean to the engine: where components go and in what limits, and the variables that drivers read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from relight.configuration.load import Loaded
from relight.configuration.rules import PARTS, part, target
from relight.configuration.schema import Settings, entries, value_at
from relight.executors.base import CompileOptions
from relight.jobs.budgets import Budget
from relight.jobs.conditioning import cache_folder
from relight.jobs.engine import EngineSettings
from relight.planner.backends import GPU
from relight.planner.profiles import find_profile
from relight.tuning import pipelines, tables

COMPONENTS = {
    "diffusion": ("diffusion", "modulation"),
    "text_encoder": ("clip_l", "clip_g", "clip_h"),
    "context_encoder": ("t5xxl",),
    "decoder": ("vae", "vae_encoder"),
}
"""What the parts of `model_routing` are here."""
SENT = {
    "diffusion": ("diffusion",),
    "text_encoder": ("clip_l", "clip_g", "clip_h"),
    "context_encoder": ("t5xxl",),
    "decoder": ("vae",),
}
"""As `--backend` names them. FLUX's modulation runs once a picture and takes a quarter of the backbone: a backbone on
the GPU takes it along where there is room, one on the CPU in any case."""
TILE_AT_MOST, WHOLE = 64, 512
"""Latent pixels: of `tiling: true`, 512 of the picture; and more than any picture has."""
DIRECTORY_OF = {
    "models.directory": "RELIGHT_MODELS",
    "models.folders": "RELIGHT_MODEL_PATHS",
    "engine.profile": "RELIGHT_PRETEND",
}


def backend(settings: Settings) -> str | None:
    """The targets as `--backend` takes them, and what engine.backend says over them; None where all is left open."""
    said = ["cpu"] if settings.backend.type == "cpu" else []
    for name in PARTS:
        where = target(settings, name)
        if where != "auto" and settings.backend.type != "cpu":
            names = (*SENT[name], "modulation") if (name, where) == ("diffusion", "cpu") else SENT[name]
            said += [f"{component}={card(settings) if where == 'gpu' else where}" for component in names]
    if settings.engine.backend:
        said.append(settings.engine.backend)
    return ",".join(said) or None


def card(settings: Settings) -> str:
    index = settings.backend.device_index
    return GPU if index is None else f"vulkan{index}"


def budgets(loaded: Loaded) -> Iterator[Budget]:
    """Of the parts, each with the words that name its setting."""
    for name in PARTS:
        found, place = part(loaded.settings, name), f"model_routing.{name}"
        for key, on_gpu, nbytes in (
            ("vram_budget", True, found.vram_budget),
            ("ram_budget", False, found.ram_budget),
        ):
            if nbytes is not None:
                yield Budget(COMPONENTS[name], on_gpu, nbytes, loaded.said(f"{place}.{key}"))


def engine_settings(loaded: Loaded) -> EngineSettings:
    """How to run. Raises ConfigError for a profile that is none."""
    settings, engine = loaded.settings, loaded.settings.engine
    threshold = settings.runtime.offload_threshold
    sizes = [size for size in (engine.max_vram, threshold if isinstance(threshold, int) else None) if size is not None]
    options: Any = {name: getattr(engine, name) for name in ("attention", "convolution", "precision")}
    return EngineSettings(
        backend=backend(settings),
        gpu=None if settings.backend.device_index is None else card(settings),
        max_vram_bytes=min(sizes, default=None),
        max_vram_share=threshold if isinstance(threshold, float) else None,
        threads=engine.threads,
        options=CompileOptions(**options),
        profile=find_profile(engine.profile, loaded.said("engine.profile")) if engine.profile else None,
        check_results=engine.checks,
        budgets=tuple(budgets(loaded)),
        largest_tile=TILE_AT_MOST if settings.model_routing.decoder.tiling is True else None,
        conditioning_folder=cache_folder() if engine.prompt_cache else None,
        tuning=tables.folder(),
        hang_s=engine.hang_seconds,
    )


def tile(settings: Settings) -> int | None:
    """Latent pixels of a tile as `--vae-tile-size` takes them, where the file fixes them."""
    tiling = settings.model_routing.decoder.tiling
    if isinstance(tiling, bool):
        return None if tiling else WHOLE
    return tiling if isinstance(tiling, int) else None


def environment(settings: Settings) -> dict[str, str]:
    """Variables for this process and its workers, where the user has not set them: the model folders, the profile, and
    where each driver keeps its pipelines. Each driver reads its own; VK_PIPELINE_CACHE_DIR is read by none."""
    found: dict[str, str] = {}
    for place, variable in DIRECTORY_OF.items():
        value = value_at(settings, place)
        if value:
            found[variable] = os.pathsep.join(map(str, value)) if isinstance(value, tuple) else str(value)
    if settings.backend.pipeline_cache is not None:
        found |= pipelines.variables(settings.backend.pipeline_cache)
    return found


def into(environ: Any, settings: Settings) -> Mapping[str, str]:
    """Set those variables in `environ` (os.environ), and make the folder of pipelines; what was set."""
    added = {name: value for name, value in environment(settings).items() if not environ.get(name)}
    environ.update(added)
    if settings.backend.pipeline_cache is not None:
        settings.backend.pipeline_cache.mkdir(parents=True, exist_ok=True)
    return added


assert set(DIRECTORY_OF) <= set(entries())
