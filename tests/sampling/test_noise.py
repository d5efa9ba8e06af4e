"""Noise against torch's CPU generator (tests/golden/make_sampling.py), Random123's known answers and torch on CUDA."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from relight.errors import RequestError
from relight.sampling.noise import Philox, TorchCpu, philox_4x32, rng

TORCH = np.load(Path(__file__).parent / "torch_cpu.npz")
MIXED = np.load(Path(__file__).parent / "mixed_draws.npz")
KEPT = 40  # of a long draw the fixture holds the first and the last 20 numbers
# torch's sine, cosine and logarithm are vectorised approximations: they differ from NumPy's in the last bits.
ATOL = 1e-6


def ends(numbers: np.ndarray) -> np.ndarray:
    flat = numbers.reshape(-1)
    return np.concatenate([flat[: KEPT // 2], flat[-KEPT // 2 :]]) if flat.size > KEPT else flat


@pytest.mark.parametrize("key", TORCH)
def test_cpu_noise_is_torchs_over_two_draws(key: str) -> None:
    seed, shape = key.split("/")
    noise, size = TorchCpu(int(seed)), tuple(map(int, shape.split("x")))
    for draw in TORCH[key]:
        numbers = noise.normal(size)
        assert numbers.shape == size and numbers.dtype == np.float32
        np.testing.assert_allclose(ends(numbers), draw, rtol=0, atol=ATOL)


def test_a_number_that_waits_is_kept_over_a_draw_of_whole_groups() -> None:
    noise = TorchCpu(7)
    numbers = np.concatenate([noise.normal((size,)) for size in (3, 20, 2, 1)])
    np.testing.assert_allclose(numbers, MIXED["0"], rtol=0, atol=ATOL)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_random123s_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], words: tuple[int, ...]
) -> None:
    out = philox_4x32(np.array(counter, np.uint64)[:, None], key)
    assert tuple(out[:, 0].tolist()) == words


def test_cuda_noise_of_seed_42_is_torchs() -> None:
    known = [0.19401877, 2.1613736, -0.17205047, 0.84906024, -1.9243971]
    np.testing.assert_allclose(Philox(42).normal((5,)), known, rtol=0, atol=3e-6)


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32 + 5, 2**64 - 1])
def test_cuda_noise_is_the_arithmetic_of_the_paper_in_plain_integers(seed: int) -> None:
    noise = Philox(seed)
    for draw in range(2):
        expected = [one_philox_normal(seed, draw, i) for i in range(12)]
        np.testing.assert_allclose(noise.normal((3, 2, 2)).reshape(-1), expected, rtol=2e-5, atol=2e-5)


def one_philox_normal(seed: int, draw: int, index: int) -> float:
    counter, key = [draw, 0, index, 0], [seed % 2**32, seed // 2**32]
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * counter[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * counter[2], 2**32)
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    u, v = (counter[0] + 0.5) / 2**32, (counter[1] + 0.5) / 2**32
    return math.sqrt(-2 * math.log(u)) * math.sin(2 * math.pi * v)


@pytest.mark.parametrize("name", ["cuda", "cpu"])
def test_noise_of_a_picture_is_finite_and_standard(name: str) -> None:
    noise = rng(name, 1).normal((16, 128, 128))
    assert np.isfinite(noise).all()
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01


def test_names_lead_to_the_two_generators() -> None:
    assert all(isinstance(rng(name, 1), Philox) for name in ("cuda", "philox", "gpu"))
    assert isinstance(rng("cpu", 1), TorchCpu)


@pytest.mark.parametrize(
    ("name", "seed", "message"),
    [
        ("numpy", 1, "rng: 'numpy' is not one of cuda, philox, gpu, cpu"),
        ("cpu", -1, "seed: -1 is not from 0 to 18446744073709551615"),
        ("cuda", 2**64, "seed: 18446744073709551616 is not"),
    ],
)
def test_other_names_and_seeds_are_refused(name: str, seed: int, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        rng(name, seed)
