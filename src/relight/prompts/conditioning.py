"""What becomes of encoded text before the backbone attends to it: weights of tokens, and one length for all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def weighted(hidden: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The states of one chunk [T D], each times its token's weight [T], scaled so that the mean over all stays.

    As A1111 ("Original" emphasis) and stable-diffusion.cpp do; the mean stays as it comes where it cannot be restored.
    """
    if (weights == 1).all():
        return hidden
    scaled: np.ndarray = hidden * weights[:, None]
    before, after = hidden.mean(dtype=np.float64), scaled.mean(dtype=np.float64)
    restored = before / after if after else 1.0
    return (scaled * restored).astype(np.float32) if math.isfinite(restored) else scaled


def equal_lengths(contexts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Contexts [T D] of different numbers of tokens, each repeated up to the least common multiple.

    Attention to a sequence and to its repetition is the same, so passes can share a batch or a program without
    padding, which would change the picture.
    """
    length = math.lcm(*(len(context) for context in contexts))
    return [np.tile(context, (length // len(context), 1)) for context in contexts]
