"""Settings as `plan`, `warm` and `serve` take them: of what `relight generate` would do with the same ones."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from relight.configuration.engine import engine_settings, tile
from relight.configuration.files import check_formats, named_files
from relight.configuration.load import Loaded
from relight.errors import ConfigError
from relight.jobs import models
from relight.jobs.request import ModelFiles
from relight.store.catalogue import find_model
from relight.store.places import Places


def fill(a: argparse.Namespace, loaded: Loaded) -> None:
    """Give what was not given its setting: `engine` of all; where no model was named, `own` the files of the settings'
    model, and `llm` their language model. A card by profile has no number among those of this machine."""
    if getattr(a, "device_profile", None) is not None:
        settings = loaded.settings
        loaded = replace(loaded, settings=replace(settings, backend=replace(settings.backend, device_index=None)))
    a.engine = engine_settings(loaded)
    unnamed = not a.models and getattr(a, "llm", None) is None
    a.own = own_model(loaded) if unnamed else None
    if a.command == "warm" and a.own is None:
        return  # other models have sizes of their own
    runtime = loaded.settings.runtime
    if a.cfg_scale is None:
        a.cfg_scale = runtime.cfg_scale
    size = "{}x{}".format(*runtime.resolution) if runtime.resolution else None
    if a.command == "warm":
        a.size = a.size or [size]
        return
    a.size = a.size or size
    a.steps = runtime.denoise_steps if a.steps is None else a.steps
    a.tile = tile(loaded.settings)
    if unnamed:
        a.llm = own_language_model(loaded)
    a.ctx = loaded.settings.language_model.ctx if a.ctx is None else a.ctx


def own_model(loaded: Loaded) -> ModelFiles | None:
    """Of the model and the files that settings name; None where they name none. Raises ConfigError."""
    places, of = Places.of(), loaded.settings.models
    named, _ = named_files(loaded, places)
    tokenizer = named.pop("t5_tokenizer", None)
    if of.model is None and "diffusion" not in named:
        return None
    files = models.model_files(of.model, named, t5_tokenizer=tokenizer, prediction=of.prediction)
    check_formats(loaded, files)
    return files


def own_language_model(loaded: Loaded) -> Path | None:
    """The file that settings name. Raises ConfigError, RequestError for what is none."""
    name = loaded.settings.language_model.model
    found = find_model(name) if name is not None else None
    if found is not None and not (isinstance(found, Path) and found.is_file()):
        raise ConfigError(f"{loaded.said('language_model.model')}: {name} is no GGUF file")
    return found
