"""Small networks in the published layout: names, shapes and fixed random weights, the same wherever they are made.

Names are the canonical ones of relight's models; `make.py` has its own tables from them to diffusers and transformers.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

Shapes = dict[str, tuple[int, ...]]

CLIP_VOCABULARY, CLIP_HIDDEN, CLIP_MLP, CLIP_LAYERS = 1000, 256, 512, 3
T5_VOCABULARY, T5_HIDDEN, T5_HEADS, T5_MLP, T5_LAYERS = 600, 256, 8, 768, 2
FLUX_HIDDEN, FLUX_HEADS, FLUX_TEXT, FLUX_POOLED, FLUX_DOUBLE, FLUX_SINGLE = 256, 2, 512, 256, 2, 2
UNET_POOLED = 96
HINT_CHANNELS = (16, 16, 32, 32, 96, 96, 256)  # in every published ControlNet
VAE_CHANNELS = (32, 64, 64, 192)  # the last, as in real ones, too wide for one head of flash attention


def random_weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 1) -> dict[str, np.ndarray]:
    """Normal values of the size training leaves: products of a layer keep the magnitude of what goes in.

    Each tensor has a generator of its own, so neither order nor company matters. RandomState, because NumPy promises
    that its stream never changes.
    """
    return {name: _tensor(name, shape, seed) for name, shape in shapes.items()}


def _tensor(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    values = np.random.RandomState(zlib.crc32(f"{seed} {name}".encode())).standard_normal(shape)
    if len(shape) == 1:
        values = 0.1 * values + (0 if name.endswith("bias") else 1)
    else:
        values /= math.sqrt(math.prod(shape[1:]))
    if name.endswith("SelfAttention.q.weight"):
        values /= 8  # T5 does not divide scores by the root of the head size: its q is smaller instead
    return values.astype(np.float32)


def linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def conv(name: str, outputs: int, inputs: int, kernel: int = 3) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, kernel, kernel), f"{name}.bias": (outputs,)}


def clip_shapes() -> Shapes:
    size = CLIP_HIDDEN
    shapes: Shapes = {
        "text_model.embeddings.token_embedding.weight": (CLIP_VOCABULARY, size),
        "text_model.embeddings.position_embedding.weight": (77, size),
    }
    for i in range(CLIP_LAYERS):
        p = f"text_model.encoder.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{p}.self_attn.{part}", size, size)
        shapes |= norm(f"{p}.layer_norm1", size) | norm(f"{p}.layer_norm2", size)
        shapes |= linear(f"{p}.mlp.fc1", CLIP_MLP, size) | linear(f"{p}.mlp.fc2", size, CLIP_MLP)
    return shapes | norm("text_model.final_layer_norm", size)


def t5_shapes() -> Shapes:
    inner, size = T5_HEADS * 64, T5_HIDDEN
    shapes: Shapes = {
        "shared.weight": (T5_VOCABULARY, size),
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (32, T5_HEADS),
        "encoder.final_layer_norm.weight": (size,),
    }
    for i in range(T5_LAYERS):
        attention, mlp = f"encoder.block.{i}.layer.0", f"encoder.block.{i}.layer.1"
        shapes |= {f"{attention}.SelfAttention.{part}.weight": (inner, size) for part in "qkv"}
        shapes |= {f"{attention}.SelfAttention.o.weight": (size, inner)}
        shapes |= {f"{attention}.layer_norm.weight": (size,), f"{mlp}.layer_norm.weight": (size,)}
        shapes |= {f"{mlp}.DenseReluDense.{part}.weight": (T5_MLP, size) for part in ("wi_0", "wi_1")}
        shapes |= {f"{mlp}.DenseReluDense.wo.weight": (size, T5_MLP)}
    return shapes


def flux_shapes(guidance: bool) -> Shapes:
    size = FLUX_HIDDEN
    shapes = linear("img_in", size, 64) | linear("txt_in", size, FLUX_TEXT) | linear("final_layer.linear", 64, size)
    shapes |= linear("final_layer.adaLN_modulation.1", 2 * size, size)
    embeddings = {"time_in": 256, "vector_in": FLUX_POOLED} | ({"guidance_in": 256} if guidance else {})
    for name, inputs in embeddings.items():
        shapes |= linear(f"{name}.in_layer", size, inputs) | linear(f"{name}.out_layer", size, size)
    for i in range(FLUX_DOUBLE):
        for stream in ("img", "txt"):
            p = f"double_blocks.{i}.{stream}"
            shapes |= linear(f"{p}_mod.lin", 6 * size, size)
            shapes |= linear(f"{p}_attn.qkv", 3 * size, size) | linear(f"{p}_attn.proj", size, size)
            shapes |= linear(f"{p}_mlp.0", 4 * size, size) | linear(f"{p}_mlp.2", size, 4 * size)
            shapes |= query_key_norms(f"{p}_attn.norm")
    for i in range(FLUX_SINGLE):
        p = f"single_blocks.{i}"
        shapes |= linear(f"{p}.modulation.lin", 3 * size, size) | query_key_norms(f"{p}.norm")
        shapes |= linear(f"{p}.linear1", 7 * size, size) | linear(f"{p}.linear2", size, 5 * size)
    return shapes


def query_key_norms(name: str) -> Shapes:
    head = FLUX_HIDDEN // FLUX_HEADS
    return {f"{name}.query_norm.scale": (head,), f"{name}.key_norm.scale": (head,)}


def vae_shapes(latent_channels: int, quant_convs: bool) -> Shapes:
    """The quantisation convolutions are SD's and SDXL's (4 latent channels); FLUX's (16) has none."""
    moments = 2 * latent_channels
    shapes = decoder_shapes(latent_channels) | encoder_shapes(moments)
    if quant_convs:
        shapes |= conv("post_quant_conv", latent_channels, latent_channels, 1) | conv("quant_conv", moments, moments, 1)
    return shapes


