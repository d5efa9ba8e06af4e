"""What a pass begins from: noise, or a picture with noise on it, whole or within a mask; and what steers it besides."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from relight.images import canny, mask
from relight.images.fit import fit
from relight.images.region import Region, composite, masked_region, paste
from relight.jobs.request import Control, Redraw
from relight.jobs.run import Run
from relight.jobs.settle import Pass
from relight.sampling import latents as latent_space
from relight.sampling.noise import rng

Arrays = dict[str, np.ndarray]
GREY = 127


@dataclass(frozen=True, eq=False)
class Canvas:
    """The user's picture at the size of the pass: `image` [H W 3] uint8 and `mask` [H W] of 0 to 1, or no mask."""

    redraw: Redraw
    image: np.ndarray
    mask: np.ndarray | None = None
    region: Region | None = None

    def finished(self, made: np.ndarray) -> np.ndarray:
        """The picture that was made, laid over the user's where it was masked."""
        if self.mask is None:
            return made
        if self.region is not None:
            assert self.redraw.mask is not None
            blurred = mask.blur(self.redraw.mask, self.redraw.mask_blur)
            return paste(self.redraw.image, made, self.region, blurred)
        height, width = made.shape[:2]
        under = fit(self.image, width, height, "stretch")
        return composite(under, made, fit(mask.overlay(self.mask), width, height, "stretch"))


def canvas(redraw: Redraw, width: int, height: int) -> Canvas:
    """The picture and its mask, or the masked region of them, as the pass makes it."""
    if redraw.mask is None:
        return Canvas(redraw, fit(redraw.image, width, height, redraw.fit))
    blurred = mask.blur(redraw.mask, redraw.mask_blur)
    if redraw.only_masked:
        region = masked_region(blurred, width, height, redraw.padding)
        image, soft = (fit(region.crop(part), width, height, "crop") for part in (redraw.image, blurred))
        return Canvas(redraw, image, soft, region)
    image, soft = (fit(part, width, height, redraw.fit) for part in (redraw.image, blurred))
    return Canvas(redraw, image, soft)


@dataclass(eq=False)
class Beginning:
    """Tasks that encode what a pass needs of pictures; `arrays` puts them together for a group of pictures."""

    run: Run
    which: Pass
    canvas: Canvas | None
    picture: Future[np.ndarray] | None = None
    hollow: Future[np.ndarray] | None = None
    hints: list[np.ndarray] = field(default_factory=list)

    def arrays(self, fresh: np.ndarray) -> Arrays:
        """Of the denoising call: `latents` and what goes with them, from noise [N C h w]."""
        if self.picture is None:
            return self.beside() | {"latents": latent_space.start(fresh, float(self.which.levels[0]))}
        return self.beside() | self._redrawn(np.broadcast_to(self.picture.result(), fresh.shape), fresh)

    def beside(self) -> Arrays:
        """What steers the pass beside the text: `hint_0` ... of ControlNets, `concat` of inpainting networks."""
        found = {f"hint_{i}": hint for i, hint in enumerate(self.hints)}
        if self.hollow is not None:
            found["concat"] = np.concatenate([self._conditioning_mask(), self.hollow.result()])[None]
        return found

    def _redrawn(self, original: np.ndarray, fresh: np.ndarray) -> Arrays:
        assert self.canvas is not None
        found: Arrays = {}
        if self.canvas.mask is not None:
            masked = mask.latent_mask(self.canvas.mask, *self.which.latent_size)[None]
            if self.canvas.redraw.fill == "latent_noise":
                original = original * (1 - masked) + fresh * masked
            elif self.canvas.redraw.fill == "latent_nothing":
                original = original * (1 - masked)
            found = {"mask": masked, "original": np.ascontiguousarray(original, np.float32)}
        noisy = self.which.space.noisy(original, fresh, float(self.which.levels[0]))
        return found | {"latents": noisy.astype(np.float32)}

    def _conditioning_mask(self) -> np.ndarray:
        height, width = self.which.latent_size
        if self.canvas is None or self.canvas.mask is None:
            return np.ones((1, height, width), np.float32)
        return mask.conditioning_mask(self.canvas.mask, height, width)[None]


def begin(run: Run, which: Pass, *, inpainting_network: bool) -> Beginning:
    """Begin the encoding of what the request gives as pictures; a second pass has what the first one made instead of
    the user's. `inpainting_network`: one that sees the mask, and the picture without what is under it, beside the
    latents."""
    redraw = run.request.redraw
    beginning = Beginning(run, which, canvas(redraw, which.width, which.height) if redraw else None)
    beginning.hints = [hint(control, which) for control in run.request.controls]
    if beginning.canvas is not None and which is run.settled.passes[0]:
        beginning.picture = encoded(run, which, filled(beginning.canvas))
    if inpainting_network:
        beginning.hollow = encoded(run, which, hollowed(beginning.canvas, which))
    return beginning


def filled(canvas: Canvas) -> np.ndarray:
    if canvas.mask is None or canvas.redraw.fill != "fill":
        return canvas.image
    return mask.fill_around(canvas.image, canvas.mask)


def hollowed(canvas: Canvas | None, which: Pass) -> np.ndarray:
    """The picture with grey under the mask; all grey where there is none."""
    if canvas is None or canvas.mask is None:
        return np.full((which.height, which.width, 3), GREY, np.uint8)
    return np.where(canvas.mask[..., None] > 0.5, np.uint8(GREY), canvas.image)


def encoded(run: Run, which: Pass, image: np.ndarray) -> Future[np.ndarray]:
    return run.submit("vae_encoder", lambda: encode_picture(run, which, image))


def encode_picture(run: Run, which: Pass, image: np.ndarray) -> np.ndarray:
    """A picture's latents [C h w] as the sampler has them: the means, without the encoder's own noise."""
    sizes = run.sizes(which)
    run.load("vae_encoder", sizes)
    moments = run.call("encode", "vae_encoder", sizes, {"image": image})["moments"]
    return latent_space.from_vae(run.fleet.files.family.name, latent_space.sample(moments, None))


def hint(control: Control, which: Pass) -> np.ndarray:
    """What a ControlNet follows, [3 H W] of 0 to 1."""
    image = fit(control.image, which.width, which.height, "crop")
    if control.canny is not None:
        image = canny.canny(image, *control.canny)
    return np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) / 255


def noise(run: Run, which: Pass, seeds: Sequence[int]) -> np.ndarray:
    """Standard normal [N C h w], each picture from its seed."""
    shape = latent_space.latent_shape(run.fleet.files.family.name, which.width, which.height)
    return np.stack([rng(run.request.rng, seed).normal(shape) for seed in seeds])
