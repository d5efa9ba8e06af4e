"""Formats that weights are stored in, in GGUF's spelling, with the sizes of their blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from relight.errors import ModelFileError


@dataclass(frozen=True)
class Format:
    """`block_elements` consecutive values of a row take `block_bytes`; `ggml_type` is None where ggml has none."""

    name: str
    block_elements: int
    block_bytes: int
    ggml_type: int | None

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.block_bytes / self.block_elements


def _table(*rows: tuple[str, int, int, int | None]) -> dict[str, Format]:
    return {row[0]: Format(*row) for row in rows}


FORMATS = _table(
    ("F32", 1, 4, 0),
    ("F16", 1, 2, 1),
    ("BF16", 1, 2, 30),
    ("F8_E4M3", 1, 1, None),
    ("I32", 1, 4, 26),
    ("Q8_0", 32, 34, 8),
    ("Q6_K", 256, 210, 14),
    ("Q5_K", 256, 176, 13),
    ("Q5_0", 32, 22, 6),
    ("Q5_1", 32, 24, 7),
    ("Q4_K", 256, 144, 12),
    ("Q4_0", 32, 18, 2),
    ("Q4_1", 32, 20, 3),
    ("Q3_K", 256, 110, 11),
    ("Q2_K", 256, 84, 10),
    ("IQ4_NL", 32, 18, 20),
    ("IQ4_XS", 256, 136, 23),
)
"""What relight computes with."""

OTHER_FORMATS = _table(
    ("F64", 1, 8, 28),
    ("I64", 1, 8, 27),
    ("I16", 1, 2, 25),
    ("I8", 1, 1, 24),
    ("U64", 1, 8, None),
    ("U32", 1, 4, None),
    ("U16", 1, 2, None),
    ("U8", 1, 1, None),
    ("BOOL", 1, 1, None),
    ("F8_E5M2", 1, 1, None),
    ("Q8_1", 32, 40, 9),
    ("Q8_K", 256, 292, 15),
    ("IQ2_XXS", 256, 66, 16),
    ("IQ2_XS", 256, 74, 17),
    ("IQ3_XXS", 256, 98, 18),
    ("IQ1_S", 256, 50, 19),
    ("IQ3_S", 256, 110, 21),
    ("IQ2_S", 256, 82, 22),
    ("IQ1_M", 256, 56, 29),
    ("TQ1_0", 256, 54, 34),
    ("TQ2_0", 256, 66, 35),
    ("MXFP4", 32, 17, 39),
    ("NVFP4", 64, 36, 40),
    ("Q1_0", 128, 18, 41),
)
"""What the readers can measure, so that a file is described and its bookkeeping tensors are skipped, but no more."""

STORED = FORMATS | OTHER_FORMATS

BY_GGML_TYPE = {f.ggml_type: f for f in STORED.values() if f.ggml_type is not None}

REMOVED_GGML_TYPES = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}
"""ggml gave these up: a file that has them must be made again."""


def nbytes(format_name: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor in torch order (last axis contiguous); () is one value.

    Raises ModelFileError when the last axis is not a whole number of blocks or the format is unknown.
    """
    stored = STORED.get(format_name)
    if stored is None:
        raise ModelFileError(f"format {format_name!r} is unknown; relight reads {', '.join(FORMATS)}")
    row = shape[-1] if shape else 1
    if row % stored.block_elements:
        raise ModelFileError(
            f"{format_name} stores rows in blocks of {stored.block_elements}, and shape {list(shape)} has rows of {row}"
        )
    return prod(shape) // stored.block_elements * stored.block_bytes
