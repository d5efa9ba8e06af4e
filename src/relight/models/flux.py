"""FLUX.1 transformer: double-stream blocks, then single-stream blocks over text and image together.

Names of weights are those of black-forest-labs/FLUX.1-*. The network is recorded as two graphs: `record_modulation`
(how timestep, guidance and pooled text steer every block: a quarter of the weights, used once per picture for all
steps) and `record` (everything else: run at each step). They need not be on the same device.

In shape comments: B batch, N steps, T text tokens, I image tokens, S = T + I, D hidden size, H heads, C head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from relight.errors import ModelFileError
from relight.graph import Graph, Tensor, Weights, input_tensor, ops

EPS = 1e-6
TIME_FACTOR = 1000.0  # timesteps and guidance are embedded as thousandths


@dataclass(frozen=True, kw_only=True)
class FluxConfig:
    in_channels: int = 64
    text_dim: int = 4096
    pooled_dim: int = 768
    hidden_size: int = 3072
    num_heads: int = 24
    mlp_size: int = 12288
    double_blocks: int = 19
    single_blocks: int = 38
    theta: float = 10_000
    guidance_embed: bool = False

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads or self.head_dim % 16:
            raise ModelFileError(
                f"FLUX of hidden size {self.hidden_size} and {self.num_heads} heads: not of this family"
            )

    @classmethod
    def from_weights(cls, w: Weights) -> FluxConfig:
        """Sizes from the shapes of the weights. Raises WeightMissing where one of them is not there."""
        hidden_size, in_channels = w.shape("img_in.weight")
        (head_dim,) = w.shape("double_blocks.0.img_attn.norm.query_norm.scale")
        return cls(
            in_channels=in_channels,
            text_dim=w.shape("txt_in.weight")[1],
            pooled_dim=w.shape("vector_in.in_layer.weight")[1],
            hidden_size=hidden_size,
            num_heads=hidden_size // head_dim,
            mlp_size=w.shape("double_blocks.0.img_mlp.0.weight")[0],
            double_blocks=(w / "double_blocks").count(),
            single_blocks=(w / "single_blocks").count(),
            guidance_embed="guidance_in.in_layer.weight" in w,
        )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def rope_sections(self) -> tuple[int, int, int]:
        """Pairs of each head that turn with index, row and column: 8, 28, 28 of 64."""
        pairs = self.head_dim // 2
        return pairs // 8, pairs * 7 // 16, pairs * 7 // 16

    @property
    def modulation_size(self) -> int:
        return self.hidden_size * (12 * self.double_blocks + 3 * self.single_blocks + 2)


def positions(text_tokens: int, grid_height: int, grid_width: int) -> np.ndarray:
    """Positions [3 S]: text tokens stand at (0, 0, 0), the image patch in row y and column x at (0, y, x)."""
    y, x = np.mgrid[:grid_height, :grid_width].reshape(2, -1)
    image = np.stack([np.zeros_like(y), y, x])
    return np.concatenate([np.zeros((3, text_tokens)), image], axis=1).astype(np.int32)


def record(w: Weights, cfg: FluxConfig, text_tokens: int, latent_height: int, latent_width: int) -> Graph:
    """The graph of one step: inputs `latents` [1 I 64] (2x2 patches), `text` [1 T 4096], `modulation` [1 M] and
    `positions` [3 S] i32; output `velocity` [1 I 64], noise minus image."""
    image_tokens = (latent_height // 2) * (latent_width // 2)
    velocity = flux(
        w,
        cfg,
        latents=input_tensor("latents", (1, image_tokens, cfg.in_channels)),
        text=input_tensor("text", (1, text_tokens, cfg.text_dim)),
        modulation=input_tensor("modulation", (1, cfg.modulation_size)),
        rope=Rope(input_tensor("positions", (3, text_tokens + image_tokens), "i32"), cfg.rope_sections, cfg.theta),
    )
    return Graph({"velocity": velocity})


def record_modulation(w: Weights, cfg: FluxConfig, steps: int) -> Graph:
    """All steps at once: inputs `timesteps` [N] in 0..1, `pooled` [1 768] and, for guidance-distilled models,
    `guidance` [N]; output `modulation` [N M]."""
    vec = embed(w / "time_in", ops.timestep_embedding(input_tensor("timesteps", (steps,)) * TIME_FACTOR, 256))
    if cfg.guidance_embed:
        guidance = input_tensor("guidance", (steps,)) * TIME_FACTOR
        vec = vec + embed(w / "guidance_in", ops.timestep_embedding(guidance, 256))
    vec = vec + embed(w / "vector_in", input_tensor("pooled", (1, cfg.pooled_dim)))
    vec = ops.silu(vec)  # [N D]

    parts = []
    for i in range(cfg.double_blocks):
        block = w / "double_blocks" / i
        parts += [modulate(block / "img_mod" / "lin", vec, 2), modulate(block / "txt_mod" / "lin", vec, 2)]
    parts += [modulate(w / "single_blocks" / i / "modulation" / "lin", vec, 1) for i in range(cfg.single_blocks)]
    shift, scale = ops.linear(vec, w / "final_layer" / "adaLN_modulation" / 1).split([cfg.hidden_size] * 2)
    return Graph({"modulation": ops.concat([*parts, shift, scale + 1], axis=1)})


def modulate(w: Weights, vec: Tensor, sublayers: int) -> Tensor:
    """Shift, scale and gate of each sublayer, [N 3*sublayers*D], with one added to the scale."""
    size = vec.shape[1]
    parts = ops.linear(vec, w).split([size] * (3 * sublayers))
    return ops.concat([part + 1 if i % 3 == 1 else part for i, part in enumerate(parts)], axis=1)


class Rope(NamedTuple):
    positions: Tensor
    sections: tuple[int, ...]
    theta: float

    def __call__(self, x: Tensor) -> Tensor:
        return ops.rope(x, self.positions, sections=self.sections, theta=self.theta)


class Modulation(NamedTuple):
    """How timestep, guidance and pooled text steer one sublayer (adaLN-Zero), each [1 1 D]; scale has one added."""

    shift: Tensor
    scale: Tensor
    gate: Tensor

    def shift_scale(self, x: Tensor) -> Tensor:
        return ops.layer_norm(x, eps=EPS) * self.scale + self.shift


class ModulationReader:
    """Deals out the modulation vector [1 M] in the order in which `record_modulation` lays it down."""

    def __init__(self, modulation: Tensor, hidden_size: int) -> None:
        self.modulation, self.size, self.start = modulation, hidden_size, 0

    def take(self) -> Tensor:
        part = self.modulation.narrow(1, self.start, self.size)
        self.start += self.size
        return part.reshape(1, 1, self.size)

    def sublayer(self) -> Modulation:
        return Modulation(self.take(), self.take(), self.take())


def flux(w: Weights, cfg: FluxConfig, latents: Tensor, text: Tensor, modulation: Tensor, rope: Rope) -> Tensor:
    """Predict the flow (noise minus image) of each latent patch, [1 I 64]."""
    reader = ModulationReader(modulation, cfg.hidden_size)
    img = ops.linear(latents, w / "img_in")
    txt = ops.linear(text, w / "txt_in")
    for i in range(cfg.double_blocks):
        img, txt = double_block(w / "double_blocks" / i, cfg, img, txt, reader, rope)

    x = ops.concat([txt, img], axis=1)
    for i in range(cfg.single_blocks):
        x = single_block(w / "single_blocks" / i, cfg, x, reader.sublayer(), rope)
    img = x.narrow(1, txt.shape[1], img.shape[1])

    shift, scale = reader.take(), reader.take()
    return ops.linear(ops.layer_norm(img, eps=EPS) * scale + shift, w / "final_layer" / "linear")


def double_block(
    w: Weights, cfg: FluxConfig, img: Tensor, txt: Tensor, reader: ModulationReader, rope: Rope
) -> tuple[Tensor, Tensor]:
    """Image and text have weights of their own, and attend to each other as one sequence."""
    img_attn, img_mlp = reader.sublayer(), reader.sublayer()
    txt_attn, txt_mlp = reader.sublayer(), reader.sublayer()

    streams = [
        qkv_heads(w / "txt_attn" / "qkv", w / "txt_attn" / "norm", cfg, txt_attn.shift_scale(txt)),
        qkv_heads(w / "img_attn" / "qkv", w / "img_attn" / "norm", cfg, img_attn.shift_scale(img)),
    ]
    q, k, v = (ops.concat(pair, axis=1) for pair in zip(*streams, strict=True))  # [1 S H C]
    txt_out, img_out = joint_attention(q, k, v, rope).split([txt.shape[1], img.shape[1]], axis=1)

    img = img + ops.linear(img_out, w / "img_attn" / "proj") * img_attn.gate
    txt = txt + ops.linear(txt_out, w / "txt_attn" / "proj") * txt_attn.gate
    img = img + mlp(w / "img_mlp", img_mlp.shift_scale(img)) * img_mlp.gate
    txt = txt + mlp(w / "txt_mlp", txt_mlp.shift_scale(txt)) * txt_mlp.gate
    return img, txt


def single_block(w: Weights, cfg: FluxConfig, x: Tensor, mod: Modulation, rope: Rope) -> Tensor:
    """Attention and MLP side by side.

    The file fuses q, k, v and MLP into one matrix in and one out. They are used in two halves each: the two wide
    results then never exist at once, and need not be copied side by side.
    """
    size = cfg.hidden_size
    normed = mod.shift_scale(x)
    attn = joint_attention(*qkv_heads(w / "linear1", w / "norm", cfg, normed), rope)
    y = ops.linear(attn, (w / "linear2").columns(0, size))
    hidden = ops.linear(normed, (w / "linear1").rows(3 * size, 3 * size + cfg.mlp_size))
    y = y + ops.linear(ops.gelu_tanh(hidden), (w / "linear2").columns(size, size + cfg.mlp_size), bias=False)
    return x + y * mod.gate


def qkv_heads(w: Weights, norm: Weights, cfg: FluxConfig, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[1 L D] -> q, k, v as [1 L H C], with q and k normalised per head, in the order of `rope_order`."""
    order = rope_order(cfg)
    heads = np.arange(cfg.num_heads)[:, None] * cfg.head_dim
    q_rows = (heads + order).reshape(-1)
    rows = np.concatenate([q_rows, cfg.hidden_size + q_rows, 2 * cfg.hidden_size + np.arange(cfg.hidden_size)])
    qkv = ops.linear(x, w.rows(rows))
    q, k, v = (part.reshape(1, x.shape[1], cfg.num_heads, cfg.head_dim) for part in qkv.split([cfg.hidden_size] * 3))
    q_scale, k_scale = ((norm / name).rows(order)["scale"] for name in ("query_norm", "key_norm"))
    return ops.rms_norm(q, q_scale, eps=EPS), ops.rms_norm(k, k_scale, eps=EPS), v


def rope_order(cfg: FluxConfig) -> np.ndarray:
    """FLUX turns adjacent pairs of each head; with the even elements before the odd ones they are `ops.rope`'s pairs.

    q and k get the same order, so their products, all that attention sees of them, stay the same.
    """
    return np.arange(cfg.head_dim).reshape(-1, 2).T.reshape(-1)


def joint_attention(q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor:
    batch, length, heads, head_dim = q.shape
    return ops.attention(rope(q), rope(k), v).reshape(batch, length, heads * head_dim)


def mlp(w: Weights, x: Tensor) -> Tensor:
    return ops.linear(ops.gelu_tanh(ops.linear(x, w / 0)), w / 2)


def embed(w: Weights, x: Tensor) -> Tensor:
    return ops.linear(ops.silu(ops.linear(x, w / "in_layer")), w / "out_layer")
