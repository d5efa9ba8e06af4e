"""Latents: their shape by family, where they begin, the scale the VAE works in, the tokens FLUX takes. Float32.

In shape comments: h, w latent pixels, 8 picture pixels each; a token is 2x2 of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from relight.errors import RequestError

SCALE = 8  # picture pixels to a latent pixel
PATCH = 2  # latent pixels to a side of FLUX's tokens
SMALLEST, LARGEST = 64, 4096
LOG_VARIANCE = -30.0, 20.0  # what the encoder's is held to, as in the published autoencoder


@dataclass(frozen=True)
class Latents:
    """A family's latents: `channels`; sides of pictures are multiples of `grain` pixels; the network's latents are
    (those of the VAE - `shift`) * `scale`."""

    channels: int
    grain: int
    scale: float
    shift: float = 0.0


FAMILIES = {
    "sd1": Latents(4, SCALE, 0.18215),
    "sd2": Latents(4, SCALE, 0.18215),
    "sdxl": Latents(4, SCALE, 0.13025),
    "flux": Latents(16, SCALE * PATCH, 0.3611, 0.1159),
}


def latent_shape(family: str, width: int, height: int) -> tuple[int, int, int]:
    """(C, h, w) for a picture in pixels. Raises RequestError, with the nearest size that can be made."""
    space = FAMILIES[family]
    if not (_valid(width, space.grain) and _valid(height, space.grain)):
        raise RequestError(
            f"size: {width}x{height} cannot be made; width and height are multiples of {space.grain} from {SMALLEST} "
            f"to {LARGEST}: the nearest is {nearest(family, width)}x{nearest(family, height)}"
        )
    return space.channels, height // SCALE, width // SCALE


def nearest(family: str, pixels: int) -> int:
    """The side that can be made nearest to one that was asked for."""
    grain = FAMILIES[family].grain
    return (min(max(pixels, SMALLEST), LARGEST) + grain // 2) // grain * grain


def _valid(pixels: int, grain: int) -> bool:
    return SMALLEST <= pixels <= LARGEST and pixels % grain == 0


def start(noise: np.ndarray, sigma: float) -> np.ndarray:
    """Where sampling without a picture begins; with one, `Parameterisation.noisy` says."""
    return noise * np.float32(sigma)


def to_vae(family: str, latents: np.ndarray) -> np.ndarray:
    """From the network's latents to those the VAE decodes."""
    space = FAMILIES[family]
    return latents / space.scale + space.shift


def from_vae(family: str, latents: np.ndarray) -> np.ndarray:
    """From what the VAE encodes to the network's latents."""
    space = FAMILIES[family]
    return (latents - space.shift) * space.scale


def sample(moments: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
    """The VAE encoder's mean and log variance [... 2C h w] to latents [... C h w]; without noise the mean."""
    mean, log_variance = np.split(moments, 2, axis=-3)
    if noise is None:
        return mean
    deviation: np.ndarray = np.exp(np.clip(log_variance, *LOG_VARIANCE) / 2)
    return mean + deviation * noise


def image_tokens(width: int, height: int) -> int:
    """FLUX's tokens of a picture in pixels. Raises RequestError as `latent_shape` does."""
    _, latent_height, latent_width = latent_shape("flux", width, height)
    return latent_height // PATCH * (latent_width // PATCH)


def pack(latents: np.ndarray) -> np.ndarray:
    """[C h w] to tokens [h/2*w/2 4C], row by row; the features of a token are (channel, row, column)."""
    channels, height, width = latents.shape
    if height % PATCH or width % PATCH:
        raise ValueError(f"latents of {height}x{width} cannot be cut into patches of {PATCH}x{PATCH}")
    patches = latents.reshape(channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return np.ascontiguousarray(patches.transpose(1, 3, 0, 2, 4)).reshape(-1, channels * PATCH * PATCH)


def unpack(tokens: np.ndarray, height: int, width: int) -> np.ndarray:
    """The inverse of `pack`: [h/2*w/2 4C] to [C h w]; `height` and `width` in latent pixels."""
    rows, columns = height // PATCH, width // PATCH
    if tokens.shape[0] != rows * columns:
        raise ValueError(f"{tokens.shape[0]} tokens are not latents of {height}x{width}, which are {rows * columns}")
    patches = tokens.reshape(rows, columns, -1, PATCH, PATCH).transpose(2, 0, 3, 1, 4)
    return np.ascontiguousarray(patches).reshape(-1, height, width)
