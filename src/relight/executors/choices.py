"""Where a graph leaves an executor a choice: one rule for those that compute and for the one that counts."""

from __future__ import annotations

import math

from relight.errors import UnsupportedOp
from relight.executors.base import CompileOptions
from relight.graph import Tensor

FLASH_HEAD_SIZES = range(40, 161)
"""What the GPU kernels are made for; others compile for minutes and run slowly."""


def uses_flash(node: Tensor, options: CompileOptions, *, gpu: bool) -> bool:
    """Flash where the caller says so; by itself on GPUs, without a bias, for the head sizes its kernels suit."""
    if options.attention == "auto":
        return gpu and len(node.inputs) == 3 and node.shape[3] in FLASH_HEAD_SIZES
    return options.attention == "flash" and node.shape[3] % 8 == 0


def queries_a_chunk(node: Tensor, options: CompileOptions) -> int:
    """As many queries as keep float32 scores within `options.scores_bytes`, in chunks of about one size.

    Raises UnsupportedOp where the scores of one query are more than that.
    """
    batch, queries, heads, _ = node.shape
    keys = node.inputs[1].shape[1]
    query_bytes = 4 * batch * heads * keys
    if query_bytes > options.scores_bytes:
        raise UnsupportedOp(
            f"attention of {heads} heads over {keys} keys takes {query_bytes} bytes of scores for each query, "
            f"and scores_bytes is {options.scores_bytes}"
        )
    chunks = math.ceil(queries / (options.scores_bytes // query_bytes))
    return math.ceil(queries / chunks)


def uses_direct_convolution(options: CompileOptions) -> bool:
    return options.convolution != "im2col"
