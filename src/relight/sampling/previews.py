"""What latents will look like, without a decoder: each latent pixel's colour by one matrix for each family.

The factors were fitted to decoded pictures. They are the numbers of ComfyUI's `comfy/latent_formats.py`
(latent_rgb_factors and latent_rgb_factors_bias of SD15, SDXL and Flux).
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

SD = np.array(
    [
        [0.3512, 0.2297, 0.3227],
        [0.3250, 0.4974, 0.2350],
        [-0.2829, 0.1762, 0.2721],
        [-0.2120, -0.2616, -0.7177],
    ],
    np.float32,
)
SDXL = np.array(
    [
        [0.3651, 0.4232, 0.4341],
        [-0.2533, -0.0042, 0.1068],
        [0.1076, 0.1111, -0.0362],
        [-0.3165, -0.2492, -0.2188],
    ],
    np.float32,
)
FLUX = np.array(
    [
        [-0.0346, 0.0244, 0.0681],
        [0.0034, 0.0210, 0.0687],
        [0.0275, -0.0668, -0.0433],
        [-0.0174, 0.0160, 0.0617],
        [0.0859, 0.0721, 0.0329],
        [0.0004, 0.0383, 0.0115],
        [0.0405, 0.0861, 0.0915],
        [-0.0236, -0.0185, -0.0259],
        [-0.0245, 0.0250, 0.1180],
        [0.1008, 0.0755, -0.0421],
        [-0.0515, 0.0201, 0.0011],
        [0.0428, -0.0012, -0.0036],
        [0.0817, 0.0765, 0.0749],
        [-0.1264, -0.0522, -0.1103],
        [-0.0280, -0.0881, -0.0499],
        [-0.1262, -0.0982, -0.0778],
    ],
    np.float32,
)
"""Red, green and blue of each channel of the latents as the diffusion network has them; -1 is black, 1 full colour."""

FACTORS = {
    "sd1": (SD, np.zeros(3, np.float32)),
    "sd2": (SD, np.zeros(3, np.float32)),
    "sdxl": (SDXL, np.array([0.1084, -0.0175, -0.0011], np.float32)),
    "flux": (FLUX, np.array([-0.0329, -0.0718, -0.0851], np.float32)),
}
"""By family: factors [C 3] and what is added to each colour."""


def preview(latents: np.ndarray, family: str) -> np.ndarray:
    """Latents [C h w], as the diffusion network has them and best with its noise taken off, to uint8 [h w 3].

    Raises ValueError for a family without factors, or latents of another number of channels. Values that are not
    finite are shown as black or full colour.
    """
    if family not in FACTORS:
        raise ValueError(f"no preview of family {family}: there are factors for {', '.join(FACTORS)}")
    factors, offset = FACTORS[family]
    if latents.ndim != 3 or len(latents) != len(factors):
        raise ValueError(f"a preview of {family} takes latents [{len(factors)} h w], not {list(latents.shape)}")
    finite = np.nan_to_num(latents.astype(np.float32), posinf=1e6, neginf=-1e6)
    colours = np.einsum("chw,cr->hwr", finite, factors) + offset
    levels: np.ndarray = np.rint((colours.clip(-1, 1) + 1) * 127.5)
    return levels.astype(np.uint8)


def enlarged(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """A preview [h w 3] at the size it is shown at, uint8 [height width 3]; smoothly, since its pixels are few."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def jpeg(image: np.ndarray, quality: int = 80) -> bytes:
    """A file of the picture, uint8 [h w 3]. `quality` 1 to 95."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=quality)
    return out.getvalue()
