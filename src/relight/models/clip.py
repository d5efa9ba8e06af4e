"""CLIP text encoder, as CLIP-L has it: FLUX takes the pooled vector.

Names of weights are those of openai/clip-vit-large-patch14. In shape comments: S tokens, D hidden size, H heads, C head
size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from relight.errors import ModelFileError
from relight.graph import Graph, Tensor, Weights, input_tensor, ops

EPS = 1e-5
HEAD_DIM = 64  # of every published CLIP


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    hidden_size: int = 768
    num_layers: int = 12
    mlp_size: int = 3072
    vocabulary: int = 49408
    length: int = 77

    def __post_init__(self) -> None:
        if self.hidden_size % HEAD_DIM:
            raise ModelFileError(f"CLIP of hidden size {self.hidden_size}: not a multiple of the head size {HEAD_DIM}")

    @classmethod
    def from_weights(cls, w: Weights) -> ClipConfig:
        """Sizes from the shapes of the weights. Raises WeightMissing where one of them is not there."""
        vocabulary, hidden_size = w.shape("text_model.embeddings.token_embedding.weight")
        return cls(
            hidden_size=hidden_size,
            num_layers=(w / "text_model" / "encoder" / "layers").count(),
            mlp_size=w.shape("text_model.encoder.layers.0.mlp.fc1.weight")[0],
            vocabulary=vocabulary,
            length=w.shape("text_model.embeddings.position_embedding.weight")[0],
        )

    @property
    def num_heads(self) -> int:
        return self.hidden_size // HEAD_DIM


def record(w: Weights, cfg: ClipConfig) -> Graph:
    """Inputs `ids` [77] i32, `positions` [77] i32, `mask` [77 77] and `eos` [1] i32; output `pooled` [1 D]."""
    text = clip_text(
        w,
        cfg,
        ids=input_tensor("ids", (cfg.length,), "i32"),
        positions=input_tensor("positions", (cfg.length,), "i32"),
        mask=input_tensor("mask", (cfg.length, cfg.length)),
    )
    return Graph({"pooled": ops.embedding(input_tensor("eos", (1,), "i32"), text)})


def host_inputs(cfg: ClipConfig, ids: np.ndarray, eos: int) -> dict[str, np.ndarray]:
    """What `record`'s graph takes, for token ids [77] whose first end-of-text token stands at index `eos`.

    Raises ValueError for another number of ids, or an index or id out of range.
    """
    if ids.shape != (cfg.length,) or not 0 <= eos < cfg.length:
        raise ValueError(f"CLIP takes {cfg.length} token ids, given {ids.shape} with the end of text at {eos}")
    if ids.min() < 0 or ids.max() >= cfg.vocabulary:
        raise ValueError(f"token ids {ids.min()} to {ids.max()}, and this CLIP has {cfg.vocabulary} tokens")
    return {
        "ids": ids.astype(np.int32),
        "positions": np.arange(cfg.length, dtype=np.int32),
        "mask": np.triu(np.full((cfg.length, cfg.length), -np.inf, np.float32), 1),
        "eos": np.array([eos], np.int32),
    }


def clip_text(w: Weights, cfg: ClipConfig, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
    """The last hidden state, normalised, [S D]. `mask` [S S] is -inf where a token would look ahead, else 0."""
    w = w / "text_model"
    tokens = ops.embedding(ids, (w / "embeddings" / "token_embedding")["weight"])
    x = tokens + ops.embedding(positions, (w / "embeddings" / "position_embedding")["weight"])
    for i in range(cfg.num_layers):
        x = layer(w / "encoder" / "layers" / i, cfg, x, mask)
    return ops.layer_norm(x, w / "final_layer_norm", eps=EPS)


def layer(w: Weights, cfg: ClipConfig, x: Tensor, mask: Tensor) -> Tensor:
    x = x + self_attention(w / "self_attn", cfg, ops.layer_norm(x, w / "layer_norm1", eps=EPS), mask)
    hidden = ops.linear(ops.layer_norm(x, w / "layer_norm2", eps=EPS), w / "mlp" / "fc1")
    return x + ops.linear(ops.quick_gelu(hidden), w / "mlp" / "fc2")


def self_attention(w: Weights, cfg: ClipConfig, x: Tensor, mask: Tensor) -> Tensor:
    heads = (1, x.shape[0], cfg.num_heads, HEAD_DIM)
    q, k, v = (ops.linear(x, w / name).reshape(*heads) for name in ("q_proj", "k_proj", "v_proj"))  # [1 S H C]
    return ops.linear(ops.attention(q, k, v, bias=mask).reshape(*x.shape), w / "out_proj")
