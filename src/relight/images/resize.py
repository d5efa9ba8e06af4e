"""Pictures and masks in another size, by Pillow's filters, which look at every pixel they shrink."""

from __future__ import annotations

import numpy as np
from PIL import Image

from relight.errors import RequestError

FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}


def resize_image(image: np.ndarray, width: int, height: int, method: str = "lanczos") -> np.ndarray:
    """A picture uint8 [H W 3] or mask float32 [H W] as `width` x `height`; a mask stays within 0 to 1.

    Raises RequestError for a method that is none of `FILTERS`.
    """
    if method not in FILTERS:
        raise RequestError(f"resize: there is no {method!r}; there are {', '.join(FILTERS)}")
    if image.shape[:2] == (height, width):
        return image
    resized = np.asarray(Image.fromarray(image).resize((width, height), FILTERS[method]))
    return resized.clip(0, 1) if image.dtype == np.float32 else resized
