"""FLUX's latents: their shape, where they begin, the tokens the transformer takes, the scale the VAE works in. Float32.

In shape comments: h, w latent pixels, 8 picture pixels each; a token is 2x2 of them.
"""

from __future__ import annotations

import numpy as np

from relight.errors import RequestError

CHANNELS = 16
SCALE = 8  # picture pixels to a latent pixel
PATCH = 2
GRAIN = SCALE * PATCH
SMALLEST, LARGEST = 64, 4096
VAE_SCALE, VAE_SHIFT = np.float32(0.3611), np.float32(0.1159)


def latent_shape(width: int, height: int) -> tuple[int, int, int]:
    """(16, h, w) for a picture in pixels. Raises RequestError, with the nearest size that can be made."""
    if not (valid(width) and valid(height)):
        raise RequestError(
            f"size: {width}x{height} cannot be made; width and height are multiples of {GRAIN} from {SMALLEST} to "
            f"{LARGEST}: the nearest is {nearest(width)}x{nearest(height)}"
        )
    return CHANNELS, height // SCALE, width // SCALE


def image_tokens(width: int, height: int) -> int:
    """Tokens of a picture of `width` x `height` pixels. Raises RequestError as `latent_shape` does."""
    _, latent_height, latent_width = latent_shape(width, height)
    return latent_height // PATCH * (latent_width // PATCH)


def start(noise: np.ndarray, sigma: float) -> np.ndarray:
    """Where sampling without a picture begins: all noise at sigma 1, less where given sigmas begin lower."""
    return noise * np.float32(sigma)


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


def to_vae(latents: np.ndarray) -> np.ndarray:
    """From the transformer's latents to those the VAE decodes."""
    return latents / VAE_SCALE + VAE_SHIFT


def from_vae(latents: np.ndarray) -> np.ndarray:
    """From what the VAE encodes to the transformer's latents."""
    return (latents - VAE_SHIFT) * VAE_SCALE


def valid(pixels: int) -> bool:
    return SMALLEST <= pixels <= LARGEST and pixels % GRAIN == 0


def nearest(pixels: int) -> int:
    return (min(max(pixels, SMALLEST), LARGEST) + GRAIN // 2) // GRAIN * GRAIN
