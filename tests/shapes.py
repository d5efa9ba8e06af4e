"""A checkpoint's shapes and formats with no bytes behind them: enough to record and measure a network of any size."""

from __future__ import annotations

from collections.abc import Mapping

from relight.weights.formats import FORMATS


class ShapeIndex(dict[str, tuple[int, ...]]):
    """Matrices in the format, or in F16 where their rows are no whole blocks; kernels F16, vectors F32."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], format_name: str = "F32") -> None:
        super().__init__(shapes)
        self.format_name = format_name

    def shape(self, name: str) -> tuple[int, ...]:
        return self[name]

    def format(self, name: str) -> str:
        shape = self[name]
        if len(shape) < 2:
            return "F32"
        whole = len(shape) == 2 and shape[-1] % FORMATS[self.format_name].block_elements == 0
        return self.format_name if whole or self.format_name == "F32" else "F16"
