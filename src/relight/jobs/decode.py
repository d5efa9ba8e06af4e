"""From latents to finished pictures: decoded, looked at, decoded another way where that went wrong, made larger."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from relight.errors import ExecutorError, OutOfDeviceMemory, RuinedPicture, WorkerLost
from relight.images import verdict
from relight.images.region import Region
from relight.images.resize import resize_image
from relight.jobs.events import Warned
from relight.jobs.run import Run
from relight.jobs.settle import Pass
from relight.models.tiling import SCALE, SMALLEST_TILE, tile_plan
from relight.sampling import latents as latent_space

GIVES_WAY = (ExecutorError, OutOfDeviceMemory, WorkerLost)
"""What makes a decode worth trying another way."""


@dataclass(frozen=True)
class Way:
    """One way to decode: where, in tiles of how many latent pixels, by which convolution."""

    words: str
    device: str
    tile: int
    convolution: str


class Decoding:
    """Remembers between pictures which way of decoding gave a sound one on this machine."""

    def __init__(self) -> None:
        self.ruined: set[Way] = set()

    def ways(self, run: Run) -> list[Way]:
        """As planned, then ever safer, without those that failed before; the last one always."""
        device, tile = run.placement.device["vae"], run.placement.tile
        convolution = run.fleet.settings.options.convolution
        other = "im2col" if convolution != "im2col" else "direct"
        smaller = max(SMALLEST_TILE, tile // 2)
        ways = [Way("as planned", device, tile, convolution)]
        if device != "cpu":
            ways += [
                Way(f"in tiles of {smaller}", device, smaller, convolution),
                Way(f"with {other} convolutions in tiles of {smaller}", device, smaller, other),
            ]
        ways.append(Way("on the CPU", "cpu", min(tile, 64), convolution))
        return [way for way in ways if way not in self.ruined] or ways[-1:]

    def decode(self, run: Run, which: Pass, latents: np.ndarray, picture: int) -> np.ndarray:
        """latents [C h w] as the sampler has them -> [8h 8w 3] uint8. Raises RuinedPicture when no way gives a sound
        one, else what the last way raised."""
        ways = self.ways(run)
        for number, way in enumerate(ways):
            last = number + 1 == len(ways)
            try:
                image = decode_once(run, which, latents, picture, way)
                judged = judge(run, which, image, latents, way)
            except GIVES_WAY as error:
                if last or isinstance(error, WorkerLost):
                    raise
                wrong = str(error)
            else:
                if judged is None:
                    return image
                if not judged.certain:
                    run.tell(Warned(f"picture {picture + 1} looks odd: {judged.message}"))
                    return image
                wrong = judged.message
                if last:
                    raise RuinedPicture(
                        f"picture {picture + 1} came out ruined every way it was decoded ({wrong}); the latents are "
                        "sound, so it is the autoencoder's file or the device: try another VAE, or --backend vae=cpu"
                    )
            self.ruined.add(way)
            run.tell(Warned(f"decoded {way.words}: {wrong}; decoding again {ways[number + 1].words}"))
        raise AssertionError("there is always a last way")


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
    component = run.request.decode_with
    if component == "vae":
        latents = latent_space.to_vae(run.fleet.files.family.name, latents)
        run.fleet.open("vae", way.device, convolution=way.convolution)
    sizes = run.sizes(which) | {"tile": way.tile}
    run.load(component, sizes)
    return run.call("decode", component, sizes, {"latents": latents}, run.advanced(picture))["image"]


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
    run: Run, decoding: Decoding, which: Pass, latents: Callable[[], np.ndarray], picture: int
) -> Future[np.ndarray]:
    """A decode in the lane of the autoencoder, whose weights come while the denoising goes on."""
    return run.submit(run.request.decode_with, lambda: decoding.decode(run, which, latents(), picture))
