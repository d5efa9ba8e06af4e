"""All pictures of a request: the stages put in order."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial

import numpy as np

from relight.jobs import decode
from relight.jobs.decode import Decoding
from relight.jobs.denoise import denoise
from relight.jobs.enlarge import Enlarging
from relight.jobs.run import Run
from relight.jobs.start import Arrays, Beginning, begin, noise
from relight.jobs.text import TextPlan, TextStage


@dataclass(frozen=True)
class Picture:
    """`image` [height width 3] uint8."""

    image: np.ndarray
    seed: int


@dataclass(frozen=True, eq=False)
class Group:
    """Pictures that are denoised together: `first` of them and on."""

    first: int
    seeds: list[int]


@dataclass(frozen=True, eq=False)
class Submitted:
    """A request whose tasks are all in their lanes."""

    run: Run
    images: list[Future[np.ndarray]]

    def wait(self) -> list[Picture]:
        """Raises RelightError; what has begun is then told to stop."""
        self.run.finish()
        return [Picture(image.result(), seed) for image, seed in zip(self.images, self.run.request.seeds, strict=True)]


def submit(run: Run, text: TextStage, plan: TextPlan, decoding: Decoding, *, inpainting_network: bool) -> Submitted:
    """Put every stage into its lane. Latents of all pictures come first, then the decodes, which need another program
    on the device; where they may be beside it, each follows its latents."""
    settled, seeds = run.settled, run.request.seeds
    first = settled.passes[0]
    encoded = text.submit(run, plan)
    beginning = begin(run, first, inpainting_network=inpainting_network)
    run.submit("diffusion", partial(run.load, "diffusion", run.sizes(first)))
    groups = [Group(i, seeds[i : i + at_once(run)]) for i in range(0, len(seeds), at_once(run))]
    prompt = text.conditions(run, plan, encoded, first)
    # Noise is drawn here, while others are denoised, and not in the lane.
    starts: list[Callable[[], Arrays]] = [partial(beginning.arrays, noise(run, first, group.seeds)) for group in groups]
    last = settled.passes[-1]
    if last is not first:
        small = [
            denoise(run, group.first, group.seeds, first, prompt, start)
            for group, start in zip(groups, starts, strict=True)
        ]
        prompt = text.conditions(run, plan, encoded, last)
        again = begin(run, last, inpainting_network=inpainting_network)
        starts = [
            Enlarging(run, decoding, again, one, group.seeds, group.first).arrays
            for one, group in zip(small, groups, strict=True)
        ]

    def prepare() -> None:
        wait([prompt])  # text comes first where one device does both
        decoding.prepare(run, last)

    def decodes(group: Group, done: Future[np.ndarray]) -> list[Future[np.ndarray]]:
        return [finished(run, decoding, beginning, done, group, i) for i in range(len(group.seeds))]

    beside = run.request.upscale is None and run.aside.pays(run, run.request.decode_with)
    pairs, images = [], []
    for group, start in zip(groups, starts, strict=True):
        pairs.append((group, denoise(run, group.first, group.seeds, last, prompt, start)))
        if beside:
            images += decodes(*pairs[-1])
    if not beside:
        run.submit(run.request.decode_with, prepare, late=True)
        images = [image for pair in pairs for image in decodes(*pair)]
    return Submitted(run, images)


def at_once(run: Run) -> int:
    """Pictures in one call of the backbone."""
    return max(1, run.placement.batch // run.settled.rows)


def finished(
    run: Run, decoding: Decoding, beginning: Beginning, latents: Future[np.ndarray], group: Group, i: int
) -> Future[np.ndarray]:
    """One picture from its latents: decoded, laid over the user's where that is asked, made larger."""
    picture, last = group.first + i, run.settled.passes[-1]

    def one() -> np.ndarray:
        values: np.ndarray = latents.result()[i]
        return values

    def finish(made: np.ndarray) -> np.ndarray:
        return made if beginning.canvas is None else beginning.canvas.finished(made)

    factor = run.request.upscale
    image = decode.later(run, decoding, last, one, picture, finish, aside=factor is None)
    if factor is None:
        return image
    return run.submit("upscaler", lambda: decode.by_factor(run, image.result(), factor, picture), late=True)
