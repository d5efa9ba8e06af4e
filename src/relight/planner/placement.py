"""Where each component goes, by a simple rule over measured bytes and, where they are known, seconds.

The diffusion backbone goes to the GPU, T5 to the CPU. The VAE and CLIP join the backbone where they fit beside it; the
modulation, a quarter of the backbone's weights that is used once a picture, only where much room is left. A backbone
that does not fit goes to the CPU unless it was told to go to the GPU. What joined leaves again where that saves time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from relight.errors import DoesNotFit
from relight.executors.base import MemoryUse
from relight.planner.amounts import GIB, peak
from relight.planner.refusals import ON_THE_CPU, refusal, too_large

LARGEST_TILE_BUFFER = GIB
"""The VAE's tiles are kept below this, also where more is free: one convolution over a large tile runs for seconds on
an old card, past what drivers allow a single submission."""
ROOM_FOR_MODULATION = 2 * GIB
LARGEST_CPU_TILE = 128
"""Latent pixels: a decode of 1024x1024 in one piece takes some 3 GiB of RAM in float32."""
WORTH_MOVING = 0.97
"""Share of the seconds that must remain for a component to leave the GPU: less of a gain is within the error."""

Measure = Callable[[str, str, Mapping[str, int]], MemoryUse]
"""(component, device, sizes that differ from the request's) -> what it takes there: `tile` matters to the
autoencoder, `batch` to the backbone."""
Largest = Callable[[str, Mapping[str, int]], int]
"""(component, sizes as above) -> bytes of the largest tensor of it on a GPU, weights and values."""

ALWAYS_CPU = ("t5xxl",)
JOINING = ("vae", "vae_encoder", "clip_l", "clip_h", "clip_g", "taesd", "upscaler", "modulation")
"""In the order in which components join the backbone on the GPU while they fit."""
TILED = ("vae", "vae_encoder")
CPU_BATCH = 2
"""Rows a pass on the CPU: more gain nothing there and take memory."""


@dataclass(frozen=True)
class Placement:
    """`device` of each component. `keep_programs`: all compute buffers on the GPU fit at once. `batch`: rows that the
    backbone takes at a time. `notes` say what the user did not expect."""

    device: dict[str, str]
    tile: int
    batch: int = 1
    use: dict[str, MemoryUse] = field(default_factory=dict)
    keep_programs: bool = True
    notes: tuple[str, ...] = ()

    def on(self, device: str) -> list[MemoryUse]:
        return [self.use[name] for name, where in self.device.items() if where == device and name in self.use]

    def peak_bytes(self, device: str) -> int:
        return peak(self.on(device), self.keep_programs)


def place(
    wanted: Mapping[str, str],
    *,
    gpu: str | None,
    budget: int,
    tiles: Sequence[int],
    tile: int | None,
    measure: Measure,
    batches: Sequence[int] = (1,),
    max_allocation: int | None = None,
    largest: Largest | None = None,
    cost: Callable[[Placement], float] | None = None,
) -> Placement:
    """Settle every `auto` of the components in `wanted`. `gpu` is the device to use for it, None where there is none;
    `budget` its bytes.

    `tiles` are the VAE tile sizes to choose from, largest first, `tile` the one the user named; `batches` the rows the
    backbone may take at a time, most first. No tensor that is `largest` of its component may pass `max_allocation`.
    `cost` gives the seconds of a placement. Raises DoesNotFit for what was told to go where it does not fit.
    """

    def measured(name: str, where: str, sizes: Mapping[str, int]) -> MemoryUse:
        if where != gpu or max_allocation is None or largest is None:
            return measure(name, where, sizes)
        biggest = largest(name, sizes)
        if biggest > max_allocation:
            raise DoesNotFit(too_large(name, where, biggest, max_allocation))
        return measure(name, where, sizes)

    def settle(wishes: Mapping[str, str]) -> Placement:
        return _settle(wishes, gpu, budget, [tile] if tile else list(tiles), batches, measured)

    try:
        found = settle(wanted)
    except DoesNotFit as error:
        if wanted["diffusion"] != "auto":
            raise
        found = settle({**wanted, "diffusion": "cpu"})
        why = str(error).removesuffix(ON_THE_CPU)
        found = replace(found, notes=(f"diffusion runs on the CPU, which takes many times as long: {why}",))
    return found if cost is None else _without_what_slows(found, wanted, settle, cost)


def _without_what_slows(
    found: Placement,
    wanted: Mapping[str, str],
    settle: Callable[[Mapping[str, str]], Placement],
    cost: Callable[[Placement], float],
) -> Placement:
    """With those components moved to the CPU that are done sooner there."""
    wishes = {**wanted, "diffusion": found.device["diffusion"]}
    seconds = cost(found)
    for name in JOINING:
        if wanted.get(name) == "auto" and found.device[name].startswith("vulkan"):
            moved = settle({**wishes, name: "cpu"})
            if (tried := cost(moved)) < WORTH_MOVING * seconds:
                found, seconds = replace(moved, notes=found.notes), tried
                wishes[name] = "cpu"
    return found


def _settle(
    wanted: Mapping[str, str],
    gpu: str | None,
    budget: int,
    tiles: Sequence[int],
    batches: Sequence[int],
    measure: Measure,
) -> Placement:
    device = {name: where if where != "auto" else "cpu" for name, where in wanted.items()}
    gpus = {where for where in wanted.values() if where.startswith("vulkan")} or ({gpu} if gpu else set())
    cpu_tile = next((t for t in tiles if t <= LARGEST_CPU_TILE), tiles[-1])
    cpu_batch = next((b for b in batches if b <= CPU_BATCH), batches[-1])
    placed = Placement(device, cpu_tile, cpu_batch)
    for name in sorted(gpus):
        rows = batches if wanted["diffusion"] in (name, "auto") else [cpu_batch]
        placed = _best_batch(placed, wanted, name, budget, tiles, rows, measure)
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
    if here() and peak(here(), False) > budget:
        raise DoesNotFit(refusal(gpu, {name: use[name] for name, where in device.items() if where == gpu}, budget))
    halves = [name for name in TILED if wanted.get(name) == "auto"]
    for names in () if pinned else (halves, halves[:1], halves[1:]):
        if names and (tile := fitting(names)):
            take(names, tile)
            break
    for name in JOINING:
        if wanted.get(name) != "auto" or (name in TILED and not pinned):
            continue
        try:
            more = measure(name, gpu, sizes)
        except DoesNotFit:
            continue
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
        try:
            uses = measure(tile)
        except DoesNotFit:  # one of its tensors alone
            continue
        sensible = len(tiles) == 1 or all(use.compute <= LARGEST_TILE_BUFFER for use in uses)
        if sensible and peak([*others, *uses], False) <= budget:
            return tile
    return None
