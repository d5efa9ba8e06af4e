"""UNet of Stable Diffusion 1.x, 2.x and SDXL.

Names of weights are those of CompVis/stable-diffusion (`input_blocks.1.0.in_layers.0.weight`). A block there is a
sequence of numbered layers; which layers stand where differs from family to family and is read from the names, so one
function records them all, inpainting (9 channels in) and instruct-pix2pix (8) included.

In shape comments: B batch, C channels, h and w height and width of the latents, N = h w, T text tokens, D their size,
E size of the time embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from relight.errors import ModelFileError
from relight.graph import Graph, Tensor, Weights, input_tensor, ops

EPS = 1e-5
TRANSFORMER_EPS = 1e-6  # of the group norm before each spatial transformer
GROUPS = 32
SD1_HEADS, SD1_CONTEXT = 8, 768
SIZE_EMBEDDING = 256  # of each of SDXL's six numbers


@dataclass(frozen=True, kw_only=True)
class UnetConfig:
    """`label_dim` is 0 without SDXL's pooled text and sizes. `num_heads` holds in every block; where it is None each
    block has as many heads as make `head_dim`."""

    in_channels: int = 4
    out_channels: int = 4
    model_channels: int = 320
    context_dim: int = 768
    label_dim: int = 0
    num_heads: int | None = SD1_HEADS
    head_dim: int = 64

    def __post_init__(self) -> None:
        if self.model_channels % GROUPS:
            raise ModelFileError(f"UNet of {self.model_channels} channels: not a multiple of {GROUPS}")

    @classmethod
    def from_weights(cls, w: Weights) -> UnetConfig:
        """Sizes from the shapes of the weights of a UNet or ControlNet.

        No shape tells the number of heads. Published networks without label that read text 768 wide (SD 1.x) have 8 in
        every block, all others heads of 64. Raises WeightMissing or ModelFileError where the network is another.
        """
        model_channels, in_channels = w.shape("input_blocks.0.0.weight")[:2]
        context_dim = _context_dim(w)
        label_dim = w.shape("label_emb.0.0.weight")[1] if "label_emb.0.0.weight" in w else 0
        return cls(
            in_channels=in_channels,
            out_channels=w.shape("out.2.weight")[0] if "out.2.weight" in w else 0,
            model_channels=model_channels,
            context_dim=context_dim,
            label_dim=label_dim,
            num_heads=SD1_HEADS if context_dim == SD1_CONTEXT and not label_dim else None,
        )

    def heads(self, channels: int) -> int:
        heads = self.num_heads or channels // self.head_dim
        if not heads or channels % heads:
            raise ModelFileError(f"UNet: a transformer of {channels} channels does not divide into its heads")
        return heads


def _context_dim(w: Weights) -> int:
    prefix = w.path + "." if w.path else ""
    for name in w.index:
        if name.startswith(prefix) and name.endswith(".attn2.to_k.weight"):
            return w.index.shape(name)[1]
    raise ModelFileError("UNet: no block attends to text (no attn2.to_k.weight)")


def sdxl_label(
    pooled: np.ndarray, original_size: tuple[int, int], crop: tuple[int, int], target_size: tuple[int, int]
) -> np.ndarray:
    """SDXL's `label` [B 2816]: pooled text [B 1280], then the embeddings of six numbers, height (top) before width
    (left), all in pixels. `original_size` is what a training picture had before it was scaled, `crop` its corner."""
    numbers = np.array([*original_size, *crop, *target_size], np.float64)
    half = SIZE_EMBEDDING // 2
    angles = numbers[:, None] * 10000.0 ** (-np.arange(half) / half)
    embedded = np.concatenate([np.cos(angles), np.sin(angles)], axis=1).reshape(1, -1).repeat(len(pooled), 0)
    return np.concatenate([pooled, embedded], axis=1).astype(np.float32)


class Inputs(NamedTuple):
    """What a step is given. `label` is None without SDXL's pooled text and sizes."""

    latents: Tensor
    timesteps: Tensor
    context: Tensor
    label: Tensor | None


