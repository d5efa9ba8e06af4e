"""What a request asks of each component: sizes of its graph, and how often that is run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from relight.jobs.checks import Checked
from relight.jobs.families import Family
from relight.jobs.request import GenerateRequest
from relight.jobs.run import sizes_of
from relight.jobs.settle import Settled, settle
from relight.jobs.text import ClipTexts
from relight.models.tiling import tile_candidates, tile_plan
from relight.planner.placement import Placement
from relight.prompts.chunks import LENGTH

MAX_ROWS = 16
"""Rows of one call of the backbone at most, however much memory there is."""


@dataclass(frozen=True, eq=False)
class Workload:
    """`sizes` by component, without `tile` and `batch`, which are the placement's to say."""

    settled: Settled
    family: Family
    names: tuple[str, ...]
    sizes: Mapping[str, Mapping[str, int]]
    batches: tuple[int, ...]
    tiles: tuple[int, ...]

    @property
    def pictures(self) -> int:
        return self.settled.request.batch

    @property
    def texts(self) -> int:
        """Prompt, and negative prompt where it is used."""
        return self.settled.rows

    @property
    def evaluations(self) -> int:
        """Noise levels at which the backbone is asked, in one run of the sampler."""
        return sum(len(self.settled.evaluated(which)) for which in self.settled.passes)

    def sizes_in(self, name: str, placement: Placement) -> dict[str, int]:
        return {**self.sizes[name], "tile": placement.tile, "batch": placement.batch}

    def with_tiles_up_to(self, largest: int | None) -> Workload:
        """In latent pixels; a tile that the request names stays."""
        if largest is None or self.settled.request.tile:
            return self
        return replace(self, tiles=tuple(tile for tile in self.tiles if tile <= largest) or self.tiles[-1:])

    def runs(self, name: str, placement: Placement) -> int:
        """Of a component's graph, for all pictures of the request."""
        if name in self.family.text or name == "modulation":
            return self.texts
        if name == "diffusion":
            rows = self.settled.rows * self.pictures
            return self.evaluations * math.ceil(rows / placement.batch)
        height, width = self.settled.passes[-1].latent_size
        return self.pictures * len(tile_plan(height, width, placement.tile))


def workload(checked: Checked, request: GenerateRequest) -> Workload:
    """Raises RequestError for what the model cannot do."""
    return workload_of(settle(request.with_seed(), checked), checked)


def workload_of(settled: Settled, checked: Checked) -> Workload:
    request, family = settled.request, checked.files.family
    names = (*(name for name in family.components if name != "vae"), request.decode_with)
    largest = settled.passes[-1]
    tokens = settled.text_tokens if checked.unet is None else LENGTH
    sizes = sizes_of(settled, largest, tokens)
    by_name: dict[str, Mapping[str, int]] = dict.fromkeys(names, sizes)
    if checked.unet is not None:
        text = ClipTexts(checked, None, {})
        by_name |= {encoder: text.sizes(settled, encoder, False) for encoder in family.text}
    return Workload(
        settled,
        family,
        names,
        by_name,
        tuple(batch_choices(settled, checked)),
        tuple([request.tile] if request.tile else tile_candidates(*largest.latent_size)),
    )


def batch_choices(settled: Settled, checked: Checked) -> list[int]:
    """Rows the backbone may take at a time, most first: whole shares of the pictures, with all their passes."""
    if checked.unet is None:
        return [1]
    rows, pictures = settled.rows, settled.request.batch
    shares = [n for n in range(min(pictures, MAX_ROWS // rows), 0, -1) if pictures % n == 0]
    return list(dict.fromkeys([*(n * rows for n in shares), 1]))
