"""The published UNets' sizes, and the inputs of the golden files' small ones."""

from __future__ import annotations

import numpy as np

from golden.weights import UnetSpec
from relight.models import unet

SD15 = UnetSpec((320, 640, 1280, 1280), (1, 1, 1, 0), 1, 768, linear_projection=False)
SD21 = UnetSpec((320, 640, 1280, 1280), (1, 1, 1, 0), 1, 1024)
SDXL = UnetSpec((320, 640, 1280), (0, 2, 10), 10, 2048, label=2816)


def step_inputs(stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Latents, timesteps and context, and the label where there are pooled text and sizes."""
    inputs = {name: stored[name] for name in ("latents", "timesteps", "context")}
    if "pooled" in stored:
        height, width, top, left, target_height, target_width = stored["sizes"][0].astype(int).tolist()
        sizes = (height, width), (top, left), (target_height, target_width)
        inputs["label"] = unet.sdxl_label(stored["pooled"], *sizes)
    return inputs