class Steering(NamedTuple):
    """What steers every block: the time embedding (and label) after its silu [B E], and the text [B T D]."""

    emb: Tensor
    context: Tensor


class Residuals(NamedTuple):
    """What a ControlNet adds: to each skip of the encoder, and to what the middle block gives."""

    skips: list[Tensor]
    middle: Tensor


def record(
    w: Weights, cfg: UnetConfig, latent_height: int, latent_width: int, text_tokens: int, batch: int = 1
) -> Graph:
    """The graph of one step: inputs `latents` [B in_channels h w], `timesteps` [B] (0 to 999, fractions too),
    `context` [B T D] and, where the network has one, `label` [B label_dim]; output `noise` [B out_channels h w], which
    is v for networks trained on v. Height and width may be any number.
    """
    return Graph({"noise": unet(w, cfg, record_inputs(cfg, latent_height, latent_width, text_tokens, batch))})


def record_inputs(cfg: UnetConfig, latent_height: int, latent_width: int, text_tokens: int, batch: int) -> Inputs:
    return Inputs(
        input_tensor("latents", (batch, cfg.in_channels, latent_height, latent_width)),
        input_tensor("timesteps", (batch,)),
        input_tensor("context", (batch, text_tokens, cfg.context_dim)),
        input_tensor("label", (batch, cfg.label_dim)) if cfg.label_dim else None,
    )


def unet(w: Weights, cfg: UnetConfig, inputs: Inputs, controls: Sequence[Residuals] = ()) -> Tensor:
    """Noise (or v) [B out_channels h w]."""
    steering = steer(w, cfg, inputs)
    skips = encoder(w, cfg, inputs.latents, steering)
    x = block(w / "middle_block", cfg, skips[-1], steering)
    for control in controls:
        skips = [skip + residual for skip, residual in zip(skips, control.skips, strict=True)]
        x = x + control.middle
    x = decoder(w, cfg, x, skips, steering)
    x = ops.silu(ops.group_norm(x, w / "out" / 0, groups=GROUPS, eps=EPS))
    return ops.conv2d(x, w / "out" / 2, padding=1)


def steer(w: Weights, cfg: UnetConfig, inputs: Inputs) -> Steering:
    emb = embed(w / "time_embed", ops.timestep_embedding(inputs.timesteps, cfg.model_channels))
    if inputs.label is not None:
        emb = emb + embed(w / "label_emb" / 0, inputs.label)
    return Steering(ops.silu(emb), inputs.context)


def embed(w: Weights, x: Tensor) -> Tensor:
    return ops.linear(ops.silu(ops.linear(x, w / 0)), w / 2)


def encoder(
    w: Weights, cfg: UnetConfig, latents: Tensor, steering: Steering, hint: Tensor | None = None
) -> list[Tensor]:
    """What each input block gives, the last one deepest. `hint` [1 C h w] is added to the first."""
    blocks = w / "input_blocks"
    x = ops.conv2d(latents, blocks / 0 / 0, padding=1)
    skips = [x if hint is None else x + hint]
    for i in range(1, blocks.count()):
        skips.append(block(blocks / i, cfg, skips[-1], steering))
    return skips


def decoder(w: Weights, cfg: UnetConfig, x: Tensor, skips: list[Tensor], steering: Steering) -> Tensor:
    """The output blocks: each takes the skip of its mirror image in `skips`, and the last of a level grows to the size
    of the next."""
    blocks = w / "output_blocks"
    if blocks.count() != len(skips):
        raise ModelFileError(
            f"UNet of {len(skips)} input blocks and {blocks.count()} output blocks: not of this family"
        )
    for i, skip in enumerate(reversed(skips)):
        size = skips[-i - 2].shape[2:] if i + 1 < len(skips) else skip.shape[2:]
        x = block(blocks / i, cfg, ops.concat([x, skip], axis=1), steering, size)
    return x


