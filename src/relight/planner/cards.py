"""Cards by name: memory, peak rates and what they lack, as their vendors publish them.

Peak float32 is shaders x 2 x boost clock, bandwidth that of the memory chips. Allocation limits: RADV's 4 GiB - 4 for
GFX6 to GFX9 (radv_physical_device.c), 2 GiB in AMD's driver for Windows. Lacking features are in ggml's own words.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1 << 30
LACKING_ON_POLARIS = ("F16", "INTEGER_DOT_PRODUCT", "COOPMAT", "COOPMAT2", "BFLOAT16", "DOT2")
LACKING_ON_VEGA = ("INTEGER_DOT_PRODUCT", "COOPMAT", "COOPMAT2", "BFLOAT16", "DOT2")
LACKING_ON_PASCAL = ("F16", "COOPMAT", "COOPMAT2", "BFLOAT16", "DOT2")
LACKING_ON_ALCHEMIST = ("COOPMAT2", "DOT2")


@dataclass(frozen=True)
class Card:
    """`flops` is its peak in float32, `bandwidth` of its memory, `pcie` of its slot at best, in bytes a second.
    `chip` is the family whose measured efficiency applies (planner.rates), `cores` its compute units or
    multiprocessors, by which ggml chooses kernels."""

    chip: str
    flops: float
    bandwidth: float
    memory_gib: int
    cores: int
    pcie: float = 15.75e9
    lacking: tuple[str, ...] = LACKING_ON_POLARIS
    max_allocation_bytes: int = 4 * GIB - 4
    reserved_bytes: int = GIB // 4


def _polaris(flops: float, bandwidth: float, memory_gib: int, cores: int) -> Card:
    # A card of 4 GB shows a heap smaller than the driver's limit: an allocation within the limit alone still fails.
    largest = 4 * GIB - 4 if memory_gib > 4 else 4 * GIB - GIB // 4
    return Card("gcn", flops, bandwidth, memory_gib, cores, max_allocation_bytes=largest)


CARDS = {
    "rx470-4g": _polaris(4.94e12, 211e9, 4, 32),
    "rx470-8g": _polaris(4.94e12, 211e9, 8, 32),
    "rx480-8g": _polaris(5.83e12, 256e9, 8, 36),
    "rx570-4g": _polaris(5.10e12, 224e9, 4, 32),
    "rx570-8g": _polaris(5.10e12, 224e9, 8, 32),
    "rx580-8g": _polaris(6.17e12, 256e9, 8, 36),
    "rx580-8g-windows": Card(
        "gcn-windows", 6.17e12, 256e9, 8, 36, max_allocation_bytes=2 * GIB, reserved_bytes=GIB // 2
    ),
    "rx590-8g": _polaris(7.12e12, 256e9, 8, 36),
    "r9-390-8g": Card("gcn", 5.12e12, 384e9, 8, 40),
    "vega56-8g": Card("gcn", 10.5e12, 410e9, 8, 56, lacking=LACKING_ON_VEGA),
    "vega64-8g": Card("gcn", 12.66e12, 484e9, 8, 64, lacking=LACKING_ON_VEGA),
    "gtx1060-6g": Card("pascal", 4.37e12, 192e9, 6, 10, lacking=LACKING_ON_PASCAL),
    "gtx1070-8g": Card("pascal", 6.46e12, 256e9, 8, 15, lacking=LACKING_ON_PASCAL),
    "gtx1080-8g": Card("pascal", 8.87e12, 320e9, 8, 20, lacking=LACKING_ON_PASCAL),
    "arc-a380-6g": Card("alchemist", 4.10e12, 186e9, 6, 8, lacking=LACKING_ON_ALCHEMIST),
    "arc-a750-8g": Card("alchemist", 17.2e12, 512e9, 8, 28, lacking=LACKING_ON_ALCHEMIST),
}
