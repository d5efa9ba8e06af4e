"""Where models lie: relight's own directory, and folders of other programs that the user has named."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from relight.errors import ConfigError, StoreError
from relight.store.written import write_whole

DIRECTORY_VARIABLE, FOLDERS_VARIABLE = "RELIGHT_MODELS", "RELIGHT_MODEL_PATHS"
FOLDERS_FILE = "folders.json"
SETS, HUB = "sets", "hub"
"""Folders of the model directory: manifests of what was pulled, and its files by repository."""
INNER = ("checkpoints", "diffusion_models", "unet", "text_encoders", "clip", "vae", "Stable-diffusion", "VAE")
"""Folders under `models` by which ComfyUI's and A1111's installations are known."""


@dataclass(frozen=True)
class Places:
    """`directory` is relight's own; `environ` the environment it was found by."""

    directory: Path
    environ: Mapping[str, str]

    @classmethod
    def of(cls, environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Places:
        """$RELIGHT_MODELS, else the platform's directory for a program's data."""
        if named := environ.get(DIRECTORY_VARIABLE):
            return cls(Path(named).expanduser().absolute(), environ)
        return cls(_data_directory(environ, platform) / "relight" / "models", environ)

    def folders(self) -> dict[str, Path]:
        """The user's folders by a short name: in the model directory, in folders.json, in $RELIGHT_MODEL_PATHS."""
        inside = sorted(self.directory.iterdir()) if self.directory.is_dir() else []
        paths = [path for path in inside if path.is_dir() and path.name not in (SETS, HUB) and path.name[0] != "."]
        paths += [self.expand(text) for text in self._stored_folders()]
        paths += [Path(text).expanduser() for text in self.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if text]
        named: dict[str, Path] = {}
        for path in dict.fromkeys(paths):
            named.setdefault(_short_name(path, named), path)
        return named

    def add_folder(self, folder: Path) -> Path:
        """Remember a folder, by its place relative to the home or the model directory; returns the folder of weights.

        Raises ConfigError for what is no folder.
        """
        found = models_of(folder.expanduser().absolute())
        if not found.is_dir():
            raise ConfigError(f"{folder}: no such folder")
        stored = self._stored_folders()
        if found not in [self.expand(text) for text in stored]:
            self._store_folders([*stored, self.portable(found)])
        return found

    def forget_folder(self, folder: Path) -> bool:
        """Whether it was one of folders.json; nothing in the folder is touched."""
        stored = self._stored_folders()
        kept = [text for text in stored if self.expand(text) != folder]
        if len(kept) != len(stored):
            self._store_folders(kept)
        return len(kept) != len(stored)

    def portable(self, path: Path) -> str:
        """The path without this machine's root: from `~` where it is in the home, else from the model directory."""
        home = Path.home()
        if path.is_relative_to(home) and not self.directory.is_relative_to(path):
            return "~/" + path.relative_to(home).as_posix()
        try:
            return Path(os.path.relpath(path, self.directory)).as_posix()
        except ValueError as error:  # another drive of Windows
            where = f"{path}: is on another drive than {self.directory}"
            raise ConfigError(f"{where}; name it with {FOLDERS_VARIABLE}") from error

    def expand(self, text: str) -> Path:
        return Path(os.path.normpath(self.directory / Path(text).expanduser()))

    def _stored_folders(self) -> list[str]:
        file = self.directory / FOLDERS_FILE
        try:
            return [str(text) for text in json.loads(file.read_text())["folders"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{file}: cannot be read ({error}); remove it and name the folders again") from error

    def _store_folders(self, texts: list[str]) -> None:
        write_whole(self.directory / FOLDERS_FILE, json.dumps({"folders": texts}, indent=2) + "\n")


def models_of(folder: Path) -> Path:
    """The folder itself, or the `models` inside an installation of ComfyUI or A1111."""
    inner = folder / "models"
    return inner if any((inner / name).is_dir() for name in INNER) else folder


def _data_directory(environ: Mapping[str, str], platform: str) -> Path:
    home = Path.home()
    if platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    if platform == "darwin":
        return home / "Library" / "Application Support"
    stated = environ.get("XDG_DATA_HOME", "")
    return Path(stated) if Path(stated).is_absolute() else home / ".local" / "share"


def _short_name(path: Path, taken: Mapping[str, Path]) -> str:
    """`comfyui` for ~/ComfyUI/models; a number after it where that is taken."""
    parts = [part for part in path.parts if part.lower() != "models"]
    name = (parts[-1] if len(parts) > 1 else path.name).lower()
    return next(n for n in (name, *(f"{name}-{i}" for i in range(2, 1000))) if n not in taken)
