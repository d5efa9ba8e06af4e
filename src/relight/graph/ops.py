"""Every operation there is. Each checks its shapes and records one node; `executors/reference.py` defines its meaning.

Letters in shape comments: B batch, S sequence, H heads, C channels or head size, D features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from relight.graph.tensor import ShapeError, Tensor, same_shape
from relight.graph.weights import Weights


def linear(x: Tensor, w: Weights, *, bias: bool = True, wide_range: bool = False) -> Tensor:
    """x @ weight.T + bias over the last axis; weight [out in] (or a 1x1 kernel [out in 1 1]).

    A bias is added where the file has one, unless `bias` is False. So is, in any case, an adapter's low-rank pair.
    `wide_range` says that x may pass 65504, the largest F16; executors whose arithmetic is narrower scale it.
    """
    y = _linear(x, w["weight"], w.get("bias") if bias else None, wide_range)
    if (pair := w.adapter("weight")) is None:
        return y
    down, up = pair
    return y + _linear(_linear(x, down, None, wide_range), up, None, wide_range)


def _linear(x: Tensor, weight: Tensor, offset: Tensor | None, wide_range: bool) -> Tensor:
    out, inner = weight.shape[0], weight.shape[1]
    if x.shape[-1] != inner or math.prod(weight.shape) != out * inner:
        raise ShapeError(f"linear {weight.name}: input {x.shape}, weight {weight.shape}")
    inputs = (x, weight) if offset is None else (x, weight, offset)
    return Tensor("linear", (*x.shape[:-1], out), "f32", inputs, {"wide_range": wide_range})


def embedding(ids: Tensor, table: Tensor) -> Tensor:
    """Rows of the table by number: ids [N] i32, table [rows D] -> [N D]."""
    if ids.dtype != "i32" or len(ids.shape) != 1 or len(table.shape) != 2:
        raise ShapeError(f"embedding: ids {ids.dtype} {ids.shape}, table {table.shape}")
    return Tensor("embedding", (ids.shape[0], table.shape[1]), "f32", (ids, table))


def concat(tensors: Sequence[Tensor], axis: int) -> Tensor:
    axis %= len(tensors[0].shape)
    same_shape("concat", tensors, except_axis=axis)
    shape = list(tensors[0].shape)
    shape[axis] = sum(t.shape[axis] for t in tensors)
    return Tensor("concat", tuple(shape), tensors[0].dtype, tuple(tensors), {"axis": axis})


def silu(x: Tensor) -> Tensor:
    return _unary("silu", x)


def gelu(x: Tensor) -> Tensor:
    """Exact, by the error function."""
    return _unary("gelu", x)


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh approximation: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    return _unary("gelu_tanh", x)


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), as CLIP-L has it."""
    return _unary("quick_gelu", x)


def relu(x: Tensor) -> Tensor:
    return _unary("relu", x)


def tanh(x: Tensor) -> Tensor:
    return _unary("tanh", x)


def leaky_relu(x: Tensor, slope: float) -> Tensor:
    """x where it is positive, else slope * x."""
    return Tensor("leaky_relu", x.shape, "f32", (x,), {"slope": float(slope)})


def prelu(x: Tensor, slopes: Tensor) -> Tensor:
    """`leaky_relu` with a slope [C] for each channel of x [B C height width]."""
    if len(x.shape) != 4 or slopes.shape != x.shape[1:2]:
        raise ShapeError(f"prelu {slopes.name}: input {x.shape}, slopes {slopes.shape}")
    return Tensor("prelu", x.shape, "f32", (x, slopes))


def _unary(op: str, x: Tensor) -> Tensor:
    return Tensor(op, x.shape, "f32", (x,))


def layer_norm(x: Tensor, w: Weights | None = None, *, eps: float) -> Tensor:
    """Over the last axis; weight and bias under `w`, none without it."""
    affine = () if w is None else (w["weight"], w["bias"])
    return _norm("layer_norm", x, affine, x.shape[-1], {"eps": eps})


