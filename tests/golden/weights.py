"""Small networks in the published layout: names, shapes and fixed random weights, the same wherever they are made.

Names are the canonical ones of relight's models; `make.py` has its own tables from them to diffusers and transformers.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np

Shapes = dict[str, tuple[int, ...]]

CLIP_VOCABULARY, CLIP_HIDDEN, CLIP_MLP, CLIP_LAYERS = 1000, 256, 512, 3
T5_VOCABULARY, T5_HIDDEN, T5_HEADS, T5_MLP, T5_LAYERS = 600, 256, 8, 768, 2
FLUX_HIDDEN, FLUX_HEADS, FLUX_TEXT, FLUX_POOLED, FLUX_DOUBLE, FLUX_SINGLE = 256, 2, 512, 256, 2, 2
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
