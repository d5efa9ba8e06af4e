"""The models of this machine: pulled sets, and files in folders the user has named. List, find, verify, remove."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from relight.errors import ModelFileError, RequestError, StoreError
from relight.store.download import digest
from relight.store.manifest import OWN, KeptFile, Manifest, find_manifest, manifest_path, manifests, own_place
from relight.store.places import SETS, Places
from relight.store.recipes import set_names
from relight.weights.folder import Components
from relight.weights.identify import Identity, identify
from relight.weights.recognise import FAMILIES, KINDS
from relight.weights.shards import ENDINGS, SHARD

MAX_DEPTH, MAX_FILES = 5, 5000


@dataclass(frozen=True)
class Model:
    """One line of the list. `missing` says what a set lacks, `where` the file or folder for people to find it."""

    name: str
    family: str
    formats: tuple[str, ...]
    size: int
    missing: tuple[str, ...]
    where: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"complete": not self.missing}


def models(places: Places) -> list[Model]:
    """Sets by name, then the weights files of each named folder."""
    found = [_of_set(manifest, places) for manifest in manifests(places)]
    for name, folder in places.folders().items():
        if not folder.is_dir():
            found.append(Model(name, "", (), 0, ("the folder is not there",), str(folder)))
        found += [_of_file(f"{name}/{file.relative_to(folder).as_posix()}", file) for file in weights_in(folder)]
    return found


def find_model(name: str, places: Places | None = None) -> Path | Components:
    """What a name or path given as a model means: a path as it is, a FLUX set's components, a single file, a folder.

    Raises RequestError for an unknown name, StoreError for a set that is not whole.
    """
    places = places or Places.of()
    if Path(name).expanduser().exists():
        return Path(name).expanduser()
    if manifest := find_manifest(places, name):
        return _files_of_set(manifest, places)
    folders = places.folders()
    if name in folders:
        return folders[name]
    for short, folder in folders.items():
        for file in weights_in(folder):
            if name in (f"{short}/{file.relative_to(folder).as_posix()}", file.name, file.stem):
                return file
    raise RequestError(_unknown(name, places))


def verify(manifest: Manifest, places: Places, each: Callable[[int], None] = lambda count: None) -> dict[str, str]:
    """What is wrong with each file of a set, by file name; nothing where all is right. `each` is told of bytes read."""
    return {file.path: wrong for file in manifest.files if (wrong := _wrong(file, file.place(places), each))}


def verify_header(file: Path) -> str | None:
    """What is wrong with a weights file as far as its header tells."""
    try:
        identity = identify(file)
    except ModelFileError as error:
        return str(error)
    lacking = [name for component in identity.components for name in component.missing]
    return f"lacks {len(lacking)} tensors ({', '.join(lacking[:3])})" if lacking else None


def remove(manifest: Manifest, places: Places) -> int:
    """Remove a set and the files no other set uses; returns the bytes freed. The hub's cache is left alone."""
    others = {(f.repository, f.path) for other in manifests(places) if other.name != manifest.name for f in other.files}
    freed = 0
    try:
        manifest_path(places, manifest.name).unlink()
        for file in manifest.files:
            if file.kept_by == OWN and (file.repository, file.path) not in others:
                freed += _remove_file(own_place(places, file.repository, file.path), places.directory)
    except OSError as error:
        raise StoreError(f"{manifest.name}: cannot be removed: {error.filename}: {error.strerror}") from error
    return freed


