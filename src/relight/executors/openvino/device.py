"""OpenVINO's CPU device: what it can do, how it is set, and in which element types a graph runs on it."""

from __future__ import annotations

from functools import cache
from typing import Any

import openvino as ov

from relight.errors import UnsupportedOp
from relight.executors.base import CompileOptions
from relight.executors.openvino.lowering import Elements
from relight.graph import Graph


@cache
def core() -> Any:
    return ov.Core()


@cache
def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies in bfloat16 (AVX512_BF16 or AMX), as OpenVINO sees it."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def description() -> str:
    """CPU and OpenVINO by name and version: what compiled models depend on besides the graph."""
    return f"{core().get_property('CPU', 'FULL_DEVICE_NAME')} {ov.get_version()} {cpu_has_bf16()}"


def settings(threads: int) -> dict[str, Any]:
    """The hint f32 means: the types that the model states. Left alone, OpenVINO turns all of it to bfloat16."""
    return {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }


def elements(graph: Graph, options: CompileOptions) -> Elements:
    """`auto`, `int8` and `int4` compute in bfloat16 where the CPU has it. Raises UnsupportedOp for `bf16` elsewhere."""
    if options.precision == "bf16" and not cpu_has_bf16():
        raise UnsupportedOp(
            "precision bf16 needs a CPU with AVX512_BF16 or AMX, which this one lacks; f32, int8 and int4 run on it"
        )
    if options.precision == "f32" or not cpu_has_bf16():
        return Elements(ov.Type.f32, ov.Type.f32, options)
    pictures = any(node.op == "conv2d" for node in graph.nodes)
    return Elements(ov.Type.bf16, ov.Type.bf16 if pictures else ov.Type.f32, options)
