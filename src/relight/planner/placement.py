"""Where each component goes, by a simple rule over measured bytes.

The diffusion backbone goes to the GPU, T5 to the CPU. The VAE and CLIP join the backbone where they fit beside it; the
modulation, a quarter of the backbone's weights that is used once a picture, only where much room is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from relight.errors import DoesNotFit
from relight.executors.base import MemoryUse

GIB = 1 << 30
LARGEST_TILE_BUFFER = GIB
"""The VAE's tiles are kept below this, also where more is free: one convolution over a large tile runs for seconds on
an old card, past what drivers allow a single submission."""
ROOM_FOR_MODULATION = 2 * GIB
LARGEST_CPU_TILE = 128
"""Latent pixels: a decode of 1024x1024 in one piece takes some 3 GiB of RAM in float32."""

Measure = Callable[[str, str, int], MemoryUse]
"""(component, device, tile) -> what it takes there; tile matters to the VAE alone."""


@dataclass(frozen=True)
class Placement:
    """`device` of each component. `keep_programs`: all compute buffers on the GPU fit at once."""

    device: dict[str, str]
    tile: int
    use: dict[str, MemoryUse] = field(default_factory=dict)
    keep_programs: bool = True

    def on(self, device: str) -> list[MemoryUse]:
        return [self.use[name] for name, where in self.device.items() if where == device and name in self.use]

    def peak_bytes(self, device: str) -> int:
        return peak(self.on(device), self.keep_programs)


def peak(uses: Sequence[MemoryUse], keep_programs: bool) -> int:
    """Weights stay; compute buffers exist together, or one at a time."""
    computes = [use.compute for use in uses]
    return sum(use.weights for use in uses) + (sum(computes) if keep_programs else max(computes, default=0))


def place(
    wanted: dict[str, str], *, gpu: str | None, budget: int, tiles: Sequence[int], tile: int | None, measure: Measure
) -> Placement:
    """Settle every `auto`. `gpu` is the device to use for it, None where there is none; `budget` its bytes.

    `tiles` are the VAE tile sizes to choose from, largest first, `tile` the one the user named. Raises DoesNotFit.
    """
    device = {name: where if where != "auto" else "cpu" for name, where in wanted.items()}
    gpus = {where for where in wanted.values() if where.startswith("vulkan")} or ({gpu} if gpu else set())
    tile_choices = [tile] if tile else list(tiles)
    placed = Placement(device, next((t for t in tile_choices if t <= LARGEST_CPU_TILE), tile_choices[-1]), {})
    for gpu in sorted(gpus):
        placed = _fill(placed, wanted, gpu, budget, tile_choices, measure)
    return placed


def _fill(
    placed: Placement, wanted: dict[str, str], gpu: str, budget: int, tiles: Sequence[int], measure: Measure
) -> Placement:
    device, use = dict(placed.device), dict(placed.use)
    pinned = [name for name, where in wanted.items() if where == gpu]
    for name in pinned:
        if name != "vae":
            use[name] = measure(name, gpu, tiles[0])
    tile = placed.tile
    if "vae" in pinned:
        others = [use[name] for name in pinned if name != "vae"]
        found = _fitting_tile(others, tiles, budget, lambda t: measure("vae", gpu, t))
        if found is None:
            _refuse(gpu, device, use | {"vae": measure("vae", gpu, tiles[-1])}, budget)
        else:
            tile, use["vae"] = found
    if wanted["diffusion"] == "auto":
        use["diffusion"] = measure("diffusion", gpu, tile)
        device["diffusion"] = gpu
    here = [use[name] for name, where in device.items() if where == gpu]
    if peak(here, False) > budget:
        _refuse(gpu, device, use, budget)
    if wanted["vae"] == "auto":
        found = _fitting_tile(here, tiles, budget, lambda t: measure("vae", gpu, t))
        if found:
            tile, use["vae"] = found
            device["vae"] = gpu
    for name, room in (("clip_l", 0), ("modulation", ROOM_FOR_MODULATION)):
        if wanted[name] != "auto":
            continue
        here = [use[n] for n, where in device.items() if where == gpu]
        more = measure(name, gpu, tile)
        if peak([*here, more], False) + room <= budget:
            device[name], use[name] = gpu, more
    final = replace(placed, device=device, use=use, tile=tile)
    return replace(final, keep_programs=peak(final.on(gpu), True) <= budget)


def _fitting_tile(
    others: Sequence[MemoryUse], tiles: Sequence[int], budget: int, measure: Callable[[int], MemoryUse]
) -> tuple[int, MemoryUse] | None:
    """The largest tile whose buffer is not excessive and fits beside the others."""
    for tile in tiles:
        use = measure(tile)
        sensible = use.compute <= LARGEST_TILE_BUFFER or len(tiles) == 1
        if sensible and peak([*others, use], False) <= budget:
            return tile, use
    return None


def _refuse(gpu: str, device: dict[str, str], use: dict[str, MemoryUse], budget: int) -> None:
    parts = ", ".join(
        f"{name} {use[name].weights / GIB:.2f} + {use[name].compute / GIB:.2f} GiB"
        for name, where in device.items()
        if where == gpu and name in use
    )
    needed = peak([use[name] for name, where in device.items() if where == gpu and name in use], False)
    ways = ["a smaller picture", "a smaller quantisation of the diffusion model (Q3_K, Q2_K)", "vae=cpu", "diffusion=cpu"]
    if device.get("modulation") == gpu:
        ways.insert(0, "modulation=cpu")
    raise DoesNotFit(
        f"{needed / GIB:.2f} GiB are needed on {gpu} ({parts}; weights + buffer) and {budget / GIB:.2f} GiB are allowed. "
        f"What would fit: {', '.join(ways)}"
    )
