"""The settings in force: defaults, the file over them, the environment over both, flags over all."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from relight.configuration.document import read
from relight.configuration.expand import expand
from relight.configuration.rules import notes, problems
from relight.configuration.schema import Settings, build, entries
from relight.errors import ConfigError

VARIABLE, NAME = "RELIGHT_CONFIG", "relight.yaml"
SECTION_PREFIXES = tuple(
    f"RELIGHT_{name}_"
    for name in ("BACKEND", "MODEL_ROUTING", "RUNTIME", "ENGINE", "PICTURE", "SERVER", "LANGUAGE_MODEL")
)
"""Variables that begin so can only be settings. Not MODELS: RELIGHT_MODELS itself is one."""


@dataclass(frozen=True)
class Origin:
    """Where a value came from: `file`, `environment` or `flag`, and the line, variable or flag itself."""

    kind: Literal["file", "environment", "flag"]
    where: str


@dataclass(frozen=True)
class Loaded:
    """`origins` has what is not a default. `notes` are what the user should know: settings that do not do what they
    seem to, each with its reason."""

    settings: Settings = field(default_factory=Settings)
    origins: Mapping[str, Origin] = field(default_factory=dict)
    file: Path | None = None
    notes: tuple[str, ...] = ()

    def said(self, place: str) -> str:
        """How to name a setting in a message: with where it came from."""
        origin = self.origins.get(place)
        return f"{origin.where}: {place}" if origin and origin.kind == "file" else origin.where if origin else place


def load(
    file: Path | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
    folder: Path | None = None,
) -> Loaded:
    """`file` as `--config` names it, else where it is looked for; `flags` are values by place.

    Raises ConfigError that names everything that is wrong, with file and line, variable or flag.
    """
    folder = folder or Path.cwd()
    found = find_file(file, environ, folder)
    gathered = Gathered(environ)
    if found is not None:
        gathered.add_file(found, _text(found), shown(found, folder))
    gathered.add_environment(folder)
    for place, given in (flags or {}).items():
        gathered.add(place, given, Origin("flag", entries()[place].flag or place), folder)
    return gathered.loaded(found)


def find_file(file: Path | None, environ: Mapping[str, str], folder: Path) -> Path | None:
    """The file named, else relight.yaml here, else in the user's folder for settings; None where there is none."""
    named = environ.get(VARIABLE)
    for said, path in (("--config", file), (VARIABLE, Path(named) if named else None)):
        if path is not None:
            path = folder / path.expanduser()
            if not path.is_file():
                raise ConfigError(f"{said} {path}: no such file; relight config init --write {path} makes one")
            return path
    return next((path for path in (folder / NAME, user_folder(environ) / NAME) if path.is_file()), None)


def user_folder(environ: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Where the platform keeps the settings of programs."""
    home = Path.home()
    if platform == "win32":
        return Path(environ.get("APPDATA") or home / "AppData" / "Roaming") / "relight"
    if platform == "darwin":
        return home / "Library" / "Application Support" / "relight"
    stated = environ.get("XDG_CONFIG_HOME", "")
    return (Path(stated) if Path(stated).is_absolute() else home / ".config") / "relight"


class Gathered:
    """Values layer by layer, and what is wrong with them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.values: dict[str, Any] = {}
        self.origins: dict[str, Origin] = {}
        self.wrong: list[str] = []

    def add_file(self, path: Path, text: str, name: str) -> None:
        document = read(text)
        wrong = list(document.problems)
        for place, found in document.found.items():
            origin = Origin("file", f"{name}:{found.line}")
            try:
                given = expand(found.value, self.environ)
            except ValueError as error:
                wrong.append((found.line, f"{place} {error}"))
                continue
            if given != "":  # ${VARIABLE:-} for one that is not set
                wrong += [(found.line, what) for what in self._kept(place, given, origin, path.parent.absolute())]
        self.wrong += [f"{name}:{line}: {what}" for line, what in sorted(wrong)]

    def add_environment(self, folder: Path) -> None:
        variables = {entry.variable: place for place, entry in entries().items()}
        for name, value in sorted(self.environ.items()):
            if name in variables and value != "":
                self.add(variables[name], value, Origin("environment", name), folder)
            elif name.startswith(SECTION_PREFIXES) and name not in variables:
                near = difflib.get_close_matches(name, variables, n=1)
                self.wrong.append(f"{name} is no setting" + (f"; did you mean {near[0]}?" if near else ""))

    def add(self, place: str, given: Any, origin: Origin, folder: Path) -> None:
        self.wrong += [f"{origin.where}: {what}" for what in self._kept(place, given, origin, folder)]

    def _kept(self, place: str, given: Any, origin: Origin, folder: Path) -> list[str]:
        """Keep a value; what is wrong with it, if anything is."""
        try:
            self.values[place] = entries()[place].kind.parse(given, folder)
        except ValueError as error:
            return [f"{place} {error}, not {given!r}" if str(error).startswith("should") else f"{place}: {error}"]
        self.origins[place] = origin
        return []

    def loaded(self, file: Path | None) -> Loaded:
        settings = build(self.values)
        loaded = Loaded(settings, self.origins, file)
        self.wrong += [f"{loaded.said(place)} {what}" for place, what in problems(settings, self.origins)]
        if self.wrong:
            raise ConfigError("; ".join(self.wrong))
        said = tuple(f"{loaded.said(place)} {what}" for place, what in notes(settings, self.origins))
        return Loaded(settings, self.origins, file, said)


def shown(file: Path, folder: Path) -> str:
    """The file as messages name it: short where it is here."""
    absolute = Path(os.path.normpath(folder / file))
    return str(absolute.relative_to(folder)) if absolute.is_relative_to(folder) else str(absolute)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is no text in UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
