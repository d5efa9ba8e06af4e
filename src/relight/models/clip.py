"""CLIP text encoders: CLIP-L (SD 1.x, SDXL, FLUX), CLIP-H (SD 2.x) and CLIP-G (SDXL).

Names of weights are those of openai/clip-vit-large-patch14, and of laion/CLIP-ViT-bigG-14 as transformers spells them.
In shape comments: S tokens, D hidden size, H heads, C head size, P size of the pooled vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from relight.errors import ModelFileError, RequestError
from relight.graph import Graph, Tensor, Weights, input_tensor, ops

EPS = 1e-5
HEAD_DIM = 64  # of every published CLIP
KIND_OF_WIDTH = {768: "clip_l", 1024: "clip_h", 1280: "clip_g"}
PUBLISHED_LAYERS = {"clip_l": 12, "clip_h": 24, "clip_g": 32}


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    kind: str = "clip_l"
    hidden_size: int = 768
    num_layers: int = 12
    mlp_size: int = 3072
    vocabulary: int = 49408
    length: int = 77

    def __post_init__(self) -> None:
        if self.hidden_size % HEAD_DIM:
            raise ModelFileError(f"CLIP of hidden size {self.hidden_size}: not a multiple of the head size {HEAD_DIM}")

    @classmethod
    def from_weights(cls, w: Weights, kind: str = "") -> ClipConfig:
        """Sizes from the shapes of the weights. Raises WeightMissing where one of them is not there.

        `kind` is `clip_l`, `clip_h` or `clip_g`; left out, it follows from a published width, and is `clip_l` for
        others.
        """
        vocabulary, hidden_size = w.shape("text_model.embeddings.token_embedding.weight")
        return cls(
            kind=kind or KIND_OF_WIDTH.get(hidden_size, "clip_l"),
            hidden_size=hidden_size,
            num_layers=(w / "text_model" / "encoder" / "layers").count(),
            mlp_size=w.shape("text_model.encoder.layers.0.mlp.fc1.weight")[0],
            vocabulary=vocabulary,
            length=w.shape("text_model.embeddings.position_embedding.weight")[0],
        )

    @property
    def num_heads(self) -> int:
        return self.hidden_size // HEAD_DIM

    @property
    def quick_gelu(self) -> bool:
        """OpenAI trained CLIP-L with the sigmoid approximation, LAION the others with the exact function."""
        return self.kind == "clip_l"

    @property
    def projected(self) -> bool:
        """Whether the pooled vector is projected: SDXL takes CLIP-G's so. Some files of CLIP-L have a projection too,
        which neither SD nor FLUX use."""
        return self.kind == "clip_g"

    def skip(self, clip_skip: int) -> int:
        """The `skip` of `record` for a clip skip that counts from the published depth.

        diffusers' SD 2.x has 23 of CLIP-H's 24 layers, as the family takes the last but one: there 2 is 1.
        """
        lacking = max(0, PUBLISHED_LAYERS.get(self.kind, 0) - self.num_layers)
        return max(1, clip_skip - lacking)


def record(
    w: Weights,
    cfg: ClipConfig,
    *,
    skip: int = 1,
    final_norm: bool = True,
    hidden: bool = False,
    pooled: bool = True,
    replaced: bool = False,
) -> Graph:
    """Inputs `ids` [S] i32, `positions` [S] i32, `mask` [S S]; outputs as asked for.

    `hidden` [S D]: the states at clip skip `skip` (1: of all layers, 2: without the last), with the final norm where
    `final_norm` says so: SD 1.x and 2.x have it, SDXL has not. `pooled` [1 P]: always of all layers, normalised, at the
    first end of text, which the further input `eos` [1] i32 says; CLIP-G's is projected.
    `replaced` adds the inputs `replace` [S D] and `keep` [S 1]: token embeddings are kept, or replaced where keep is 0.
    Raises RequestError for a skip the network is not deep enough for.
    """
    if not 1 <= skip <= cfg.num_layers:
        raise RequestError(f"clip skip {skip}: this text encoder has {cfg.num_layers} layers, so 1 to {cfg.num_layers}")
    text = w / "text_model"
    x = embedded(text / "embeddings", cfg, replaced)
    mask = input_tensor("mask", (cfg.length, cfg.length))
    outputs: dict[str, Tensor] = {}
    last = cfg.num_layers + 1 - skip
    for i in range(cfg.num_layers if pooled else last):
        x = layer(text / "encoder" / "layers" / i, cfg, x, mask)
        if hidden and i + 1 == last:
            outputs["hidden"] = ops.layer_norm(x, text / "final_layer_norm", eps=EPS) if final_norm else x
    if pooled:
        x = ops.layer_norm(x, text / "final_layer_norm", eps=EPS)
        x = ops.embedding(input_tensor("eos", (1,), "i32"), x)
        outputs["pooled"] = ops.linear(x, w / "text_projection", bias=False) if cfg.projected else x
    return Graph(outputs)


def host_inputs(
    cfg: ClipConfig, ids: np.ndarray, eos: int | None = None, vectors: Mapping[int, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """What `record`'s graph takes, for token ids [S].

    `eos` is the index of the first end of text, for a graph with `pooled`. `vectors`, for a graph with `replaced`, are
    textual inversions [n D] by the index of the first token they stand for; there may be none.
    Raises ValueError for another number of ids, or an index, id or size out of range.
    """
    if ids.shape != (cfg.length,) or not 0 <= (eos or 0) < cfg.length:
        raise ValueError(f"CLIP takes {cfg.length} token ids, given {ids.shape} with the end of text at {eos}")
    if ids.min() < 0 or ids.max() >= cfg.vocabulary:
        raise ValueError(f"token ids {ids.min()} to {ids.max()}, and this CLIP has {cfg.vocabulary} tokens")
    inputs = {
        "ids": ids.astype(np.int32),
        "positions": np.arange(cfg.length, dtype=np.int32),
        "mask": np.triu(np.full((cfg.length, cfg.length), -np.inf, np.float32), 1),
    }
    if eos is not None:
        inputs["eos"] = np.array([eos], np.int32)
    if vectors is not None:
        inputs |= replacements(cfg, vectors)
    return inputs


def replacements(cfg: ClipConfig, vectors: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
    replace, keep = np.zeros((cfg.length, cfg.hidden_size), np.float32), np.ones((cfg.length, 1), np.float32)
    for start, rows in vectors.items():
        if rows.ndim != 2 or rows.shape[1] != cfg.hidden_size or not 0 <= start <= cfg.length - len(rows):
            raise ValueError(
                f"embedding of shape {rows.shape} at token {start}: this CLIP has {cfg.length} tokens of "
                f"{cfg.hidden_size} values"
            )
        replace[start : start + len(rows)], keep[start : start + len(rows)] = rows, 0
    return {"replace": replace, "keep": keep}


def embedded(w: Weights, cfg: ClipConfig, replaced: bool) -> Tensor:
    """Token and position embeddings together, [S D]."""
    x = ops.embedding(input_tensor("ids", (cfg.length,), "i32"), (w / "token_embedding")["weight"])
    if replaced:
        x = x * input_tensor("keep", (cfg.length, 1)) + input_tensor("replace", x.shape)
    positions = input_tensor("positions", (cfg.length,), "i32")
    return x + ops.embedding(positions, (w / "position_embedding")["weight"])


def layer(w: Weights, cfg: ClipConfig, x: Tensor, mask: Tensor) -> Tensor:
    """`mask` [S S] is -inf where a token would look ahead, else 0."""
    x = x + self_attention(w / "self_attn", cfg, ops.layer_norm(x, w / "layer_norm1", eps=EPS), mask)
    mlp = ops.linear(ops.layer_norm(x, w / "layer_norm2", eps=EPS), w / "mlp" / "fc1")
    return x + ops.linear(ops.quick_gelu(mlp) if cfg.quick_gelu else ops.gelu(mlp), w / "mlp" / "fc2")


def self_attention(w: Weights, cfg: ClipConfig, x: Tensor, mask: Tensor) -> Tensor:
    heads = (1, x.shape[0], cfg.num_heads, HEAD_DIM)
    q, k, v = (ops.linear(x, w / name).reshape(*heads) for name in ("q_proj", "k_proj", "v_proj"))  # [1 S H C]
    return ops.linear(ops.attention(q, k, v, bias=mask).reshape(*x.shape), w / "out_proj")
