"""Shapes of small TAESD and ESRGAN networks in the published layout; `weights.random_weights` fills them."""

from __future__ import annotations

import numpy as np

from golden.weights import Shapes, conv, random_weights

TAESD_CHANNELS = 32
DECODER_BLOCKS, ENCODER_BLOCKS = (3, 3, 3, 1), (1, 3, 3, 3)
RRDB_FEATURES, RRDB_GROWTH, RRDB_BLOCKS = 24, 32, 2
COMPACT_FEATURES, COMPACT_CONVS = 24, 3

RRDB_KINDS = {"rrdb_x4": (1, 2), "rrdb_x2": (2, 2), "rrdb_x1": (4, 2), "rrdb_x2_once": (1, 1)}
"""Unshuffling and doublings: Real-ESRGAN's three, and ESRGAN's of two, which has one doubling."""
COMPACT_KINDS = {"compact_x4": 4, "compact_x2": 2}


def taesd_shapes(latent_channels: int) -> Shapes:
    return taesd_decoder_shapes(latent_channels) | taesd_encoder_shapes(latent_channels)


def taesd_decoder_shapes(latent_channels: int) -> Shapes:
    p, size = "decoder.layers", TAESD_CHANNELS
    shapes, layer = conv(f"{p}.0", size, latent_channels), 2
    for level, count in enumerate(DECODER_BLOCKS):
        for i in range(count):
            shapes |= block_shapes(f"{p}.{layer + i}")
        layer += count + 1
        if level < len(DECODER_BLOCKS) - 1:
            shapes |= unbiased(conv(f"{p}.{layer}", size, size))
            layer += 1
    return shapes | conv(f"{p}.{layer - 1}", 3, size)


def taesd_encoder_shapes(latent_channels: int) -> Shapes:
    p, size, layer = "encoder.layers", TAESD_CHANNELS, 0
    shapes: Shapes = {}
    for level, count in enumerate(ENCODER_BLOCKS):
        shapes |= unbiased(conv(f"{p}.{layer}", size, size)) if level else conv(f"{p}.{layer}", size, 3)
        for i in range(1, count + 1):
            shapes |= block_shapes(f"{p}.{layer + i}")
        layer += count + 1
    return shapes | conv(f"{p}.{layer}", latent_channels, size)


def block_shapes(name: str) -> Shapes:
    shapes: Shapes = {}
    for i in (0, 2, 4):
        shapes |= conv(f"{name}.conv.{i}", TAESD_CHANNELS, TAESD_CHANNELS)
    return shapes


def unbiased(shapes: Shapes) -> Shapes:
    return {name: shape for name, shape in shapes.items() if not name.endswith(".bias")}


def rrdb_shapes(unshuffle: int = 1, doublings: int = 2) -> Shapes:
    size, growth = RRDB_FEATURES, RRDB_GROWTH
    shapes = conv("conv_first", size, 3 * unshuffle**2) | conv("conv_body", size, size)
    for i in range(RRDB_BLOCKS):
        for part in ("rdb1", "rdb2", "rdb3"):
            p = f"body.{i}.{part}"
            for n in range(4):
                shapes |= conv(f"{p}.conv{n + 1}", growth, size + n * growth)
            shapes |= conv(f"{p}.conv5", size, size + 4 * growth)
    for i in range(doublings):
        shapes |= conv(f"conv_up{i + 1}", size, size)
    return shapes | conv("conv_hr", size, size) | conv("conv_last", 3, size)


def compact_shapes(scale: int) -> Shapes:
    size, last = COMPACT_FEATURES, 2 * (COMPACT_CONVS + 1)
    shapes = conv("body.0", size, 3)
    for i in range(COMPACT_CONVS):
        shapes |= conv(f"body.{2 * i + 2}", size, size)
    for i in range(COMPACT_CONVS + 1):
        shapes |= {f"body.{2 * i + 1}.weight": (size,)}
    return shapes | conv(f"body.{last}", 3 * scale**2, size)


def compact_weights(scale: int) -> dict[str, np.ndarray]:
    """With slopes of about 0.25, some of them negative."""
    arrays = random_weights(compact_shapes(scale))
    for name, array in arrays.items():
        if array.ndim == 1 and name.endswith("weight"):
            arrays[name] = 3 * array - np.float32(2.75)
    return arrays
