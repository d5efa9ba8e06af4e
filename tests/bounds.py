"""How far a network may be from the published implementation, which computes in F32, by the format of its weights.

Relative error: norm of the difference over norm of the output. Measured with these small networks of random weights:

           reference, openvino    vulkan0 (lavapipe)    ggml-cpu
    F32    1e-6 to 1e-5           1e-6 to 6e-5          1e-6 to 3e-4
    F16    4e-4 to 9e-4           4e-4 to 9e-4          7e-4 to 1.3e-3
    Q8_0   1.2 to 1.6e-2          1.2 to 1.6e-2         1.7 to 2.2e-2
    Q4_K   0.14 to 0.23           0.14 to 0.23          0.14 to 0.23

ggml has F16 tables for gelu on the CPU, and rounds the activations that meet quantised weights to 8 bits. Vulkan is
without fp16 arithmetic here; with it F32 operands are rounded to F16, and F32 is off by 2e-4 to 9e-4. Random weights
are the worst case for Q4_K: each matrix is off by 0.07.
"""

from __future__ import annotations

FORMATS = ("F32", "F16", "Q8_0", "Q4_K")
BOUNDS = {"F32": 1e-3, "F16": 1e-2, "Q8_0": 3e-2, "Q4_K": 0.27}
REFERENCE_F32 = 5e-5  # so that an approximation taken for the exact function shows (gelu: 3e-4)


def bound(executor_name: str, format_name: str) -> float:
    return REFERENCE_F32 if (executor_name, format_name) == ("reference", "F32") else BOUNDS[format_name]