def decoder_shapes(latent_channels: int, level_channels: tuple[int, ...] = VAE_CHANNELS) -> Shapes:
    top = size = level_channels[-1]
    shapes = conv("decoder.conv_in", top, latent_channels) | middle_shapes("decoder.mid", top)
    for level, channels in reversed(list(enumerate(level_channels))):
        for i in range(3):
            shapes |= res_block_shapes(f"decoder.up.{level}.block.{i}", size, channels)
            size = channels
        if level:
            shapes |= conv(f"decoder.up.{level}.upsample.conv", channels, channels)
    return shapes | norm("decoder.norm_out", size) | conv("decoder.conv_out", 3, size)


def encoder_shapes(moments: int) -> Shapes:
    size = VAE_CHANNELS[0]
    shapes = conv("encoder.conv_in", size, 3)
    for level, channels in enumerate(VAE_CHANNELS):
        for i in range(2):
            shapes |= res_block_shapes(f"encoder.down.{level}.block.{i}", size, channels)
            size = channels
        if level < len(VAE_CHANNELS) - 1:
            shapes |= conv(f"encoder.down.{level}.downsample.conv", channels, channels)
    shapes |= middle_shapes("encoder.mid", size)
    return shapes | norm("encoder.norm_out", size) | conv("encoder.conv_out", moments, size)


def middle_shapes(name: str, size: int) -> Shapes:
    shapes = res_block_shapes(f"{name}.block_1", size, size) | res_block_shapes(f"{name}.block_2", size, size)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= conv(f"{name}.attn_1.{part}", size, size, 1)
    return shapes | norm(f"{name}.attn_1.norm", size)


def res_block_shapes(name: str, inputs: int, outputs: int) -> Shapes:
    shapes = norm(f"{name}.norm1", inputs) | conv(f"{name}.conv1", outputs, inputs)
    shapes |= norm(f"{name}.norm2", outputs) | conv(f"{name}.conv2", outputs, outputs)
    return shapes | (conv(f"{name}.nin_shortcut", outputs, inputs, 1) if inputs != outputs else {})


