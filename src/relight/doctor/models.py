"""The models the doctor was asked about, or those of this machine: files, and what they take of card and memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from relight.errors import ModelFileError, StoreError
from relight.store.catalogue import find_model, weights_in
from relight.store.manifest import manifests
from relight.store.places import Places
from relight.weights.folder import Components, find_components
from relight.weights.identify import identify

BACKBONES = ("diffusion", "unet")
ON_CPU = ("t5xxl",)
F8_GROWS = 2
"""T5 in F8 is unpacked to F16."""


@dataclass(frozen=True)
class ModelFile:
    """`role` is the kind of network, `model` for one checkpoint of all or a language model. `grows` by so much when
    it is loaded."""

    role: str
    path: Path
    bytes: int
    grows: int = 1


@dataclass(frozen=True)
class ModelSet:
    """A model by the name it was asked for."""

    name: str
    files: tuple[ModelFile, ...]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def card_bytes(self) -> int:
        """Weights that go to the card where there is room: the backbone, or the whole of a single file."""
        found = [file.bytes for file in self.files if file.role in BACKBONES]
        return sum(found) or sum(file.bytes for file in self.files if file.role == "model")

    def host_bytes(self, *, has_gpu: bool) -> int:
        """Weights the processor computes with, which have to stay in memory."""
        there = [file for file in self.files if file.role in ON_CPU or not has_gpu]
        return sum(file.bytes * file.grows for file in there)

    @property
    def largest(self) -> ModelFile:
        return max(self.files, key=lambda file: file.bytes)


def model_sets(names: Sequence[str], places: Places) -> tuple[ModelSet, ...]:
    """Of the names or paths given; of none, every model that was pulled and is whole. Raises RequestError or StoreError
    for a name that is none."""
    if names:
        found = [model_set(name, find_model(name, places)) for name in names]
    else:
        found = list(_pulled(places))
    return tuple(each for each in found if each.files)


def _pulled(places: Places) -> Iterator[ModelSet]:
    for manifest in manifests(places):
        try:
            yield model_set(manifest.name, find_model(manifest.name, places))
        except StoreError:
            continue  # not whole: `relight models` says what is missing


def model_set(name: str, found: Path | Components) -> ModelSet:
    if isinstance(found, Components):
        return ModelSet(name, tuple(_of_components(found)))
    if found.is_dir():
        try:
            return ModelSet(name, tuple(_of_components(find_components(found))))
        except ModelFileError:
            return ModelSet(name, tuple(_files("model", weights_in(found))))
    return ModelSet(name, tuple(_files("model", [found])))


def _of_components(components: Components) -> Iterator[ModelFile]:
    """A checkpoint that holds several networks counts once, as the backbone's."""
    roles: dict[tuple[Path, ...], list[str]] = {}
    for kind, paths in components.files.items():
        roles.setdefault(tuple(paths), []).append(kind)
    for paths, kinds in roles.items():
        yield from _files(next((kind for kind in kinds if kind in BACKBONES), kinds[0]), paths)


def _files(role: str, paths: Iterable[Path]) -> Iterator[ModelFile]:
    for path in paths:
        path = path.absolute()
        yield ModelFile(role, path, path.stat().st_size, F8_GROWS if role in ON_CPU and _is_f8(path) else 1)


def _is_f8(path: Path) -> bool:
    try:
        return any(name.startswith("F8") for name in list(identify(path).formats)[:1])
    except ModelFileError:
        return False
