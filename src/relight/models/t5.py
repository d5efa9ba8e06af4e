"""T5 v1.1 encoder: the sequence of text states that FLUX attends to.

Names of weights are those of google/t5-v1_1-xxl. In shape comments: L tokens, D hidden size, H heads, C head size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from relight.errors import ModelFileError
from relight.graph import Graph, Tensor, Weights, input_tensor, ops

EPS = 1e-6
MAX_DISTANCE = 128  # tokens further apart than this share the last bucket
POSITION_TABLE = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"


@dataclass(frozen=True, kw_only=True)
class T5Config:
    hidden_size: int = 4096
    num_layers: int = 24
    num_heads: int = 64
    head_dim: int = 64
    mlp_size: int = 10240
    vocabulary: int = 32128
    buckets: int = 32

    def __post_init__(self) -> None:
        if self.buckets < 4 or self.buckets % 4:
            raise ModelFileError(f"T5 with {self.buckets} buckets of relative position: not of this family")

    @classmethod
    def from_weights(cls, w: Weights) -> T5Config:
        """Sizes from the shapes of the weights. Raises WeightMissing where one of them is not there."""
        vocabulary, hidden_size = w.shape("shared.weight")
        buckets, num_heads = w.shape(POSITION_TABLE)
        return cls(
            hidden_size=hidden_size,
            num_layers=(w / "encoder" / "block").count(),
            num_heads=num_heads,
            head_dim=w.shape("encoder.block.0.layer.0.SelfAttention.q.weight")[0] // num_heads,
            mlp_size=w.shape("encoder.block.0.layer.1.DenseReluDense.wi_0.weight")[0],
            vocabulary=vocabulary,
            buckets=buckets,
        )


def record(w: Weights, cfg: T5Config, length: int) -> Graph:
    """Inputs `ids` [L] i32 and `buckets` [L*L] i32; output `text` [L D]."""
    ids, buckets = input_tensor("ids", (length,), "i32"), input_tensor("buckets", (length * length,), "i32")
    return Graph({"text": t5_encoder(w, cfg, ids, buckets)})


def host_inputs(cfg: T5Config, ids: np.ndarray) -> dict[str, np.ndarray]:
    """What `record`'s graph takes, for token ids [L]. Raises ValueError for an id out of range."""
    if ids.min() < 0 or ids.max() >= cfg.vocabulary:
        raise ValueError(f"token ids {ids.min()} to {ids.max()}, and this T5 has {cfg.vocabulary} tokens")
    return {"ids": ids.astype(np.int32), "buckets": position_buckets(cfg, len(ids)).reshape(-1)}


def position_buckets(cfg: T5Config, length: int) -> np.ndarray:
    """The bucket of each pair (query, key), [L L] i32.

    Half of the buckets are for keys after the query. Of each half, the first half holds one distance each, and the
    rest grow in proportion to the distance (Raffel et al. 2020, section 2.1).
    """
    offset = np.arange(length) - np.arange(length)[:, None]  # key minus query
    distance, half = np.abs(offset), cfg.buckets // 2
    exact = half // 2
    # float32, as the published code has it: distances on the edge of a bucket must fall on the same side
    growth = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / np.log(MAX_DISTANCE / exact)
    grown = np.minimum(exact + (growth * (half - exact)).astype(np.int32), half - 1)
    return (np.where(distance < exact, distance, grown) + np.where(offset > 0, half, 0)).astype(np.int32)


def t5_encoder(w: Weights, cfg: T5Config, ids: Tensor, buckets: Tensor) -> Tensor:
    """Text states [L D]. Padding is attended to like any token, as FLUX was trained."""
    length = ids.shape[0]
    bias = ops.embedding(buckets, w[POSITION_TABLE]).reshape(length, length, cfg.num_heads).permute(2, 0, 1)
    x = ops.embedding(ids, w["shared.weight"])
    for i in range(cfg.num_layers):
        attention, mlp = w / "encoder" / "block" / i / "layer" / 0, w / "encoder" / "block" / i / "layer" / 1
        x = x + self_attention(attention / "SelfAttention", cfg, normed(attention / "layer_norm", x), bias)
        x = x + gated_mlp(mlp / "DenseReluDense", normed(mlp / "layer_norm", x))
    return normed(w / "encoder" / "final_layer_norm", x)


def normed(w: Weights, x: Tensor) -> Tensor:
    return ops.rms_norm(x, w["weight"], eps=EPS)


def self_attention(w: Weights, cfg: T5Config, x: Tensor, bias: Tensor) -> Tensor:
    """Scores are not divided by sqrt(C): the published weights are trained without it. `bias` is [H L L]."""
    heads = (1, x.shape[0], cfg.num_heads, cfg.head_dim)
    q, k, v = (ops.linear(x, w / name).reshape(*heads) for name in ("q", "k", "v"))  # [1 L H C]
    attended = ops.attention(q, k, v, bias=bias, scale=1.0)
    return ops.linear(attended.reshape(x.shape[0], cfg.num_heads * cfg.head_dim), w / "o")


def gated_mlp(w: Weights, x: Tensor) -> Tensor:
    """The product of gate and value passes the range of F16 in the real weights."""
    gated = ops.gelu_tanh(ops.linear(x, w / "wi_0")) * ops.linear(x, w / "wi_1")
    return ops.linear(gated, w / "wo", wide_range=True)
