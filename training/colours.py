"""Colour words: how to paint a picture in one, and which one a picture shows."""

from __future__ import annotations

import numpy as np
from PIL import Image

# hue in degrees, saturation and brightness of the middle tone
COLOURS = {
    "red": (2, 0.85, 0.88),
    "orange": (28, 0.88, 0.98),
    "yellow": (49, 0.80, 0.99),
    "green": (125, 0.65, 0.68),
    "blue": (213, 0.80, 0.90),
    "purple": (277, 0.62, 0.80),
    "pink": (332, 0.48, 0.99),
    "brown": (20, 0.62, 0.52),
    "black": (0, 0.0, 0.22),
    "gray": (0, 0.0, 0.62),
    "white": (0, 0.0, 0.93),
    "turquoise": (178, 0.72, 0.83),
}
SHAPE_COLOURS = tuple(name for name in COLOURS if name not in ("white", "gray", "turquoise"))


def recolour(picture: Image.Image, colour: str) -> Image.Image:
    """Give the picture's main hue another; what has other hues (leaves, shadows, outlines) stays."""
    rgba = np.asarray(picture.convert("RGBA"))
    hsv = np.asarray(picture.convert("RGB").convert("HSV")).astype(np.float32)
    hue, saturation, value = hsv[..., 0] * (360 / 255), hsv[..., 1] / 255, hsv[..., 2] / 255
    weight = (rgba[..., 3] > 128) * (saturation > 0.15) * saturation
    bins = np.bincount((hue // 10).astype(int).ravel() % 36, weight.ravel(), 36)
    smooth = bins + np.roll(bins, 1) + np.roll(bins, -1)
    main = smooth.argmax() * 10 + 5
    distance = np.abs((hue - main + 180) % 360 - 180)
    chosen = (distance < 42) & (saturation > 0.12)
    middle = chosen & (rgba[..., 3] > 128)
    target_hue, target_saturation, target_value = COLOURS[colour]
    turned = (target_hue + ((hue - main + 180) % 360 - 180) * 0.35) % 360
    s = np.clip(saturation * target_saturation / max(float(np.median(saturation[middle])), 0.1), 0, 1)
    spread = value / max(float(np.median(value[middle])), 0.1)
    v = np.clip(target_value * spread, 0, 1)
    painted = np.stack([turned * (255 / 360), s * 255, v * 255], -1).round().astype(np.uint8)
    rgb = np.asarray(Image.fromarray(painted, "HSV").convert("RGB"))
    out = np.where(chosen[..., None], rgb, rgba[..., :3])
    return Image.fromarray(np.concatenate([out, rgba[..., 3:]], -1).astype(np.uint8), "RGBA")


def shown(rgb: np.ndarray) -> str:
    """The colour word for the drawn part of a picture on white, [H W 3] uint8: the nearest to its middle tone.

    Judged from the most frequent hue of saturated pixels where there are enough of them, else from the brightness.
    """
    hsv = np.asarray(Image.fromarray(rgb).convert("HSV")).astype(np.float32)
    hue, saturation, value = hsv[..., 0] * (360 / 255), hsv[..., 1] / 255, hsv[..., 2] / 255
    drawn = (rgb.min(-1) < 225) | (saturation > 0.2)
    if drawn.sum() < 0.02 * drawn.size:
        return "white"
    vivid = drawn & (saturation > 0.25) & (value > 0.2)
    if vivid.sum() < 0.4 * drawn.sum():
        middle = float(np.median(value[drawn]))
        return "black" if middle < 0.42 else "gray" if middle < 0.82 else "white"
    bins = np.bincount((hue[vivid] // 4).astype(int) % 90, minlength=90)
    smooth = sum(np.roll(bins, shift) for shift in (-2, -1, 0, 1, 2))
    peak = float(np.argmax(smooth)) * 4 + 2
    near = vivid & (np.abs((hue - peak + 180) % 360 - 180) < 15)
    tone = float(np.median(saturation[near])), float(np.median(value[near]))

    def distance(name: str) -> float:
        target_hue, target_saturation, target_value = COLOURS[name]
        turn = abs((peak - target_hue + 180) % 360 - 180) / 30
        return turn**2 + ((tone[0] - target_saturation) / 0.4) ** 2 + ((tone[1] - target_value) / 0.3) ** 2

    return min((name for name in COLOURS if COLOURS[name][1]), key=distance)
