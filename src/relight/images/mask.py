"""Masks of inpainting, float32 [H W], 1 where the picture is painted anew: blurred, brought to latents, filled.

Blur, latent mask and the order of things follow A1111: blur the mask, fill the picture under it, encode, then either
keep those latents or put noise or nothing under the latent mask.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from relight.errors import RequestError

FILLS = ("fill", "original", "latent_noise", "latent_nothing")
"""A1111's `inpainting_fill` 0 to 3. `fill` and `original` concern the picture, the others its latents."""
MID_GREY = 127.5
REACH = 2.5  # standard deviations, where A1111 cuts its Gaussian off


def check_fill(mode: str) -> None:
    """Raises RequestError for what is none of `FILLS`."""
    if mode not in FILLS:
        raise RequestError(f"inpainting fill: there is no {mode!r}; there are {', '.join(FILLS)}")


def blur(mask: np.ndarray, pixels: float) -> np.ndarray:
    """Gaussian of standard deviation `pixels`; beyond the edges the mask is mirrored. 0 leaves it as it is."""
    if pixels <= 0:
        return mask
    reach = int(REACH * pixels + 0.5)
    kernel = np.exp(-0.5 * (np.arange(reach + 1) / pixels) ** 2).astype(np.float32)
    kernel /= 2 * kernel.sum() - kernel[0]
    return blurred_columns(blurred_columns(mask, kernel).T, kernel).T


def blurred_columns(mask: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Along axis 0; `kernel` is the right half of a symmetric one, from its middle on."""
    reach, height = len(kernel) - 1, mask.shape[0]
    mirrored = np.pad(mask, [(reach, reach), (0, 0)], mode="reflect" if height > 1 else "edge")
    total: np.ndarray = mirrored[reach : reach + height] * kernel[0]
    for distance in range(1, reach + 1):
        pair = mirrored[reach - distance :][:height] + mirrored[reach + distance :][:height]
        total += pair * kernel[distance]
    return total


def overlay(mask: np.ndarray) -> np.ndarray:
    """The mask for laying the finished picture over the original, when all of it was made: everything that is masked by
    half or more comes from the new one, as in A1111. Where only a region was made it is the blurred mask itself."""
    widened: np.ndarray = np.minimum(mask * 2, 1)
    return widened


def latent_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """[height width] in latent pixels, 0 or 1: bicubic and rounded, as A1111 does it.

    ComfyUI keeps the fractions. Hard edges are chosen, for a latent pixel half kept at each step is blurred; the soft
    edge is made in pixels, by `overlay` and `region.composite`.
    """
    small = Image.fromarray(np.ascontiguousarray(mask)).resize((width, height), Image.Resampling.BICUBIC)
    return (np.asarray(small) > 0.5).astype(np.float32)


def conditioning_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """[height width], 0 or 1: the mask channel of inpainting checkpoints, rounded and then sampled, as they were
    trained and as A1111 and diffusers do it."""
    rows, columns = np.arange(height) * mask.shape[0] // height, np.arange(width) * mask.shape[1] // width
    return (mask[np.ix_(rows, columns)] > 0.5).astype(np.float32)


def hollow(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture inpainting checkpoints see: uint8 [H W 3] as float32 [3 H W] of -1 to 1, mid-grey where masked."""
    scaled = image.astype(np.float32) / MID_GREY - 1
    return np.ascontiguousarray((scaled * (mask <= 0.5)[..., None]).transpose(2, 0, 1))


def fill_around(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Colours from around the mask under it, smoother the further in; uint8 [H W 3]. Mid-grey if all is masked.

    By averages over ever larger squares of what is known (pull-push: Gortler et al. 1996, "The Lumigraph").
    """
    weight = 1 - mask[..., None].astype(np.float32)
    colours = pulled(image.astype(np.float32) * weight, weight)
    return np.rint(colours.clip(0, 255)).astype(np.uint8)


def pulled(colours: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """`colours` [h w 3], weighted by `weight` [h w 1], and what they lack from the same at half the size."""
    if weight.min() >= 1:
        return colours
    height, width = weight.shape[:2]
    if height == width == 1:
        return colours / weight if weight.any() else np.full_like(colours, MID_GREY)
    total = quartered(weight)
    known = np.minimum(total, 1)
    coarse = pulled(quartered(colours) * (known / np.maximum(total, np.finfo(np.float32).tiny)), known)
    filled: np.ndarray = colours + (1 - weight) * doubled(coarse)[:height, :width]
    return filled


def quartered(values: np.ndarray) -> np.ndarray:
    """Sums of 2x2 pixels; an odd edge is summed with nothing."""
    height, width, channels = values.shape
    even = np.pad(values, [(0, height % 2), (0, width % 2), (0, 0)])
    sums: np.ndarray = even.reshape((height + 1) // 2, 2, (width + 1) // 2, 2, channels).sum((1, 3))
    return sums


def doubled(values: np.ndarray) -> np.ndarray:
    """[h w C] as [2h 2w C], bilinear."""
    size = (2 * values.shape[1], 2 * values.shape[0])
    planes = [Image.fromarray(np.ascontiguousarray(values[..., i])) for i in range(values.shape[2])]
    return np.stack([np.asarray(plane.resize(size, Image.Resampling.BILINEAR)) for plane in planes], axis=-1)
