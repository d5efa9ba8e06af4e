"""One component of a model on disk, under our names: shapes, formats and the mapped bytes, whoever published it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from relight.errors import ModelFileError, WeightMissing
from relight.weights.assembly import take
from relight.weights.container import Container, open_container
from relight.weights.hints import model_of, prediction
from relight.weights.recognise import KINDS, WANTED, Found, flag, recognise
from relight.weights.shards import weight_files
from relight.weights.sizes import missing
from relight.weights.stored import StoredTensor, gather

__all__ = ["Checkpoint", "StoredTensor", "open_component", "read_component"]


class Checkpoint(Mapping[str, StoredTensor]):
    """The tensors of one component by our names. `ignored` names what the files have beside it.

    `model` is the family of models it belongs to, "" where nothing tells; `prediction` what a UNet predicts, `eps` or
    `v`, None where the file does not say.
    """

    def __init__(
        self,
        kind: str,
        found: Found,
        containers: Sequence[Container],
        tensors: dict[str, StoredTensor],
        ignored: list[str],
        prediction: str | None = None,
    ) -> None:
        self.kind = kind
        self.family = found.family
        self.names_as = found.names_as
        self.prefix = found.prefix
        self.paths = tuple(container.path for container in containers)
        self.metadata = _joined_metadata(containers)
        self.model = found.model or model_of(kind, self.paths[0], self.metadata)
        self.prediction = prediction
        self.ignored = tuple(ignored)
        self._containers = containers
        self._tensors = tensors

    def __getitem__(self, name: str) -> StoredTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def format(self, name: str) -> str:
        return self._tensors[name].format

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def close(self) -> None:
        """Forget the tensors and unmap the files, or leave the unmapping to whoever still holds a view."""
        self._tensors = {}
        self.metadata = {}
        for container in self._containers:
            container.close()


def open_component(kind: str, paths: Path | Sequence[Path]) -> Checkpoint:
    """Open one of KINDS from a file, a folder, an index or several files.

    Of an all-in-one file only the component asked for is taken. Raises ModelFileError when the files are broken or hold
    something else, WeightMissing when the network is not whole.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    containers: list[Container] = []
    try:
        containers.extend(open_container(path) for path in weight_files(paths))
        return read_component(kind, containers)
    except BaseException:
        for container in containers:
            container.close()
        raise


def read_component(kind: str, containers: Sequence[Container]) -> Checkpoint:
    """As `open_component`, from files already open, which then belong to the checkpoint."""
    stored = gather(containers)
    found = recognise({name: item.entry.shape for name, item in stored.items()})
    chosen = next((item for item in found if item.kind == kind), None)
    where = ", ".join(str(container.path) for container in containers)
    if chosen is None:
        raise ModelFileError(f"{where}: {_wrong_kind(kind, found, containers)}")
    tensors, ignored = take(chosen, stored)
    if lacking := missing(kind, {name: tensor.shape for name, tensor in tensors.items()}):
        listed = ", ".join(lacking[:3]) + (" ..." if len(lacking) > 3 else "")
        whole = len(tensors) + len(lacking)
        raise WeightMissing(
            f"{where}: {chosen.family} lacks {len(lacking)} of {whole} tensors ({listed}); take a whole file"
        )
    said = prediction(stored, _joined_metadata(containers)) if kind == "unet" else None
    return Checkpoint(kind, chosen, containers, tensors, ignored, said)


def _joined_metadata(containers: Sequence[Container]) -> dict[str, Any]:
    """Of several files' values under one key the first's."""
    return {key: value for container in reversed(containers) for key, value in container.metadata.items()}


def _wrong_kind(kind: str, found: Sequence[Found], containers: Sequence[Container]) -> str:
    if not found:
        count = sum(len(container.entries) for container in containers)
        return f"none of its {count} tensors belongs to a network relight knows; {WANTED[kind]} is needed here"
    families = " and ".join(dict.fromkeys(item.family for item in found))
    flags = ", ".join(dict.fromkeys(flag(item.kind) for item in found if item.usable))
    return f"holds {families}, not {WANTED[kind]}" + (f"; give it with {flags}" if flags else "; take another file")
