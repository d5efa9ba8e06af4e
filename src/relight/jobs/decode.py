"""From latents to finished pictures: decoded, looked at, decoded another way where that went wrong, made larger."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from relight.errors import ExecutorError, RuinedPicture
from relight.images import verdict
from relight.images.region import Region
from relight.images.resize import resize_image
from relight.jobs.events import Warned
from relight.jobs.run import Run, shaped
from relight.jobs.settle import Pass
from relight.models.tiling import SCALE, SMALLEST_TILE, tile_candidates, tile_plan
from relight.planner.placement import LARGEST_CPU_TILE
from relight.sampling import latents as latent_space

CPU_TILE = 64
SAFE_CPU = "ggml-cpu"
"""Computes in float32, whatever the other executor of the CPU makes of it."""


@dataclass(frozen=True)
class Way:
    """One way to decode: where, in tiles of how many latent pixels, by which convolution; `words` for the user."""

    words: str = field(compare=False)
    device: str
    tile: int
    convolution: str


class Decoding:
    """Remembers between pictures which ways of decoding fail on this machine where another gives a sound one."""

    def __init__(self) -> None:
        self.ruined: set[Way] = set()

    def ways(self, run: Run, which: Pass, aside: str | None = None) -> list[Way]:
        """As planned, then ever safer, without those that failed before; the last one always. `aside`: what comes
        before all of them."""
        planned, convolution = run.placement.device[run.request.decode_with], run.fleet.settings.options.convolution
        device = run.fleet.executor(run.request.decode_with, planned)
        on_cpu = run.fleet.executor(run.request.decode_with, "cpu")
        other = "im2col" if convolution != "im2col" else "direct"
        whole = max(which.latent_size)
        tile = min(run.placement.tile, whole)
        smaller, cpu_tile = min(tile, max(SMALLEST_TILE, tile // 2)), min(tile, CPU_TILE)
        ways = [Way("as planned", device, tile, convolution)]
        if aside not in (None, planned):
            ways.insert(0, Way("beside the next picture", on_cpu, cpu_tile_of(which), convolution))
        if device.startswith("vulkan"):
            ways.append(Way(f"in tiles of {smaller}", device, smaller, convolution))
        if device.startswith(("vulkan", SAFE_CPU)):
            ways.append(Way(f"with {other} convolutions", device, smaller, other))
        ways += [
            Way("on the CPU", on_cpu, cpu_tile, convolution),
            Way("on the CPU in float32", SAFE_CPU, cpu_tile, convolution),
        ]
        return [way for way in dict.fromkeys(ways) if way not in self.ruined] or ways[-1:]

    def decode(self, run: Run, which: Pass, latents: np.ndarray, picture: int, device: str | None = None) -> np.ndarray:
        """latents [C h w] as the sampler has them -> [8h 8w 3] uint8; on `device` first, where that is not the one
        planned. Raises RuinedPicture when no way gives a sound one, else what the last way raised."""
        ways = self.ways(run, which, device)
        for number, way in enumerate(ways):
            last = number + 1 == len(ways)
            try:
                image = decode_once(run, which, latents, picture, way)
                judged = judge(run, which, image, latents, way)
            except ExecutorError as error:
                if last:
                    raise
                wrong = str(error)
            else:
                if judged is None or not judged.certain:
                    if judged:
                        run.tell(Warned(f"picture {picture + 1} looks odd: {judged.message}"))
                    self.ruined.update(ways[:number])
                    return image
                wrong = judged.message
                if last:
                    raise RuinedPicture(
                        f"picture {picture + 1} came out ruined every way it was decoded ({wrong}); the latents are "
                        "sound, so it is the autoencoder's file or the device: try another VAE, or --backend vae=cpu"
                    )
            run.tell(
                Warned(f"picture {picture + 1}, decoded {way.words}: {wrong}; decoding again {ways[number + 1].words}")
            )
        raise AssertionError("there is always a last way")

    def prepare(self, run: Run, which: Pass) -> None:
        """Weights and program of the way that will be tried first. What fails here fails again, and gives way, then."""
        with suppress(ExecutorError):
            ready(run, which, self.ways(run, which)[0])

    def prepare_aside(self, run: Run, which: Pass, device: str) -> None:
        """The same of a decode on another device than the one planned."""
        ready(run, which, self.ways(run, which, device)[0])


def cpu_tile_of(which: Pass) -> int:
    """Of a decode on the CPU that nobody asked to be careful."""
    tiles = tile_candidates(*which.latent_size)
    return next((tile for tile in tiles if tile <= LARGEST_CPU_TILE), tiles[-1])


def judge(run: Run, which: Pass, image: np.ndarray, latents: np.ndarray, way: Way) -> verdict.Verdict | None:
    if not run.fleet.settings.check_results:
        return None
    plan = tile_plan(*which.latent_size, way.tile)
    tiles = [
        Region(tile.columns.start * SCALE, tile.rows.start * SCALE, tile.columns.stop * SCALE, tile.rows.stop * SCALE)
        for tile in plan
    ]
    return verdict.judge_picture(image, latents, tiles if len(tiles) > 1 else ())


def decode_once(run: Run, which: Pass, latents: np.ndarray, picture: int, way: Way) -> np.ndarray:
    component, sizes = run.request.decode_with, ready(run, which, way)
    if component == "vae":
        latents = latent_space.to_vae(run.fleet.files.family.name, latents)
    told = run.advanced(picture)
    answer = run.call("decode", component, sizes, {"latents": latents}, told, device=way.device)
    return shaped(answer["image"], (which.height, which.width, 3), "the picture")


def ready(run: Run, which: Pass, way: Way) -> dict[str, int]:
    """Have the decoder loaded and compiled for a way; the sizes of its calls."""
    run.fleet.open(run.request.decode_with, way.device, convolution=way.convolution)
    sizes = run.sizes(which) | {"tile": way.tile}
    run.load(run.request.decode_with, sizes, way.device)
    return sizes


def enlarge(run: Run, image: np.ndarray, picture: int) -> np.ndarray:
    """Through the upscaler's file: [H W 3] -> [sH sW 3], s its own scale."""
    sizes = {"image_height": image.shape[0], "image_width": image.shape[1]}
    run.load("upscaler", sizes)
    return run.call("upscale", "upscaler", sizes, {"image": image}, run.advanced(picture))["image"]


def by_factor(run: Run, image: np.ndarray, factor: float, picture: int) -> np.ndarray:
    """As `enlarge`, until it is `factor` times as large, and then brought to that size exactly."""
    height, width = (round(side * factor) for side in image.shape[:2])
    while image.shape[0] < height:
        before = image.shape[0]
        image = enlarge(run, image, picture)
        if image.shape[0] == before:
            break  # an upscaler of scale 1 cleans and does not enlarge
    return resize_image(image, width, height)


def later(
    run: Run,
    decoding: Decoding,
    which: Pass,
    latents: Callable[[], np.ndarray],
    picture: int,
    finish: Callable[[np.ndarray], np.ndarray] = lambda made: made,
    *,
    aside: bool = False,
) -> Future[np.ndarray]:
    """A decode in the lane of the autoencoder, and what finishes it. `aside`: nothing on the backbone's device waits
    for it, so it may be made elsewhere where others wait for that device."""

    def task(device: str | None = None) -> np.ndarray:
        return finish(decoding.decode(run, which, latents(), picture, device))

    if aside and run.aside.pays(run, run.request.decode_with):
        return run.submit_aside(run.request.decode_with, task)
    return run.submit(run.request.decode_with, task, late=True)