def block(
    w: Weights, cfg: UnetConfig, x: Tensor, steering: Steering, grown_size: tuple[int, ...] | None = None
) -> Tensor:
    """The numbered layers under `w`, one after another."""
    for i in range(w.count()):
        layer = w / i
        if "proj_in.weight" in layer:
            x = transformer(layer, cfg, x, steering.context)
        elif "op.weight" in layer:
            x = ops.conv2d(x, layer / "op", stride=2, padding=1)
        elif "conv.weight" in layer:
            x = ops.conv2d(upsample(x, grown_size or x.shape[2:]), layer / "conv", padding=1)
        else:
            x = res_block(layer, x, steering.emb)
    return x


def upsample(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Twice as high and wide, or one row or column less where `size` is odd."""
    x = ops.upsample_nearest(x)
    for axis, length in zip((2, 3), size, strict=True):
        if x.shape[axis] != length:
            x = x.narrow(axis, 0, length)
    return x


def res_block(w: Weights, x: Tensor, emb: Tensor) -> Tensor:
    h = norm_silu_conv(w / "in_layers" / 0, w / "in_layers" / 2, x)
    h = h + ops.linear(emb, w / "emb_layers" / 1).reshape(*h.shape[:2], 1, 1)
    h = norm_silu_conv(w / "out_layers" / 0, w / "out_layers" / 3, h)
    if "skip_connection.weight" in w:
        x = ops.conv2d(x, w / "skip_connection")
    return x + h


def norm_silu_conv(norm: Weights, conv: Weights, x: Tensor) -> Tensor:
    return ops.conv2d(ops.silu(ops.group_norm(x, norm, groups=GROUPS, eps=EPS)), conv, padding=1)


def transformer(w: Weights, cfg: UnetConfig, x: Tensor, context: Tensor) -> Tensor:
    """Pixels as tokens: attention among them, attention to the text, and an MLP, several times.

    The tokens of the whole batch are the rows of one matrix [B*N C]: as [B N C] each product would be a view, over
    which ggml writes no later result, and a batch of two would take half as much memory again.
    """
    batch, channels, height, width = x.shape
    pixels = height * width
    normed = ops.group_norm(x, w / "norm", groups=GROUPS, eps=TRANSFORMER_EPS)
    rows = normed.reshape(batch, channels, pixels).permute(0, 2, 1).reshape(batch * pixels, channels)
    tokens = ops.linear(rows, w / "proj_in")
    for i in range((w / "transformer_blocks").count()):
        tokens = transformer_block(w / "transformer_blocks" / i, cfg, tokens, context)
    y = ops.linear(tokens, w / "proj_out").reshape(batch, pixels, channels).permute(0, 2, 1)
    return x + y.reshape(*x.shape)


def transformer_block(w: Weights, cfg: UnetConfig, x: Tensor, context: Tensor) -> Tensor:
    batch, text_tokens, text_size = context.shape
    text = context.reshape(batch * text_tokens, text_size)
    normed = ops.layer_norm(x, w / "norm1", eps=EPS)
    x = x + attention(w / "attn1", cfg, normed, normed, batch)
    x = x + attention(w / "attn2", cfg, ops.layer_norm(x, w / "norm2", eps=EPS), text, batch)
    return x + geglu(w / "ff" / "net", ops.layer_norm(x, w / "norm3", eps=EPS))


def attention(w: Weights, cfg: UnetConfig, x: Tensor, source: Tensor, batch: int) -> Tensor:
    """Tokens x [B*N C] attend to those of `source`: to the text [B*T D], or to themselves."""
    q, k, v = (ops.linear(rows, w / name) for rows, name in ((x, "to_q"), (source, "to_k"), (source, "to_v")))
    inner = q.shape[1]
    heads = cfg.heads(inner)
    q, k, v = (part.reshape(batch, part.shape[0] // batch, heads, inner // heads) for part in (q, k, v))  # [B N H C/H]
    return ops.linear(ops.attention(q, k, v).reshape(x.shape[0], inner), w / "to_out" / 0)


def geglu(w: Weights, x: Tensor) -> Tensor:
    """The first matrix holds value and gate one above the other; used as two, neither result has to be cut in half."""
    wide = w / 0 / "proj"
    size = wide.shape("weight")[0] // 2
    value, gate = ops.linear(x, wide.rows(0, size)), ops.linear(x, wide.rows(size, 2 * size))
    return ops.linear(value * ops.gelu(gate), w / 2)