@dataclass(frozen=True)
class UnetSpec:
    """`channels` and `depths` (transformer blocks behind each res block) per level, full resolution first."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    middle_depth: int
    context: int
    label: int = 0
    in_channels: int = 4
    linear_projection: bool = True
    res_blocks: int = 2

    @property
    def embedding(self) -> int:
        return 4 * self.channels[0]


UNETS = {
    "sd1": UnetSpec((32, 64, 64), (1, 1, 0), 1, 768, linear_projection=False),
    "sd1_inpaint": UnetSpec((32, 64, 64), (1, 1, 0), 1, 768, in_channels=9, linear_projection=False),
    "sd2": UnetSpec((64, 128), (1, 0), 1, 96),
    "sdxl": UnetSpec((64, 128), (0, 2), 2, 96, label=UNET_POOLED + 6 * 256),
}


FAINT = (
    "input_blocks.0.0.weight",
    "input_blocks.0.0.bias",
    "out_layers.3.weight",
    "out_layers.3.bias",
    ".1.proj_out.weight",
    ".1.proj_out.bias",
    "skip_connection.bias",
    "op.bias",
    "conv.bias",
)


def unet_weights(kind: str) -> dict[str, np.ndarray]:
    """In `sd1_inpaint` what goes from block to block is faint, so that the epsilons of its norms show."""
    arrays = random_weights(unet_shapes(UNETS[kind]))
    faint = FAINT if kind == "sd1_inpaint" else ()
    return {name: array / np.float32(32) if name.endswith(faint) else array for name, array in arrays.items()}


def unet_shapes(spec: UnetSpec) -> Shapes:
    """The input blocks, then their mirror image: each output block takes one skip on top of what comes from below."""
    shapes, skips = unet_encoder_shapes(spec)
    size, block = skips[-1], 0
    for level, channels in reversed(list(enumerate(spec.channels))):
        for i in range(spec.res_blocks + 1):
            p = f"output_blocks.{block}"
            shapes |= unet_res_block_shapes(f"{p}.0", spec, size + skips.pop(), channels)
            if spec.depths[level]:
                shapes |= transformer_shapes(f"{p}.1", spec, channels, spec.depths[level])
            if level and i == spec.res_blocks:
                shapes |= conv(f"{p}.{2 if spec.depths[level] else 1}.conv", channels, channels)
            size, block = channels, block + 1
    return shapes | norm("out.0", size) | conv("out.2", 4, size)


def unet_encoder_shapes(spec: UnetSpec) -> tuple[Shapes, list[int]]:
    """Everything down to the middle block, and the channels of each skip."""
    first, emb = spec.channels[0], spec.embedding
    shapes = linear("time_embed.0", emb, first) | linear("time_embed.2", emb, emb)
    if spec.label:
        shapes |= linear("label_emb.0.0", emb, spec.label) | linear("label_emb.0.2", emb, emb)
    shapes |= conv("input_blocks.0.0", first, spec.in_channels)
    skips = [first]
    for level, (channels, depth) in enumerate(zip(spec.channels, spec.depths, strict=True)):
        for _ in range(spec.res_blocks):
            p = f"input_blocks.{len(skips)}"
            shapes |= unet_res_block_shapes(f"{p}.0", spec, skips[-1], channels)
            if depth:
                shapes |= transformer_shapes(f"{p}.1", spec, channels, depth)
            skips.append(channels)
        if level < len(spec.channels) - 1:
            shapes |= conv(f"input_blocks.{len(skips)}.0.op", channels, channels)
            skips.append(channels)
    for i in (0, 2):
        shapes |= unet_res_block_shapes(f"middle_block.{i}", spec, skips[-1], skips[-1])
    return shapes | transformer_shapes("middle_block.1", spec, skips[-1], spec.middle_depth), skips


def unet_res_block_shapes(name: str, spec: UnetSpec, inputs: int, outputs: int) -> Shapes:
    shapes = norm(f"{name}.in_layers.0", inputs) | conv(f"{name}.in_layers.2", outputs, inputs)
    shapes |= linear(f"{name}.emb_layers.1", outputs, spec.embedding)
    shapes |= norm(f"{name}.out_layers.0", outputs) | conv(f"{name}.out_layers.3", outputs, outputs)
    return shapes | (conv(f"{name}.skip_connection", outputs, inputs, 1) if inputs != outputs else {})


def transformer_shapes(name: str, spec: UnetSpec, size: int, depth: int) -> Shapes:
    projection = linear if spec.linear_projection else partial(conv, kernel=1)
    shapes = norm(f"{name}.norm", size) | projection(f"{name}.proj_in", size, size)
    for i in range(depth):
        p = f"{name}.transformer_blocks.{i}"
        for part, source in (("attn1", size), ("attn2", spec.context)):
            shapes |= {f"{p}.{part}.to_q.weight": (size, size)}
            shapes |= {f"{p}.{part}.{matrix}.weight": (size, source) for matrix in ("to_k", "to_v")}
            shapes |= linear(f"{p}.{part}.to_out.0", size, size)
        shapes |= linear(f"{p}.ff.net.0.proj", 8 * size, size) | linear(f"{p}.ff.net.2", size, 4 * size)
        for part in ("norm1", "norm2", "norm3"):
            shapes |= norm(f"{p}.{part}", size)
    return shapes | projection(f"{name}.proj_out", size, size)


def controlnet_shapes(spec: UnetSpec) -> Shapes:
    shapes, skips = unet_encoder_shapes(spec)
    for i, channels in enumerate(skips):
        shapes |= conv(f"zero_convs.{i}.0", channels, channels, 1)
    shapes |= conv("middle_block_out.0", skips[-1], skips[-1], 1)
    sizes = (3, *HINT_CHANNELS, spec.channels[0])
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        shapes |= conv(f"input_hint_block.{2 * i}", outputs, inputs)
    return shapes
