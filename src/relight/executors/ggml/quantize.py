"""Float32 to any format ggml can write, by ggml's own quantiser."""

from __future__ import annotations

import numpy as np

from relight.errors import RequestError
from relight.executors.ggml.api import ffi
from relight.executors.ggml.library import load
from relight.weights.formats import FORMATS


def quantize(array: np.ndarray, format_name: str) -> np.ndarray:
    """Bytes (1-D uint8) of an array in a format, rows along the last axis. Raises RequestError where a row has no
    whole number of blocks."""
    form = FORMATS[format_name]
    width = array.shape[-1] if array.ndim else 1
    if form.ggml_type is None:
        raise RequestError(f"ggml cannot write {format_name}")
    if width % form.block_elements:
        raise RequestError(f"rows of {width} do not divide into {format_name} blocks of {form.block_elements}")
    rows = array.size // width
    values = np.ascontiguousarray(array, np.float32)
    out = np.empty(rows * width // form.block_elements * form.block_bytes, np.uint8)
    source = ffi.cast("const float *", ffi.from_buffer(values))
    load().base.ggml_quantize_chunk(form.ggml_type, source, ffi.from_buffer(out), 0, rows, width, ffi.NULL)
    return out
