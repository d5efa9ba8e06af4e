"""The definition of every operation, in float32 NumPy: slow, right, and without cleverness.

Other executors are tested against this one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from relight.executors.base import CompileOptions, MemoryUse, Progress, WeightSource, check_inputs, loaded_sets
from relight.executors.leaves import joined, leaf_float32
from relight.graph import Graph, Tensor


def linear(t: Tensor, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    y = x @ weight.reshape(weight.shape[:2]).T
    return y if bias is None else y + bias


def narrow(t: Tensor, x: np.ndarray) -> np.ndarray:
    axis, start = t.attrs["axis"], t.attrs["start"]
    return x.take(range(start, start + t.shape[axis]), axis)


def gelu(t: Tensor, x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.vectorize(math.erf, otypes=[np.float32])(x / math.sqrt(2)))


def gelu_tanh(t: Tensor, x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def leaky_relu(t: Tensor, x: np.ndarray) -> np.ndarray:
    return np.where(x < 0, t.attrs["slope"] * x, x)


def prelu(t: Tensor, x: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    return np.where(x < 0, slopes[:, None, None] * x, x)


def layer_norm(t: Tensor, x: np.ndarray, *affine: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    y = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + t.attrs["eps"])
    return y * affine[0] + affine[1] if affine else y


def rms_norm(t: Tensor, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + t.attrs["eps"]) * scale


def group_norm(t: Tensor, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    grouped = x.reshape(x.shape[0], t.attrs["groups"], -1)
    centred = grouped - grouped.mean(-1, keepdims=True)
    y = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + t.attrs["eps"])
    return y.reshape(x.shape) * weight[:, None, None] + bias[:, None, None]


def attention(t: Tensor, q: np.ndarray, k: np.ndarray, v: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    scores = np.einsum("bqhc,bkhc->bhqk", q, k) * t.attrs["scale"]
    if bias is not None:
        scores = scores + bias
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhqk,bkhc->bqhc", weights / weights.sum(-1, keepdims=True), v)


def rope(t: Tensor, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    cos, sin = (table[None, :, None, :] for table in rope_tables(t, positions))
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


def rope_tables(t: Tensor, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of the angle of each pair, [S C/2]; computed in float64, since angles reach thousands of turns."""
    angles = [
        positions[axis][:, None] * t.attrs["theta"] ** (-np.arange(count) / count)
        for axis, count in enumerate(t.attrs["sections"])
        if count
    ]
    table = np.concatenate(angles, axis=1)
    return np.cos(table).astype(np.float32), np.sin(table).astype(np.float32)


def timestep_embedding(t: Tensor, x: np.ndarray) -> np.ndarray:
    half = t.attrs["dim"] // 2
    frequencies = np.exp(-math.log(t.attrs["max_period"]) * np.arange(half) / half)
    angles = x[:, None] * frequencies
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def conv2d(t: Tensor, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    p, s = t.attrs["padding"], t.attrs["stride"]
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))[:, :, ::s, ::s]
    y = np.tensordot(windows, weight, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
    return y if bias is None else y + bias[:, None, None]


OPS: dict[str, Callable[..., np.ndarray]] = {
    "add": lambda t, a, b=None: a + (t.attrs["scalar"] if b is None else b),
    "mul": lambda t, a, b=None: a * (t.attrs["scalar"] if b is None else b),
    "linear": linear,
    "embedding": lambda t, ids, table: table[ids],
    "reshape": lambda t, x: x.reshape(t.shape),
    "permute": lambda t, x: x.transpose(t.attrs["axes"]),
    "narrow": narrow,
    "concat": lambda t, *xs: np.concatenate(xs, t.attrs["axis"]),
    "silu": lambda t, x: x / (1 + np.exp(-x)),
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": lambda t, x: x / (1 + np.exp(-1.702 * x)),
    "relu": lambda t, x: np.maximum(x, 0),
    "tanh": lambda t, x: np.tanh(x),
    "leaky_relu": leaky_relu,
    "prelu": prelu,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "attention": attention,
    "rope": rope,
    "timestep_embedding": timestep_embedding,
    "conv2d": conv2d,
    "upsample_nearest": lambda t, x: x.repeat(t.attrs["factor"], 2).repeat(t.attrs["factor"], 3),
    "pad": lambda t, x: np.pad(x, ((0, 0), (0, 0), (0, t.attrs["bottom"]), (0, t.attrs["right"]))),
}


@dataclass
class ReferenceWeights:
    """Leaves as float32, by key."""

    arrays: dict[object, np.ndarray]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())

    def close(self) -> None:
        self.arrays.clear()


@dataclass
class ReferenceProgram:
    graph: Graph
    arrays: dict[object, np.ndarray]  # of weights, by leaf key
    memory: MemoryUse

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = check_inputs(self.graph, inputs)
        values: dict[int, np.ndarray] = {}
        for node in self.graph.nodes:
            if node.op == "input":
                values[node.serial] = given[node.name]
            elif node.op == "weight":
                values[node.serial] = self.arrays[node.attrs["key"]]
            else:
                with np.errstate(over="ignore"):
                    value = OPS[node.op](node, *(values[source.serial] for source in node.inputs))
                assert value.shape == node.shape, f"{node} came out as {value.shape}"
                values[node.serial] = value.astype(np.float32) if node.dtype == "f32" else value
        return {name: np.ascontiguousarray(values[node.serial]) for name, node in self.graph.outputs.items()}

    def close(self) -> None:
        pass


class ReferenceExecutor:
    name = "reference"

    def why_not(self, node: Tensor) -> str | None:
        return None if node.op in (*OPS, "input", "weight") else f"{node.op} is not defined"

    def measure(self, graph: Graph, options: CompileOptions) -> MemoryUse:
        """Everything at once in float32: this executor frees nothing during a run."""
        weights = {node.attrs["key"]: 4 * node.size for node in graph.weights}
        compute = sum(4 * node.size for node in graph.nodes if node.op != "weight")
        return MemoryUse(sum(weights.values()), compute)

    def load(
        self, graphs: tuple[Graph, ...], source: WeightSource, progress: Progress | None = None
    ) -> ReferenceWeights:
        leaves = {leaf.attrs["key"]: leaf for graph in graphs for leaf in graph.weights if leaf.name in source}
        arrays = {}
        for done, (key, leaf) in enumerate(leaves.items(), 1):
            arrays[key] = leaf_float32(leaf, source[leaf.name])
            if progress:
                progress(done, len(leaves))
        return ReferenceWeights(arrays)

    def compile(
        self, graph: Graph, weights: ReferenceWeights | Sequence[ReferenceWeights], options: CompileOptions
    ) -> ReferenceProgram:
        arrays = joined(graph, [loaded.arrays for loaded in loaded_sets(weights)])
        return ReferenceProgram(graph, arrays, self.measure(graph, options))

    def close(self) -> None:
        pass
