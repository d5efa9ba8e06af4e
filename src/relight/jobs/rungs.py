"""Ways of making a picture, each safer than the one before, for when a device fails or its memory runs out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from relight.errors import DoesNotFit, OutOfDeviceMemory, RelightError, WorkerError
from relight.jobs.engine import EngineSettings
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
            share = min(CAREFUL_SHARE, ours.max_vram_share or 1.0)
            options = replace(ours.options, attention="chunked")
            return replace(ours, options=options, nodes_per_submit=CAREFUL_NODES, max_vram_share=share)
        return ours


CAREFUL_NODES = 4
"""Operations a submission: each then takes some tens of milliseconds on the slowest card, far from what drivers reset
a device for."""
CAREFUL_SHARE = 0.75
"""Of the card's memory: what does not fit there then goes to the CPU. Drivers refuse memory that they say is free where
it is in pieces or another program was quicker."""
RUNGS = (
    Rung("as planned"),
    Rung(
        "in small tiles, with attention in chunks, small submissions and less of the card",
        small_tiles=True,
        careful=True,
    ),
    Rung("on the CPU", small_tiles=True, cpu=True),
)


def following(rung: Rung) -> Rung | None:
    """The next safer way; None at the top."""
    number = RUNGS.index(rung) + 1
    return RUNGS[number] if number < len(RUNGS) else None


def may_help(error: RelightError, rung: Rung) -> bool:
    """Whether another way may do what failed in this one: a worker died, memory ran out, or what went before did fit
    and less of the card is too little."""
    return isinstance(error, (WorkerError, OutOfDeviceMemory)) or (isinstance(error, DoesNotFit) and rung.careful)
