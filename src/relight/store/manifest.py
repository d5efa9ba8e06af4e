"""What was pulled under a name: one JSON file per set, with each file's origin, size and hash. Paths are relative."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from relight.errors import StoreError
from relight.store.places import HUB, SETS, Places
from relight.store.recipes import ROLES
from relight.store.written import write_whole

NAME = re.compile(r"[\w][\w.+-]{0,199}")
OWN, CACHE = "relight", "huggingface"
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class KeptFile:
    """A file of a set. `revision` is a commit; `kept_by` the store it lies in: relight's or the hub's cache."""

    role: str
    repository: str
    path: str
    revision: str
    size: int
    sha256: str
    kept_by: str = OWN

    def place(self, places: Places) -> Path:
        """Where it lies or would lie."""
        if self.kept_by == CACHE and (cached := in_hub_cache(self.repository, self.path, self.revision)):
            return cached
        return own_place(places, self.repository, self.path)


@dataclass(frozen=True)
class Manifest:
    name: str
    title: str
    licences: tuple[str, ...]
    files: tuple[KeptFile, ...]

    def write(self, places: Places) -> None:
        write_whole(manifest_path(places, self.name), json.dumps(asdict(self), indent=2) + "\n")

    def places_of(self, role: str, places: Places) -> tuple[Path, ...]:
        return tuple(file.place(places) for file in self.files if file.role == role)


def own_place(places: Places, repository: str, path: str) -> Path:
    return places.directory / HUB / repository / path


def in_hub_cache(repository: str, path: str, revision: str) -> Path | None:
    """The file in huggingface_hub's cache, where other programs put theirs."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, path, revision=revision)
    return Path(found) if isinstance(found, str) else None


def manifest_path(places: Places, name: str) -> Path:
    return places.directory / SETS / f"{name}.json"


def manifests(places: Places) -> Iterator[Manifest]:
    """All sets by name. Raises StoreError for one that cannot be read."""
    folder = places.directory / SETS
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        if NAME.fullmatch(path.stem):
            yield read_manifest(places, path.stem)


def find_manifest(places: Places, name: str) -> Manifest | None:
    known = NAME.fullmatch(name) and manifest_path(places, name).is_file()
    return read_manifest(places, name) if known else None


def read_manifest(places: Places, name: str) -> Manifest:
    file = manifest_path(places, name)
    try:
        text: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        kept = tuple(KeptFile(**entry) for entry in text["files"])
        for each in kept:
            _check(each)
        return Manifest(name, str(text["title"]), tuple(map(str, text["licences"])), kept)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{file}: cannot be read ({error}); pull {name} again, or remove this file") from error


def _check(file: KeptFile) -> None:
    """A manifest decides which files are opened and removed: they stay inside the store."""
    for text in (file.repository, file.path):
        parts = PurePosixPath(text).parts
        if not parts or ".." in parts or PurePosixPath(text).is_absolute() or "\\" in text or ":" in text:
            raise ValueError(f"{text!r} is no path inside the store")
    if file.role not in ROLES or type(file.size) is not int or not SHA256.fullmatch(file.sha256):
        raise ValueError(f"{file.path!r} lacks its role, size or sha256")
