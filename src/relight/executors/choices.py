"""Where a graph leaves an executor a choice: one rule for those that compute and for the one that counts."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

from relight.errors import UnsupportedOp
from relight.executors.arena import UNBOUNDED
from relight.executors.base import CompileOptions
from relight.graph import Tensor

FLASH_HEAD_SIZES = range(40, 161)
"""What the GPU kernels are made for; others compile for minutes and run slowly."""

CONVOLUTION_BLOCK, CONVOLUTION_DEPTH, FEW_OUTPUTS = 128, 16, 64
MOST_COLUMN_BYTES = 640 << 20
"""Of im2col's matrix: a picture's edge is not worth more memory than this."""
UNKNOWN_CORES = 32
"""What ggml assumes of a GPU that does not say."""
VIEW_ALIGNMENT = 256
"""No driver asks for more; kernels that bind a view need its start aligned."""
GPU_CHUNK_BYTES = 1 << 30
CHUNK_VARIABLE = "GGML_VK_SUBALLOCATION_BLOCK_SIZE"


def chunk_bytes(*, gpu: bool, environ: Mapping[str, str] = os.environ) -> int:
    """Of the buffers that ggml's allocator cuts a graph's memory into, where a block is not larger by itself."""
    if not gpu:
        return UNBOUNDED
    said = environ.get(CHUNK_VARIABLE, "")
    return int(said) if said.isdecimal() and int(said) else GPU_CHUNK_BYTES


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


def uses_direct_convolution(node: Tensor, options: CompileOptions, *, gpu: bool, cores: int) -> bool:
    """Direct by itself, but where a GPU's kernel for whole blocks of 128 outputs by 128 pixels would meet an edge: its
    variant that looks at edges was 17 times slower (measured: 1.5 against 26 TFLOPS, 320 outputs). ggml takes that
    kernel from two blocks for each of `cores`, the device's shader cores, on."""
    if options.convolution != "auto" or not gpu:
        return options.convolution != "im2col"
    batch, outputs, height, width = node.shape
    pixels, inner = batch * height * width, math.prod(node.inputs[1].shape[1:])
    blocks = math.ceil(outputs / CONVOLUTION_BLOCK) * math.ceil(pixels / CONVOLUTION_BLOCK)
    in_blocks = outputs > FEW_OUTPUTS and blocks >= 2 * cores
    ragged = outputs % CONVOLUTION_BLOCK or pixels % CONVOLUTION_BLOCK or inner % CONVOLUTION_DEPTH
    return not (in_blocks and ragged and 2 * inner * pixels <= MOST_COLUMN_BYTES)
