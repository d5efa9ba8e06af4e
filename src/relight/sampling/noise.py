"""Noise by seed, in the two conventions users compare pictures by.

`Philox` is what torch draws on a CUDA device, and with it A1111's GPU and NV sources and stable-diffusion.cpp's
default; `TorchCpu` is what torch draws on the CPU, as ComfyUI and diffusers do. Each picture of a batch has a generator
of its own, and noise is drawn in the latents' [C h w].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from relight.errors import RequestError

WORD = np.uint64(0xFFFF_FFFF)
MULTIPLIERS = np.uint64(0xD251_1F53), np.uint64(0xCD9E_8D57)
WEYL = 0x9E37_79B9, 0xBB67_AE85
ROUNDS = 10
BLOCK = 1 << 14  # numbers that stay in the processor's cache: twice as fast as 2^18 at once
GROUP = 16  # torch fills this many at a time


class Noise(Protocol):
    def normal(self, shape: Sequence[int]) -> np.ndarray:
        """The next standard normal numbers, float32."""


class Philox:
    """Counter-based: number i of draw d depends on (seed, d, i) alone. torch's CUDA generator gives the same as long as
    the device has a thread for each number, and A1111 and stable-diffusion.cpp for any size."""

    def __init__(self, seed: int) -> None:
        self._key = seed & 0xFFFF_FFFF, seed >> 32
        self._draws = 0

    def normal(self, shape: Sequence[int]) -> np.ndarray:
        size = math.prod(shape)
        flat = np.empty(size, np.float32)
        for start in range(0, size, BLOCK):
            counter = np.zeros((4, min(BLOCK, size - start)), np.uint64)
            counter[0], counter[2] = self._draws, np.arange(start, start + counter.shape[1])
            flat[start : start + BLOCK] = box_muller(*philox_4x32(counter, self._key)[:2])
        self._draws += 1
        return flat.reshape(shape)


class TorchCpu:
    """Mersenne Twister as torch uses it: 16 numbers at a time, or one by one in float64 where there are fewer."""

    def __init__(self, seed: int) -> None:
        self._twister = np.random.RandomState(seed & 0xFFFF_FFFF)  # torch takes the low 32 bits as well
        self._kept: float | None = None  # numbers drawn one by one come in pairs; the second waits for its turn

    def normal(self, shape: Sequence[int]) -> np.ndarray:
        size = math.prod(shape)
        flat = self._groups(size) if size >= GROUP else np.array([self._single() for _ in range(size)], np.float32)
        return flat.reshape(shape)

    def _groups(self, size: int) -> np.ndarray:
        """Whole groups in their order; where some are left over, the last 16 numbers are drawn anew."""
        uniform = self._uniform(size)
        whole = size - size % GROUP
        out = np.concatenate([normal_groups(uniform[:whole]), uniform[whole:]])
        if whole < size:
            out[-GROUP:] = normal_groups(self._uniform(GROUP))
        return out

    def _uniform(self, size: int) -> np.ndarray:
        """Float32 in [0, 1), 24 bits each."""
        return (self._words(size) & 0xFF_FFFF).astype(np.float32) * np.float32(2**-24)

    def _single(self) -> float:
        if self._kept is not None:
            kept, self._kept = self._kept, None
            return kept
        high, low = self._words(4).astype(np.uint64).reshape(2, 2).T
        angle, u = (((high << np.uint64(32)) | low) & np.uint64(2**53 - 1)).astype(np.float64) * 2.0**-53
        radius = math.sqrt(-2 * math.log1p(-u))
        self._kept = radius * math.sin(2 * math.pi * angle)
        return radius * math.cos(2 * math.pi * angle)

    def _words(self, count: int) -> np.ndarray:
        return np.frombuffer(self._twister.bytes(4 * count), "<u4")


GENERATORS: dict[str, Callable[[int], Noise]] = {"cuda": Philox, "philox": Philox, "gpu": Philox, "cpu": TorchCpu}


def rng(name: str, seed: int) -> Noise:
    """The generator a user names. Raises RequestError for another name, and for a seed that is not 0 to 2^64 - 1."""
    if name not in GENERATORS:
        raise RequestError(f"rng: {name!r} is not one of {', '.join(GENERATORS)}")
    if not 0 <= seed < 2**64:
        raise RequestError(f"seed: {seed} is not from 0 to {2**64 - 1}")
    return GENERATORS[name](seed)


def philox_4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Ten rounds over counters [4 n] of 32-bit words in uint64 (Salmon et al. 2011, "Parallel random numbers")."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        a, b = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1 = (b >> np.uint64(32)) ^ c1 ^ np.uint64(k0), b & WORD
        c2, c3 = (a >> np.uint64(32)) ^ c3 ^ np.uint64(k1), a & WORD
        k0, k1 = (k0 + WEYL[0]) & 0xFFFF_FFFF, (k1 + WEYL[1]) & 0xFFFF_FFFF
    return np.stack([c0, c1, c2, c3])


def box_muller(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Two 32-bit words to one normal number, in float32 throughout, as cuRAND does; only the sine is used."""
    unit, turn = np.float32(2.3283064e-10), np.float32(2.3283064e-10) * np.float32(6.2831855)  # 2^-32, 2 pi 2^-32
    u = x.astype(np.float32) * unit + unit / 2
    v = y.astype(np.float32) * turn + turn / 2
    normal: np.ndarray = np.sqrt(-2 * np.log(u)) * np.sin(v)
    return normal


def normal_groups(uniform: np.ndarray) -> np.ndarray:
    """Box-Muller in groups of 16: numbers j and j + 8 make numbers j (cosine) and j + 8 (sine). [16 n], float32."""
    u1, u2 = uniform.reshape(-1, 2, GROUP // 2).swapaxes(0, 1)
    radius, angle = np.sqrt(-2 * np.log(1 - u1)), np.float32(2 * math.pi) * u2
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
