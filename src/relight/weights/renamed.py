"""A checkpoint's tensors under other names, so that two networks can be recorded into one graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from relight.weights.checkpoint import Checkpoint, StoredTensor


class Prefixed(Mapping[str, StoredTensor]):
    """Every tensor of `checkpoint` with `prefix` and a dot before its name; both an index and a source of weights."""

    def __init__(self, checkpoint: Checkpoint, prefix: str) -> None:
        self._checkpoint, self._prefix = checkpoint, prefix + "."

    def __getitem__(self, name: str) -> StoredTensor:
        return self._checkpoint[self._plain(name)]

    def __iter__(self) -> Iterator[str]:
        return (self._prefix + name for name in self._checkpoint)

    def __len__(self) -> int:
        return len(self._checkpoint)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.startswith(self._prefix) and self._plain(name) in self._checkpoint

    def shape(self, name: str) -> tuple[int, ...]:
        return self._checkpoint.shape(self._plain(name))

    def format(self, name: str) -> str:
        return self._checkpoint.format(self._plain(name))

    def _plain(self, name: str) -> str:
        return name.removeprefix(self._prefix)
