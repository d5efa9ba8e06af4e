"""Between two passes: the picture of the first made larger, in latents or in pixels, with noise for the second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

import numpy as np

from relight.images.latent_upscale import upscale_latents
from relight.images.resize import resize_image
from relight.jobs import decode
from relight.jobs.run import Run
from relight.jobs.start import Beginning, encode_picture, noise
from relight.jobs.upscalers import BY_MODEL, latent_method


class Enlarging:
    """What the second pass of some pictures begins from. In pixels each picture is decoded, resized and encoded, each
    of it in its own worker's lane."""

    def __init__(
        self,
        run: Run,
        decoding: decode.Decoding,
        beginning: Beginning,
        latents: Future[np.ndarray],
        seeds: Sequence[int],
        first: int,
    ) -> None:
        assert run.request.hires is not None
        self.run, self.decoding, self.beginning = run, decoding, beginning
        self.latents, self.seeds, self.first = latents, seeds, first
        self.before, self.after = run.settled.passes
        self.upscaler = run.request.hires.upscaler
        self.method = latent_method(self.upscaler)
        self.encoded = [] if self.method else [self._through_pixels(i) for i in range(len(seeds))]

    def arrays(self) -> dict[str, np.ndarray]:
        """Of the denoising call: `latents` [N C h w] and what goes with them."""
        if self.method:
            larger = upscale_latents(self.latents.result(), *self.after.latent_size, self.method)
        else:
            larger = np.stack([future.result() for future in self.encoded])
        fresh = noise(self.run, self.after, self.seeds)
        noisy = self.after.space.noisy(larger, fresh, float(self.after.levels[0]))
        return self.beginning.beside() | {"latents": noisy.astype(np.float32)}

    def _through_pixels(self, i: int) -> Future[np.ndarray]:
        run, picture = self.run, self.first + i
        small = decode.later(run, self.decoding, self.before, partial(self._one, i), picture)
        larger = self._larger(small, picture)
        return run.submit("vae_encoder", lambda: encode_picture(run, self.after, larger()), late=True)

    def _one(self, i: int) -> np.ndarray:
        one: np.ndarray = self.latents.result()[i]
        return one

    def _larger(self, small: Future[np.ndarray], picture: int) -> Callable[[], np.ndarray]:
        run, size = self.run, (self.after.width, self.after.height)
        if self.upscaler != BY_MODEL:
            return lambda: resize_image(small.result(), *size, self.upscaler)
        big = run.submit("upscaler", lambda: decode.enlarge(run, small.result(), picture), late=True)
        return lambda: resize_image(big.result(), *size)
