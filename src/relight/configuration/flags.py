"""Settings as the options of a command: their values where an option was not given."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from relight.configuration.engine import tile
from relight.configuration.files import NAMED
from relight.configuration.load import Loaded
from relight.configuration.schema import Settings, entries, value_at
from relight.errors import ConfigError

GIB = 1 << 30
OTHERWISE: Mapping[str, Callable[[Settings], Any]] = {
    "width": lambda s: s.runtime.resolution[0] if s.runtime.resolution else None,
    "height": lambda s: s.runtime.resolution[1] if s.runtime.resolution else None,
    "vae_tile_size": tile,
    "max_vram": lambda s: s.engine.max_vram / GIB if s.engine.max_vram is not None else None,
    "no_checks": lambda s: not s.engine.checks,
    "no_prompt_cache": lambda s: not s.engine.prompt_cache,
    "lora_dir": lambda s: list(s.models.lora_dir),
    "embedding_dir": lambda s: list(s.models.embedding_dir),
}
"""Options that do not have the form of their setting."""


def destination(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def by_option() -> dict[str, str]:
    """Place of the setting that an option is."""
    return {destination(entry.flag): place for place, entry in entries().items() if entry.flag}


def leave_open(parser: argparse.ArgumentParser) -> None:
    """Options of settings are None where they are not given."""
    parser.set_defaults(**dict.fromkeys((*by_option(), *OTHERWISE)))


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Settings of the engine that were given as options, by place. Raises ConfigError for what is out of range."""
    if (threads := arguments.threads) is not None and not 1 <= threads <= 1024:
        raise ConfigError(f"--threads {threads}: 1 to 1024")
    if (max_vram := arguments.max_vram) is not None and not 0 < max_vram <= 1024:
        raise ConfigError(f"--max-vram {max_vram}: GiB, more than 0")
    options = {option: place for option, place in by_option().items() if place.startswith("engine.")}
    values = {place: getattr(arguments, option, None) for option, place in options.items()}
    found = {place: value for place, value in values.items() if value is not None}
    return found | {place: False for place, value in found.items() if value is True}  # --no-checks and its like


def files_wanted(arguments: argparse.Namespace) -> set[str]:
    """Files that settings may name: those that no option does, and none where an option names a whole model."""
    return {name for name in NAMED if getattr(arguments, name) is None} if arguments.model is None else set()


def fill(arguments: argparse.Namespace, loaded: Loaded, files: Mapping[str, Path]) -> None:
    """Give options that were not given their settings; `files` are what was found of the files they name."""
    for option, place in by_option().items():
        if option not in OTHERWISE and getattr(arguments, option, OTHERWISE) is None:
            value = files.get(option) if option in NAMED else value_at(loaded.settings, place)
            setattr(arguments, option, value)
    for option, of in OTHERWISE.items():
        if getattr(arguments, option) is None:
            setattr(arguments, option, of(loaded.settings))