def weights_in(folder: Path) -> Iterator[Path]:
    """Weights files a few folders deep by name, shards by their first. Raises StoreError for a folder too large."""
    count = 0
    for inner, folders, names in os.walk(folder):
        depth = len(Path(inner).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < MAX_DEPTH else []
        for name in sorted(names):
            shard = SHARD.fullmatch(name)
            if name.lower().endswith(ENDINGS) and not name.startswith(".") and not (shard and int(shard["index"]) > 1):
                count += 1
                if count > MAX_FILES:
                    raise StoreError(f"{folder}: more than {MAX_FILES} weights files; name a folder inside it")
                yield Path(inner, name)


def _of_set(manifest: Manifest, places: Places) -> Model:
    families: list[str] = []
    formats: list[str] = []
    missing: list[str] = []
    for file in manifest.files:
        place = file.place(places)
        if not place.is_file():
            missing.append(f"{file.path}: not there")
        elif place.stat().st_size != file.size:
            missing.append(f"{file.path}: {place.stat().st_size} of {file.size} bytes")
        elif place.suffix.lower() in ENDINGS:
            described = _of_file(manifest.name, place)
            missing += [f"{file.path}: {wrong}" for wrong in described.missing]
            formats += described.formats
            if file.role in ("diffusion", "unet", "model"):
                families.append(described.family)
    size = sum(file.size for file in manifest.files)
    where = str(places.directory / SETS / f"{manifest.name}.json")
    family = " + ".join(families) or manifest.title
    return Model(manifest.name, family, tuple(dict.fromkeys(formats)), size, tuple(missing), where)


def _of_file(name: str, file: Path) -> Model:
    try:
        identity = identify(file)
    except ModelFileError as error:
        return Model(name, "unreadable", (), file.stat().st_size, (str(error).removeprefix(f"{file}: "),), str(file))
    lacking = [tensor for component in identity.components for tensor in component.missing]
    missing = (f"{len(lacking)} tensors, such as {lacking[0]}",) if lacking else tuple(_lacking_networks(identity))
    return Model(name, identity.family, tuple(identity.formats)[:3], identity.file_bytes, missing, str(file))


def _lacking_networks(identity: Identity) -> Iterator[str]:
    """Of a checkpoint that holds a model's networks together, those that it lacks; a network alone lacks nothing."""
    models = [component.model for component in identity.components if component.kind in ("diffusion", "unet")]
    if models and len(identity.components) > 1:
        yield from (f"no {kind} in it" for kind in FAMILIES[models[0]] if kind not in identity.kinds)


def _files_of_set(manifest: Manifest, places: Places) -> Path | Components:
    for file in manifest.files:
        if not file.place(places).is_file():
            raise StoreError(f"{manifest.name}: {file.path} is not there any more; run `relight pull {manifest.name}`")
    if whole := manifest.places_of("model", places):
        return whole[0]
    chosen = {kind: manifest.places_of(kind, places) for kind in KINDS}
    return Components(
        places.directory,
        next((family for family, kinds in FAMILIES.items() if all(chosen[kind] for kind in kinds)), "flux"),
        {kind: files for kind, files in chosen.items() if files},
        tokenizers=manifest.places_of("tokenizer", places),
    )


def _unknown(name: str, places: Places) -> str:
    if name in set_names():
        return f"{name} is not on this machine yet: relight pull {name}"
    here = [manifest.name for manifest in manifests(places)] + list(places.folders())
    near = difflib.get_close_matches(name, [*here, *set_names()], 1, 0.5)
    known = f"here are {', '.join(here)}" if here else "none is here"
    guess = f"; did you mean {near[0]}?" if near else ""
    sets = ", ".join(set_names())
    return f"{name}: no such path, and no model of this name ({known}){guess} `relight pull` fetches {sets}"


def _wrong(file: KeptFile, place: Path, each: Callable[[int], None]) -> str | None:
    if not place.is_file():
        return "not there; pull the set again"
    if (size := place.stat().st_size) != file.size:
        return f"has {size} bytes, and {file.size} are right; remove it and pull the set again"
    if place.suffix.lower() in ENDINGS and (wrong := verify_header(place)):
        return wrong
    hashed = digest(place, hashlib.sha256(), each)
    if hashed != file.sha256:
        return f"has the hash {hashed}, and {file.sha256} is right; remove it and pull the set again"
    return None


def _remove_file(place: Path, directory: Path) -> int:
    """Remove a file, what was fetched of it in vain, and folders that are empty then."""
    size = place.stat().st_size if place.exists() else 0
    place.unlink(missing_ok=True)
    for part in place.parent.glob(f"{place.name}.*.part"):
        part.unlink()
    folder = place.parent
    while folder != directory and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
    return size
