"""Decoding of every format, by hand and against the gguf package."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from checkpoints import random_blocks
from relight.errors import ModelFileError
from relight.weights.checkpoint import StoredTensor
from relight.weights.formats import FORMATS
from relight.weights.quants import CHUNK_ELEMENTS, F8_E4M3, read_float32, row_bytes, to_float32

BLOCKED = [name for name, stored in FORMATS.items() if stored.block_elements > 1]


def raw(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)


@pytest.mark.parametrize(
    ("format_name", "stored", "values"),
    [
        ("F32", struct.pack("<2f", 1.5, -2), [1.5, -2]),
        ("F16", struct.pack("<2e", 0.5, 65504), [0.5, 65504]),
        ("BF16", b"\x80\x3f\x40\xc0", [1, -3]),
        ("I32", struct.pack("<2i", 7, -9), [7, -9]),
        ("F8_E4M3", b"\x00\x38\xb8\x7e\x01\x08\x40", [0, 1, -1, 448, 2**-9, 2**-6, 2]),
    ],
)
def test_plain_formats_by_hand(format_name: str, stored: bytes, values: list[float]) -> None:
    np.testing.assert_array_equal(to_float32(format_name, raw(stored), (len(values),)), np.float32(values))


def test_e4m3_has_two_nans_and_no_infinity() -> None:
    assert np.flatnonzero(np.isnan(F8_E4M3)).tolist() == [0x7F, 0xFF]
    assert np.nanmax(np.abs(F8_E4M3)) == 448


def test_q8_0_by_hand() -> None:
    stored = struct.pack("<e32b", 0.5, *range(-16, 16))
    np.testing.assert_array_equal(to_float32("Q8_0", raw(stored), (1, 32))[0], np.arange(-16, 16) / 2)


def test_q4_0_by_hand() -> None:
    """Low nibbles are the first sixteen values, high nibbles the rest; 8 is zero."""
    stored = struct.pack("<e", 2.0) + bytes(i | (15 - i) << 4 for i in range(16))
    expected = [2 * (i - 8) for i in range(16)] + [2 * (7 - i) for i in range(16)]
    np.testing.assert_array_equal(to_float32("Q4_0", raw(stored), (32,)), np.float32(expected))


def test_q4_k_by_hand() -> None:
    """Value = d·scale·nibble - dmin·minimum; the first 32 values use the low nibbles of the first 32 bytes."""
    scales = bytes([3, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0])
    stored = struct.pack("<2e", 0.5, 0.25) + scales + bytes([9] * 128)
    values = to_float32("Q4_K", raw(stored), (1, 256))[0]
    np.testing.assert_array_equal(values[:32], np.full(32, 0.5 * 3 * 9 - 0.25 * 5, np.float32))
    np.testing.assert_array_equal(values[32:], np.zeros(224, np.float32))


@pytest.mark.parametrize("format_name", BLOCKED)
def test_block_formats_agree_with_gguf(format_name: str) -> None:
    stored = random_blocks(format_name, (3, 512), np.random.default_rng(1))
    values = to_float32(format_name, stored, (3, 512))
    expected = quants.dequantize(stored.reshape(3, -1), GGMLQuantizationType[format_name])
    np.testing.assert_array_equal(values, expected)
    assert np.isfinite(values).all()
    assert values.std() > 0


def test_wrong_number_of_bytes_is_refused_with_both_numbers() -> None:
    with pytest.raises(ModelFileError, match="takes 34 bytes, and 33 are given"):
        to_float32("Q8_0", np.zeros(33, np.uint8), (32,))


def test_format_without_decoder_is_refused_by_name() -> None:
    with pytest.raises(ModelFileError, match="IQ3_S"):
        to_float32("IQ3_S", np.zeros(110, np.uint8), (256,))


def in_parts(
    format_name: str, rows: tuple[int, ...], width: int, scale: float = 1.0
) -> tuple[StoredTensor, np.ndarray]:
    parts = tuple(random_blocks(format_name, (n, width), np.random.default_rng(n)) for n in rows)
    whole = to_float32(format_name, np.concatenate(parts), (sum(rows), width)) * np.float32(scale)
    return StoredTensor("w", (sum(rows), width), format_name, parts, scale), whole


@pytest.mark.parametrize(
    "rows", [None, slice(2, 9), slice(5, 6), slice(None, None, -1), [7, 0, 7, 3], np.array([], np.int64), slice(0, 0)]
)
def test_rows_are_read_across_parts(rows) -> None:
    tensor, whole = in_parts("Q4_K", (4, 3, 5), 256, scale=0.5)
    np.testing.assert_array_equal(read_float32(tensor, rows), whole if rows is None else whole[rows])


def test_rows_of_a_vector() -> None:
    tensor = StoredTensor("b", (4,), "F32", (raw(struct.pack("<2f", 1, 2)), raw(struct.pack("<2f", 3, 4))), 2.0)
    assert read_float32(tensor).tolist() == [2, 4, 6, 8]
    assert read_float32(tensor, [3, 0]).tolist() == [8, 2]


def test_scalar_is_read() -> None:
    assert read_float32(StoredTensor("s", (), "F32", (raw(struct.pack("<f", 3)),))).tolist() == 3


def test_convolution_kernels_keep_their_axes() -> None:
    kernel = np.arange(2 * 3 * 3 * 3, dtype=np.float32).reshape(2, 3, 3, 3)
    tensor = StoredTensor("w", kernel.shape, "F16", (kernel.astype("<f2").reshape(-1).view(np.uint8),))
    np.testing.assert_array_equal(read_float32(tensor), kernel)


def test_rows_that_lie_together_are_not_copied() -> None:
    tensor, _ = in_parts("Q8_0", (4, 4), 64)
    assert np.shares_memory(row_bytes(tensor, np.arange(4, 7)), tensor.parts[1])


def test_decoding_needs_the_result_and_one_chunk() -> None:
    shape = (4 * CHUNK_ELEMENTS // 1024, 1024)
    tensor = StoredTensor("w", shape, "BF16", (np.zeros(2 * shape[0] * shape[1], np.uint8),))
    tracemalloc.start()
    result = read_float32(tensor)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < result.nbytes + 3 * 4 * CHUNK_ELEMENTS
