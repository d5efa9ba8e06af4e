"""Where a graph leaves a choice: convolutions whose kernel would meet an edge in every block take another way."""

from __future__ import annotations

import numpy as np
import pytest

from relight.executors.base import CompileOptions
from relight.executors.choices import MOST_COLUMN_BYTES, uses_direct_convolution
from relight.executors.ggml.devices import CORES
from relight.graph import Tensor, Weights, input_tensor, ops
from stored import ArraySource

AUTO = CompileOptions()


def convolution(outputs: int, inputs: int, side: int, batch: int = 1) -> Tensor:
    source = ArraySource({"c.weight": np.zeros((outputs, inputs, 3, 3), np.float32)})
    return ops.conv2d(input_tensor("x", (batch, inputs, side, side)), Weights(source) / "c", padding=1)


def direct(node: Tensor, cores: int, options: CompileOptions = AUTO, *, gpu: bool = True) -> bool:
    return uses_direct_convolution(node, options, gpu=gpu, cores=cores)


@pytest.mark.parametrize(
    ("node", "cores", "expected"),
    [
        (convolution(320, 320, 64, batch=2), 132, True),  # too few blocks for the kernel of whole blocks
        (convolution(320, 320, 64, batch=4), 132, False),
        (convolution(320, 320, 64, batch=2), 36, False),
        (convolution(640, 640, 32, batch=8), 36, True),  # whole blocks only
        (convolution(640, 640, 33, batch=8), 36, False),
        (convolution(128, 128, 432), 36, True),
        (convolution(64, 64, 512), 36, True),  # another kernel
    ],
    ids=str,
)
def test_blocks_with_edges_are_kept_from_the_kernel_for_whole_ones(node: Tensor, cores: int, expected: bool) -> None:
    assert direct(node, cores) is expected


def test_columns_that_are_too_large_are_not_made() -> None:
    node = convolution(320, 2560, 128)
    assert 2 * 9 * 2560 * 128 * 128 > MOST_COLUMN_BYTES
    assert direct(node, 36)


def test_what_the_user_says_holds_and_the_cpu_has_no_such_kernel() -> None:
    ragged = convolution(320, 320, 64, batch=4)
    assert direct(ragged, 132, CompileOptions(convolution="direct"))
    assert not direct(convolution(640, 640, 32), 132, CompileOptions(convolution="im2col"))
    assert direct(ragged, 132, gpu=False)


@pytest.mark.parametrize(
    ("description", "cores"),
    [
        ("AMD Radeon RX 580 Series (RADV POLARIS10)", 36),
        ("AMD Radeon RX 470 Graphics (RADV POLARIS10)", 32),
        ("Radeon RX 570 Series", 32),
        ("NVIDIA GeForce GTX 1070 Ti", 19),
        ("NVIDIA GeForce GTX 1070", 15),
        ("NVIDIA H100 80GB HBM3", 132),
    ],
)
def test_cores_are_told_by_the_drivers_name(description: str, cores: int) -> None:
    assert next(count for name, count in CORES if name.search(description)) == cores
