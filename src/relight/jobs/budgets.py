"""What the user lets single components take, of the card or of the memory: hard limits, whatever else is free."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from relight.errors import DoesNotFit
from relight.executors.base import MemoryUse
from relight.planner.amounts import amount
from relight.planner.placement import TILED, Measure, Placement

MARGIN = 0.02
"""Of a budget, as exact as bytes are known before. CLIP-L in F16 takes 236.4 MiB with its buffer; the published recipe
allows it 235."""
SMALL_TILES = (24, 16)
"""Latent pixels of tiles that only a budget makes so small: overlaps are most of them. The published recipe allows the
autoencoder 160 MB."""


@dataclass(frozen=True)
class Budget:
    """`components` together may take `nbytes` on the GPU or the CPU, weights and buffers. `said` names the setting."""

    components: tuple[str, ...]
    on_gpu: bool
    nbytes: int
    said: str

    def covers(self, component: str, device: str) -> bool:
        return component in self.components and device.startswith("vulkan") == self.on_gpu


class Within:
    """Measures components as `measure` does, and refuses what passes a budget."""

    def __init__(self, budgets: Sequence[Budget], measure: Measure) -> None:
        self.budgets, self.measure = budgets, measure
        self.taken: dict[tuple[str, bool], MemoryUse] = {}

    def __call__(self, component: str, device: str, sizes: Mapping[str, int]) -> MemoryUse:
        """Raises DoesNotFit with what is needed and what is allowed."""
        use = self.measure(component, device, sizes)
        for budget in self.budgets:
            if budget.covers(component, device):
                self._check(budget, component, use)
                self.taken[component, budget.on_gpu] = use
        return use

    def _check(self, budget: Budget, component: str, use: MemoryUse) -> None:
        uses = {n: self.taken[n, budget.on_gpu] for n in budget.components if (n, budget.on_gpu) in self.taken}
        uses[component] = use
        needed = sum(each.total for each in uses.values())
        if needed > budget.nbytes * (1 + MARGIN):
            parts = ", ".join(f"{name} {amount(u.weights)} + {amount(u.compute)}" for name, u in uses.items())
            raise DoesNotFit(
                f"{budget.said} allows {amount(budget.nbytes)}, and {amount(needed)} are needed ({parts}; weights + "
                "buffer): raise it, take a smaller quantisation or a smaller picture, or change the target"
            )

    def on_cpu(self, placement: Placement, tiles: Sequence[int], skip: Collection[str]) -> Placement:
        """The placement with what was put on the CPU within its budgets: the autoencoder in tiles as small as that
        takes, and on ggml where OpenVINO takes too much. Raises DoesNotFit."""
        for component, device in placement.device.items():
            covered = any(budget.covers(component, device) for budget in self.budgets if not budget.on_gpu)
            if covered and component not in skip:
                placement = self._fitted(component, device, placement, tiles)
        return placement

    def _fitted(self, component: str, device: str, placement: Placement, tiles: Sequence[int]) -> Placement:
        smaller = [tile for tile in _down(tiles) if tile <= placement.tile] if component in TILED else []
        devices = [device, "ggml-cpu"] if device == "cpu" and component in TILED else [device]
        choices = [(where, tile) for where in devices for tile in smaller or [placement.tile]]
        for where, tile in choices[:-1]:
            try:
                self(component, where, {"tile": tile, "batch": placement.batch})
            except DoesNotFit:
                continue
            return _moved(placement, component, where, tile)
        where, tile = choices[-1]
        self(component, where, {"tile": tile, "batch": placement.batch})
        return _moved(placement, component, where, tile)


def _down(tiles: Sequence[int]) -> list[int]:
    """With the small ones after them; a single tile is the one the user named."""
    return [*tiles, *(tile for tile in SMALL_TILES if tile < tiles[-1])] if len(tiles) > 1 else list(tiles)


def _moved(placement: Placement, component: str, device: str, tile: int) -> Placement:
    return replace(placement, device=placement.device | {component: device}, tile=tile)
