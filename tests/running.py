"""One run of a graph, and how far its result is from the published implementation's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from relight.executors.base import CompileOptions, Executor
from relight.graph import Graph
from stored import ArraySource

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def run_graph(
    executor: Executor, graph: Graph, source: ArraySource, inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    # lavapipe takes two minutes to compile flash attention for FLUX's heads of 128
    attention: Literal["auto", "chunked"] = "chunked" if is_lavapipe(executor) else "auto"
    weights = executor.load((graph,), source)
    program = executor.compile(graph, weights, CompileOptions(precision="f32", attention=attention))
    try:
        return {name: array.copy() for name, array in program.run(inputs).items()}
    finally:
        program.close()
        weights.close()


def is_lavapipe(executor: Executor) -> bool:
    device = getattr(executor, "device", None)
    return executor.name.startswith("vulkan") and getattr(device, "is_software", False)


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    assert got.shape == expected.shape
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
