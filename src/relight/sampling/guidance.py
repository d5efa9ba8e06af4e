"""Classifier-free guidance: away from what the negative prompt gives, towards what the prompt gives."""

from __future__ import annotations

import numpy as np


def needs_negative(scale: float) -> bool:
    """Whether a second pass is of use: at 1 the negative prompt drops out."""
    return scale != 1


def cfg(positive: np.ndarray, negative: np.ndarray, scale: float) -> np.ndarray:
    """Ho & Salimans 2022. On the network's outputs or on the denoised latents: the same, both depend linearly."""
    return negative + (positive - negative) * scale


def rescale(guided: np.ndarray, positive: np.ndarray, phi: float) -> np.ndarray:
    """Bring back the contrast that high scales add: `phi` of the way to the prompt's own deviation, picture by picture.

    Arrays [... C h w] of the network's outputs (Lin et al. 2023, "Common diffusion noise schedules", 3.4).
    """
    axes = (-3, -2, -1)
    ratio = positive.std(axes, keepdims=True) / guided.std(axes, keepdims=True)
    return guided * (phi * ratio + (1 - phi))
