"""Arrays as a checkpoint: the weights of a test, in any format, without a file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from relight.executors.ggml.quantize import quantize
from relight.weights.checkpoint import StoredTensor
from relight.weights.formats import FORMATS


class ArraySource(dict[str, StoredTensor]):
    """What `Weights` and an executor's `load` take: matrices in the format, the rest as published files keep it.

    Vectors (norms, biases) stay F32. With a quantised format kernels are F16, and so are matrices whose rows are not
    whole blocks.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], format_name: str = "F32") -> None:
        super().__init__((name, stored(name, array, format_name)) for name, array in arrays.items())

    def shape(self, name: str) -> tuple[int, ...]:
        return self[name].shape

    def format(self, name: str) -> str:
        return self[name].format


def stored(name: str, array: np.ndarray, format_name: str) -> StoredTensor:
    block = FORMATS[format_name].block_elements
    if array.ndim < 2:
        format_name = "F32"
    elif block > 1 and (array.ndim > 2 or array.shape[-1] % block):
        format_name = "F16"
    return StoredTensor(name, array.shape, format_name, (encoded(array.astype(np.float32), format_name),))


def encoded(array: np.ndarray, format_name: str) -> np.ndarray:
    match format_name:
        case "F32":
            values = array
        case "F16":
            values = array.astype(np.float16)
        case _:
            return quantize(array, format_name)
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