def rms_norm(x: Tensor, scale: Tensor, *, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * scale over the last axis."""
    return _norm("rms_norm", x, (scale,), x.shape[-1], {"eps": eps})


def group_norm(x: Tensor, w: Weights, *, groups: int, eps: float) -> Tensor:
    """x [B C height width], statistics over each of `groups` runs of channels, then weight and bias per channel."""
    if len(x.shape) != 4 or x.shape[1] % groups:
        raise ShapeError(f"group_norm {w.path}: input {x.shape} in {groups} groups")
    return _norm("group_norm", x, (w["weight"], w["bias"]), x.shape[1], {"eps": eps, "groups": groups})


def _norm(op: str, x: Tensor, affine: tuple[Tensor, ...], size: int, attrs: dict[str, Any]) -> Tensor:
    for part in affine:
        if part.shape != (size,):
            raise ShapeError(f"{op} {part.name}: input {x.shape}, weight {part.shape}")
    return Tensor(op, x.shape, "f32", (x, *affine), attrs)


def attention(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, scale: float | None = None) -> Tensor:
    """softmax(q k^T scale + bias) v, all [B S H C]; k and v may be longer than q.

    bias is [S_q S_k] or [H S_q S_k], added to the scores (-inf hides a key). scale defaults to 1 / sqrt(C).
    """
    if len(q.shape) != 4 or k.shape != v.shape or (q.shape[0], *q.shape[2:]) != (k.shape[0], *k.shape[2:]):
        raise ShapeError(f"attention: q {q.shape}, k {k.shape}, v {v.shape}")
    scores = (q.shape[2], q.shape[1], k.shape[1])
    if bias is not None and bias.shape not in (scores, scores[1:]):
        raise ShapeError(f"attention: bias {bias.shape} for scores {scores}")
    attrs = {"scale": q.shape[3] ** -0.5 if scale is None else scale}
    return Tensor("attention", q.shape, "f32", (q, k, v) if bias is None else (q, k, v, bias), attrs)


def rope(x: Tensor, positions: Tensor, *, sections: Sequence[int], theta: float) -> Tensor:
    """Rotary embedding over several axes: x [B S H C], positions [axes S] i32.

    Pair i is (x[i], x[i + C/2]). Pairs are dealt to the axes in order, `sections[a]` of them to axis a, and pair j of a
    section of n turns by positions[a] * theta^(-j/n). Layouts with adjacent pairs become this one by reordering the
    rows of the weights that make x.
    """
    axes = len(sections)
    if len(x.shape) != 4 or positions.dtype != "i32" or positions.shape != (axes, x.shape[1]):
        raise ShapeError(f"rope: input {x.shape}, positions {positions.dtype} {positions.shape}, {axes} sections")
    if 2 * sum(sections) != x.shape[3]:
        raise ShapeError(f"rope: sections {tuple(sections)} must add up to half the head size {x.shape[3]}")
    return Tensor("rope", x.shape, "f32", (x, positions), {"sections": tuple(sections), "theta": float(theta)})


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10000.0) -> Tensor:
    """t [B] -> [B dim]: cosines, then sines, of t * max_period^(-i / (dim / 2))."""
    if len(t.shape) != 1 or dim % 2:
        raise ShapeError(f"timestep_embedding: timesteps {t.shape}, dim {dim}")
    return Tensor("timestep_embedding", (t.shape[0], dim), "f32", (t,), {"dim": dim, "max_period": max_period})


def conv2d(x: Tensor, w: Weights, *, stride: int = 1, padding: int = 0) -> Tensor:
    """x [B C_in height width], weight [C_out C_in kh kw], bias [C_out]; zeros around.

    The low-rank pair of an adapter is added: `down` with the weight's kernel, stride and padding, then `up`, 1x1.
    """
    y = _conv2d(x, w["weight"], w.get("bias"), stride, padding)
    if (pair := w.adapter("weight")) is None:
        return y
    down, up = pair
    return y + _conv2d(_conv2d(x, down, None, stride, padding), up, None, 1, 0)


def _conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    if len(x.shape) != 4 or len(weight.shape) != 4 or x.shape[1] != weight.shape[1]:
        raise ShapeError(f"conv2d {weight.name}: input {x.shape}, weight {weight.shape}")
    size = [(n + 2 * padding - k) // stride + 1 for n, k in zip(x.shape[2:], weight.shape[2:], strict=True)]
    inputs = (x, weight) if bias is None else (x, weight, bias)
    attrs = {"stride": stride, "padding": padding}
    return Tensor("conv2d", (x.shape[0], weight.shape[0], *size), "f32", inputs, attrs)


def upsample_nearest(x: Tensor, factor: int = 2) -> Tensor:
    """Each pixel of x [B C height width] becomes factor x factor pixels."""
    batch, channels, height, width = x.shape
    return Tensor(
        "upsample_nearest", (batch, channels, height * factor, width * factor), "f32", (x,), {"factor": factor}
    )


def pad(x: Tensor, *, bottom: int, right: int) -> Tensor:
    """Zeros below and to the right of x [B C height width]."""
    batch, channels, height, width = x.shape
    return Tensor(
        "pad", (batch, channels, height + bottom, width + right), "f32", (x,), {"bottom": bottom, "right": right}
    )


OPS = (
    "add mul linear embedding reshape permute narrow concat silu gelu gelu_tanh quick_gelu relu tanh leaky_relu prelu "
    "layer_norm rms_norm group_norm attention rope timestep_embedding conv2d upsample_nearest pad"
).split()
