"""Where each component goes, by a simple rule over measured bytes.

The diffusion backbone goes to the GPU, T5 to the CPU. The VAE and CLIP join the backbone where they fit beside it; the
modulation, a quarter of the backbone's weights that is used once a picture, only where much room is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

Measure = Callable[[str, str, Mapping[str, int]], MemoryUse]
"""(component, device, sizes that differ from the request's) -> what it takes there: `tile` matters to the
autoencoder, `batch` to the backbone."""

ALWAYS_CPU = ("t5xxl",)
JOINING = ("vae", "vae_encoder", "clip_l", "clip_h", "clip_g", "taesd", "upscaler", "modulation")
"""In the order in which components join the backbone on the GPU while they fit."""
TILED = ("vae", "vae_encoder")
CPU_BATCH = 2
"""Rows a pass on the CPU: more gain nothing there and take memory."""


@dataclass(frozen=True)
class Placement:
    """`device` of each component. `keep_programs`: all compute buffers on the GPU fit at once. `batch`: rows that the
    backbone takes at a time."""

    device: dict[str, str]
    tile: int
    batch: int = 1
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
    wanted: Mapping[str, str],
    *,
    gpu: str | None,
    budget: int,
    tiles: Sequence[int],
    tile: int | None,
    measure: Measure,
    batches: Sequence[int] = (1,),
) -> Placement:
    """Settle every `auto` of the components in `wanted`. `gpu` is the device to use for it, None where there is none;
    `budget` its bytes.

    `tiles` are the VAE tile sizes to choose from, largest first, `tile` the one the user named; `batches` the rows the
    backbone may take at a time, most first. Raises DoesNotFit.
    """
    device = {name: where if where != "auto" else "cpu" for name, where in wanted.items()}
    gpus = {where for where in wanted.values() if where.startswith("vulkan")} or ({gpu} if gpu else set())
    tile_choices = [tile] if tile else list(tiles)
    cpu_tile = next((t for t in tile_choices if t <= LARGEST_CPU_TILE), tile_choices[-1])
    cpu_batch = next((b for b in batches if b <= CPU_BATCH), batches[-1])
    placed = Placement(device, cpu_tile, cpu_batch)
    for gpu in sorted(gpus):
        rows = batches if wanted["diffusion"] in (gpu, "auto") else [cpu_batch]
        placed = _best_batch(placed, wanted, gpu, budget, tile_choices, rows, measure)
    return placed


def _best_batch(
    placed: Placement,
    wanted: Mapping[str, str],
    gpu: str,
    budget: int,
    tiles: Sequence[int],
    batches: Sequence[int],
    measure: Measure,
) -> Placement:
    """The most rows at a time that push nothing off the device which fewer would leave there."""
    found: Placement | None = None
    for rows in reversed(batches):
        try:
            tried = _fill(replace(placed, batch=rows), wanted, gpu, budget, tiles, measure)
        except DoesNotFit:
            if found is None:
                raise
            return found
        if found is not None and (tried.device != found.device or tried.tile < found.tile):
            return found
        found = tried
    assert found is not None
    return found


def _fill(
    placed: Placement, wanted: Mapping[str, str], gpu: str, budget: int, tiles: Sequence[int], measure: Measure
) -> Placement:
    device, use = dict(placed.device), dict(placed.use)
    sizes = {"tile": placed.tile, "batch": placed.batch}
    if wanted["diffusion"] == "auto":
        device["diffusion"] = gpu
    for name, where in device.items():
        if where == gpu and name not in TILED:
            use[name] = measure(name, gpu, sizes)

    def here() -> list[MemoryUse]:
        return [use[name] for name, where in device.items() if where == gpu and name in use]

    def take(names: Sequence[str], tile: int) -> None:
        """Put the autoencoder's halves on the device, in tiles of this size."""
        sizes["tile"] = tile
        for name in names:
            device[name], use[name] = gpu, measure(name, gpu, sizes)

    def fitting(names: Sequence[str]) -> int | None:
        return _fitting_tile(
            here(), tiles, budget, lambda tile: [measure(name, gpu, sizes | {"tile": tile}) for name in names]
        )

    pinned = [name for name in TILED if wanted.get(name) == gpu]
    if pinned:
        take(pinned, fitting(pinned) or tiles[-1])
    if peak(here(), False) > budget:
        raise DoesNotFit(refusal(gpu, {name: use[name] for name, where in device.items() if where == gpu}, budget))
    halves = [name for name in TILED if wanted.get(name) == "auto"]
    for names in () if pinned else (halves, halves[:1], halves[1:]):
        if names and (tile := fitting(names)):
            take(names, tile)
            break
    for name in JOINING:
        if wanted.get(name) != "auto" or (name in TILED and not pinned):
            continue
        more = measure(name, gpu, sizes)
        room = ROOM_FOR_MODULATION if name == "modulation" else 0
        if peak([*here(), more], False) + room <= budget:
            device[name], use[name] = gpu, more
    final = replace(placed, device=device, use=use, tile=sizes["tile"])
    return replace(final, keep_programs=peak(final.on(gpu), True) <= budget)


def _fitting_tile(
    others: Sequence[MemoryUse], tiles: Sequence[int], budget: int, measure: Callable[[int], Sequence[MemoryUse]]
) -> int | None:
    """The largest tile whose buffers are not excessive and fit beside the others."""
    for tile in tiles:
        uses = measure(tile)
        sensible = len(tiles) == 1 or all(use.compute <= LARGEST_TILE_BUFFER for use in uses)
        if sensible and peak([*others, *uses], False) <= budget:
            return tile
    return None


def refusal(gpu: str, here: Mapping[str, MemoryUse], budget: int) -> str:
    """What is needed on a device by what should go there, what is allowed, and the changes of which each would do."""
    parts = ", ".join(f"{name} {amount(use.weights)} + {amount(use.compute)}" for name, use in here.items())
    needed = peak(list(here.values()), False)
    return (
        f"{amount(needed)} are needed on {gpu} ({parts}; weights + buffer) and {amount(budget)} are allowed. "
        f"What would fit: {', or '.join(ways_to_fit(here, budget))}"
    )


def ways_to_fit(here: Mapping[str, MemoryUse], budget: int) -> list[str]:
    """Each alone makes what stays on the device fit, the last resort last."""

    def fits_without(*names: str) -> bool:
        return peak([use for name, use in here.items() if name not in names], False) <= budget

    movable = [name for name in reversed([*ALWAYS_CPU, *JOINING]) if name in here]
    ways = [f"--backend {name}=cpu" for name in movable if fits_without(name)]
    if not ways and len(movable) > 1 and fits_without(*movable):
        ways = ["--backend " + ",".join(f"{name}=cpu" for name in movable)]
    if "diffusion" in here:
        ways += _ways_for_diffusion(here, budget)
    if fits_without("diffusion"):
        ways.append("--backend diffusion=cpu")
    return ways or ["--backend cpu"]


def _ways_for_diffusion(here: Mapping[str, MemoryUse], budget: int) -> list[str]:
    """A smaller picture has a smaller buffer, nearly in proportion; a smaller quantisation smaller weights."""
    diffusion = here["diffusion"]
    others = max((use.compute for name, use in here.items() if name != "diffusion"), default=0)
    weights = sum(use.weights for use in here.values())
    ways = []
    share = 0.9 * (budget - weights) / max(diffusion.compute, 1)
    if others <= budget - weights and 0.1 <= share < 1:
        ways.append(f"a picture of at most {share:.0%} of the pixels")
    room = budget - (peak(list(here.values()), False) - diffusion.weights)
    if room >= diffusion.weights / 4:
        ways.append(f"a smaller quantisation, with at most {amount(room)} of diffusion weights")
    return ways


def amount(nbytes: int) -> str:
    return f"{nbytes / GIB:.2f} GiB" if nbytes >= GIB // 10 else f"{nbytes / 2**20:.1f} MiB"
