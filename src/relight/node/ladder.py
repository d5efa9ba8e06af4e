"""What is tried where making a picture killed its worker or ran out of memory: ever safer, and remembered."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass, replace

from relight.jobs.fleet import EngineSettings
from relight.jobs.request import GenerateRequest
from relight.models.tiling import SMALLEST_TILE


@dataclass(frozen=True)
class Rung:
    """One way of making pictures; `words` tell the user."""

    words: str
    small_tiles: bool = False
    careful: bool = False
    cpu: bool = False

    def request(self, asked: GenerateRequest) -> GenerateRequest:
        return replace(asked, tile=SMALLEST_TILE) if self.small_tiles and asked.tile is None else asked

    def settings(self, ours: EngineSettings) -> EngineSettings:
        if self.cpu:
            return replace(ours, backend="cpu")
        if self.careful:
            return replace(ours, options=replace(ours.options, attention="chunked"), nodes_per_submit=CAREFUL_NODES)
        return ours


CAREFUL_NODES = 4
"""Operations a submission: each then takes some tens of milliseconds on the slowest card, far from what drivers reset
a device for."""
RUNGS = (
    Rung("as planned"),
    Rung("in small tiles, with attention in chunks and small submissions", small_tiles=True, careful=True),
    Rung("on the CPU", small_tiles=True, cpu=True),
)


class Ladder:
    """The rung that each kind of picture (model, size) has been driven to. It is kept while the node runs: the next one
    of its kind does not fail in the same way first."""

    def __init__(self) -> None:
        self._rungs: dict[Hashable, int] = {}
        self._lock = threading.Lock()

    def rung(self, kind: Hashable, losses: int) -> Rung:
        """For an attempt at a picture of this kind, whose job has lost so many workers."""
        with self._lock:
            number = max(self._rungs.get(kind, 0), min(losses, len(RUNGS) - 1))
        return RUNGS[number]

    def climb(self, kind: Hashable, failed: Rung) -> Rung | None:
        """After a failure: the rung for the next attempt, None at the top."""
        number = RUNGS.index(failed) + 1
        if number == len(RUNGS):
            return None
        with self._lock:
            self._rungs[kind] = max(self._rungs.get(kind, 0), number)
        return RUNGS[number]
