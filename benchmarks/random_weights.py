"""Tensors of random numbers for checkpoints of real size, as fast as the disk cache takes them.

Matrices come from pools of normal numbers already in their format, read from a random place on. With a deviation of
1 / sqrt(inner size) what goes through a network keeps its magnitude.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from functools import cache, partial
from math import prod, sqrt

import numpy as np

from relight.executors.ggml.quantize import quantize
from relight.weights.formats import FORMATS, nbytes
from relight.weights.write import TensorSource

POOL_ELEMENTS = 1 << 20
ODD_BLOCKS = 37  # a pool is no whole number of rows, so that no two rows of a matrix are the same
PLAIN = {"F32": "<f4", "F16": "<f2"}


def source(name: str, shape: tuple[int, ...], format_name: str, std: float, mean: float = 0.0) -> TensorSource:
    """A tensor by its shape: matrices and kernels of the given deviation, vectors about `mean`, scales of norms about
    one. The same name always gets the same numbers."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith(VAE_CENTRED):
        return TensorSource(name, shape, format_name, partial(_centred, format_name, std, shape, rng))
    if len(shape) > 1:
        return TensorSource(name, shape, format_name, partial(_from_pool, format_name, std, shape, rng))
    centre = 1.0 if name.endswith((".scale", ".weight")) else mean
    vector = (centre + 0.05 * rng.standard_normal(shape)).astype(PLAIN[format_name])
    return TensorSource(name, shape, format_name, lambda: vector)


def symmetric(name: str, size: int, format_name: str) -> TensorSource:
    """A square matrix that is its own transpose."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))

    def values() -> np.ndarray:
        matrix = rng.standard_normal((size, size), np.float32)
        return ((matrix + matrix.T) / sqrt(2 * size)).astype(PLAIN[format_name])

    return TensorSource(name, (size, size), format_name, values)


VAE_CENTRED = ("decoder.conv_in.weight", "upsample.conv.weight", "decoder.conv_out.weight")
"""Kernels with most of their weight in the centre, so that pictures follow their latents place by place: relight looks
whether they do, as all trained autoencoders' do."""
ASIDE = 0.2  # deviation elsewhere, by that of the centre
VAE_GAINS = {
    "decoder.conv_out": 0.6,  # so that few pixels leave the range of the picture
    ".conv2.": 0.3,
    ".attn_1.proj_out": 0.3,
}


def deviation(name: str, shape: tuple[int, ...], gains: Mapping[str, float]) -> float:
    """Standard deviation of a matrix's values: 1 / sqrt(inner size), times the gain of the first part of its name that
    is there. 0 for vectors."""
    if len(shape) == 1:
        return 0.0
    if name.endswith(("token_embedding.weight", "shared.weight")):
        return 1.0
    if name.endswith(("position_embedding.weight", "positional_embedding", "relative_attention_bias.weight")):
        return 0.5
    gain = next((gain for part, gain in gains.items() if part in name), 1.0)
    return gain / sqrt(inner_size(shape))


def inner_size(shape: tuple[int, ...]) -> int:
    """Numbers that are added up for one of the layer's outputs."""
    return prod(shape[1:])


def _centred(format_name: str, std: float, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A kernel of 3x3 that keeps the magnitude of what it is given, as one of `std` everywhere would."""
    taps = np.full((3, 3), ASIDE)
    taps[1, 1] = 1
    taps *= 3 / sqrt(np.square(taps).sum())
    return (std * taps * rng.standard_normal(shape, np.float32)).astype(PLAIN[format_name])


def _from_pool(format_name: str, std: float, shape: tuple[int, ...], rng: np.random.Generator) -> Iterator[memoryview]:
    size, pool = nbytes(format_name, shape), _pool(format_name, std)
    block = FORMATS[format_name].block_bytes
    start = int(rng.integers(len(pool) // block)) * block
    while size:
        piece = pool[start : start + size]
        yield piece
        size -= len(piece)
        start = 0


@cache
def _pool(format_name: str, std: float) -> memoryview:
    """Bytes of normal numbers in a format; block formats by ggml's quantiser."""
    count = POOL_ELEMENTS + ODD_BLOCKS * FORMATS[format_name].block_elements
    values = std * np.random.default_rng(0).standard_normal(count, np.float32)
    stored = values.astype(PLAIN[format_name]) if format_name in PLAIN else quantize(values, format_name)
    return memoryview(stored).cast("B")
