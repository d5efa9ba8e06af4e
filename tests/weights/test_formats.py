"""Sizes of the formats."""

from __future__ import annotations

import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from relight.errors import ModelFileError
from relight.weights.formats import FORMATS, REMOVED_GGML_TYPES, STORED, nbytes


@pytest.mark.parametrize("stored", [f for f in STORED.values() if f.ggml_type is not None], ids=lambda f: f.name)
def test_block_sizes_and_type_numbers_are_ggmls(stored) -> None:
    kind = GGMLQuantizationType[stored.name]
    assert (stored.ggml_type, (stored.block_elements, stored.block_bytes)) == (kind.value, GGML_QUANT_SIZES[kind])


def test_removed_types_are_no_longer_ggmls() -> None:
    assert not REMOVED_GGML_TYPES.keys() & {kind.value for kind in GGMLQuantizationType}


@pytest.mark.parametrize(
    ("format_name", "shape", "expected"),
    [
        ("F32", (), 4),
        ("F16", (3, 5), 30),
        ("F8_E4M3", (7,), 7),
        ("Q4_K", (3072, 3072), 5308416),
        ("Q8_0", (2, 3, 64), 408),
    ],
)
def test_bytes_of_a_shape(format_name: str, shape: tuple[int, ...], expected: int) -> None:
    assert nbytes(format_name, shape) == expected


def test_part_of_a_block_is_refused_with_both_numbers() -> None:
    with pytest.raises(ModelFileError, match=r"blocks of 256.*rows of 320"):
        nbytes("Q4_K", (640, 320))


def test_q4_k_has_four_and_a_half_bits_a_weight() -> None:
    assert FORMATS["Q4_K"].bits_per_weight == 4.5
