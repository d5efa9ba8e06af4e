"""Checkpoint files as their publishers lay them out, at tiny sizes with random values.

`arrays(kind)` makes a network under our names; the functions after it write it as one publisher or another would.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from relight.weights.formats import FORMATS, nbytes
from relight.weights.names import clip_names, flux_names, t5_names, vae_names
from relight.weights.write import TensorSource, write_gguf, write_safetensors

Arrays = dict[str, np.ndarray]

HIDDEN, TEXT, POOLED, CHANNELS, HEAD = 256, 64, 64, 64, 128
T5_PIECES = 96


def arrays(kind: str, seed: int = 0, **sizes: Any) -> Arrays:
    """Float32 arrays of a whole tiny network (`clip_l`, `t5xxl`, `diffusion`, `vae`) under our names."""
    rng = np.random.default_rng(seed)
    shapes = {"clip_l": clip_shapes, "t5xxl": t5_shapes, "diffusion": flux_shapes, "vae": vae_shapes}[kind](**sizes)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def flux_shapes(
    double: int = 1, single: int = 1, guidance: bool = False, hidden: int = HIDDEN
) -> dict[str, tuple[int, ...]]:
    d = hidden
    matrices = {
        "img_in": (d, CHANNELS),
        "txt_in": (d, TEXT),
        "time_in.in_layer": (d, 256),
        "guidance_in.in_layer": (d, 256),
        "vector_in.in_layer": (d, POOLED),
        "out_layer": (d, d),
        "mod.lin": (6 * d, d),
        "attn.qkv": (3 * d, d),
        "attn.proj": (d, d),
        "mlp.0": (4 * d, d),
        "mlp.2": (d, 4 * d),
        "modulation.lin": (3 * d, d),
        "linear1": (7 * d, d),
        "linear2": (d, 5 * d),
        "adaLN_modulation.1": (2 * d, d),
        "final_layer.linear": (CHANNELS, d),
    }
    return {
        name: (HEAD,) if name.endswith(".scale") else _leaf(name, matrices)
        for name in flux_names(double, single, guidance)
    }


def clip_shapes(layers: int = 2, hidden: int = 64) -> dict[str, tuple[int, ...]]:
    matrices = {
        "token_embedding": (100, hidden),
        "position_embedding": (77, hidden),
        "_proj": (hidden, hidden),
        "mlp.fc1": (2 * hidden, hidden),
        "mlp.fc2": (hidden, 2 * hidden),
    }
    return {name: (hidden,) if "norm" in name else _leaf(name, matrices) for name in clip_names(layers)}


def t5_shapes(layers: int = 2, hidden: int = 64, heads: int = 4, mlp: int = 96) -> dict[str, tuple[int, ...]]:
    matrices = {
        "shared": (T5_PIECES, hidden),
        "relative_attention_bias": (32, heads),
        "wi_0": (mlp, hidden),
        "wi_1": (mlp, hidden),
        "wo": (hidden, mlp),
    } | {f"SelfAttention.{part}": (hidden, hidden) for part in "qkvo"}
    return {name: (hidden,) if "norm" in name else _leaf(name, matrices) for name in t5_names(layers)}


def vae_shapes(
    channels: tuple[int, ...] = (8, 16, 16), latent: int = 16, sides: Iterable[str] = ("decoder", "encoder")
) -> Any:
    """Shapes follow the channels of each level, highest resolution first; shortcuts where they change."""
    shapes: dict[str, tuple[int, ...]] = {}
    top = channels[-1]
    for name in vae_names(len(channels), sides):
        path, _, leaf = name.rpartition(".")
        side, *inner = path.split(".")
        rows, columns = top, top
        if inner[0] == "conv_in":
            rows, columns = (top, latent) if side == "decoder" else (channels[0], 3)
        elif inner[0] == "conv_out":
            rows, columns = (3, channels[0]) if side == "decoder" else (2 * latent, top)
        elif inner[0] == "norm_out":
            rows = channels[0] if side == "decoder" else top
        elif inner[0] in ("up", "down"):
            rows, columns = _level_channels(channels, inner)
        if "norm" in inner[-1]:
            shapes[name] = (columns if inner[-1] == "norm1" else rows,)
        else:
            kernel = 1 if "attn_1" in path else 3
            shapes[name] = (rows, columns, kernel, kernel) if leaf == "weight" else (rows,)
        if inner[-1] == "conv1" and leaf == "bias" and rows != columns:
            shortcut = path.removesuffix("conv1") + "nin_shortcut"
            shapes |= {f"{shortcut}.weight": (rows, columns, 1, 1), f"{shortcut}.bias": (rows,)}
    return shapes


def _level_channels(channels: tuple[int, ...], inner: list[str]) -> tuple[int, int]:
    level, rows = int(inner[1]), channels[int(inner[1])]
    before = channels[min(level + 1, len(channels) - 1)] if inner[0] == "up" else channels[max(level - 1, 0)]
    first = inner[2] == "block" and inner[3] == "0" and inner[4] in ("conv1", "norm1")
    return rows, before if first else rows


def _leaf(name: str, matrices: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    path, _, leaf = name.rpartition(".")
    shape = next(shape for ending, shape in matrices.items() if path.endswith(ending))
    return shape if leaf == "weight" else shape[:1]


def stored_as(format_name: str, array: np.ndarray, seed: int = 0) -> np.ndarray:
    """The bytes of an array in a format; for block formats random blocks, whose values have nothing to do with it."""
    if format_name == "F32":
        return array.astype("<f4").reshape(-1).view(np.uint8)
    if format_name == "F16":
        return array.astype("<f2").reshape(-1).view(np.uint8)
    if format_name == "BF16":
        return (array.astype("<f4").reshape(-1).view("<u4") >> 16).astype("<u2").view(np.uint8)
    if format_name == "I64":
        return array.astype("<i8").reshape(-1).view(np.uint8)
    return random_blocks(format_name, array.shape, np.random.default_rng(seed))


SCALES = {
    "Q6_K": (208,),
    "Q3_K": (108,),
    "Q2_K": (80, 82),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q4_1": (0, 2),
    "Q5_1": (0, 2),
}
"""Where the F16 factors of a block lie; at byte 0 in the formats not named."""


def random_blocks(format_name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Random bytes of a format with finite, small factors, so that every value decodes to a finite number."""
    stored = FORMATS[format_name]
    raw = rng.integers(0, 256, (nbytes(format_name, shape) // stored.block_bytes, stored.block_bytes), np.uint8)
    if stored.block_elements > 1:
        for at in SCALES.get(format_name, (0,)):
            raw[:, at : at + 2] = rng.uniform(0.001, 0.01, (len(raw), 1)).astype("<f2").view(np.uint8)
    elif format_name == "F8_E4M3":
        raw[(raw & 127) == 127] = 0
    return raw.reshape(-1)


def sources(
    tensors: Mapping[str, np.ndarray], format_name: str = "F32", small: str | None = None
) -> list[TensorSource]:
    """Tensors to be written; vectors, and rows that are no whole blocks, in the format `small`."""
    return [
        TensorSource(name, array.shape, chosen, partial(stored_as, chosen, array))
        for name, array in tensors.items()
        for chosen in [_fitting(array, format_name, small or format_name)]
    ]


def _fitting(array: np.ndarray, format_name: str, small: str) -> str:
    whole = array.ndim > 1 and array.shape[-1] % FORMATS[format_name].block_elements == 0
    return format_name if whole else small


def prefixed[V](prefix: str, tensors: Mapping[str, V]) -> dict[str, V]:
    """Arrays, or shapes."""
    return {prefix + name: array for name, array in tensors.items()}


def safetensors(path: Path, tensors: Mapping[str, np.ndarray], format_name: str = "F32") -> Path:
    write_safetensors(path, sources(tensors, format_name, format_name), {"format": "pt"})
    return path


def city96(path: Path, tensors: Mapping[str, np.ndarray], format_name: str = "Q4_K") -> Path:
    """ComfyUI-GGUF's files: names as they were, inputs and outputs in F16, vectors in F32, an architecture."""
    plain = ("img_in", "txt_in", "time_in", "vector_in", "guidance_in", "final_layer")
    written = [
        TensorSource(name, array.shape, chosen, partial(stored_as, chosen, array))
        for name, array in tensors.items()
        for chosen in [
            "F32" if array.ndim == 1 else "F16" if name.startswith(plain) else _fitting(array, format_name, "F16")
        ]
    ]
    write_gguf(path, written, {"general.architecture": "flux", "general.quantization_version": 2})
    return path


def leejet(path: Path, tensors: Mapping[str, np.ndarray], format_name: str = "Q8_0", prefix: str = "") -> Path:
    """stable-diffusion.cpp's files: no metadata at all, names with or without a prefix."""
    write_gguf(path, sources(prefixed(prefix, tensors), format_name, "F32"))
    return path


def llama_cpp_t5(path: Path, tensors: Mapping[str, np.ndarray], format_name: str = "Q8_0", **metadata: Any) -> Path:
    """llama.cpp's T5 encoder, with a vocabulary."""
    names = {}
    for name, array in tensors.items():
        parts = name.split(".")
        if name == "shared.weight":
            names["token_embd.weight"] = array
        elif name == "encoder.final_layer_norm.weight":
            names["enc.output_norm.weight"] = array
        else:
            leaf = LLAMA_CPP_T5[".".join(parts[3:-1])]
            names[f"enc.blk.{parts[2]}.{leaf}.weight"] = array
    write_gguf(path, sources(names, format_name, "F32"), t5_metadata() | metadata)
    return path


LLAMA_CPP_T5 = {
    "layer.0.SelfAttention.q": "attn_q",
    "layer.0.SelfAttention.k": "attn_k",
    "layer.0.SelfAttention.v": "attn_v",
    "layer.0.SelfAttention.o": "attn_o",
    "layer.0.SelfAttention.relative_attention_bias": "attn_rel_b",
    "layer.0.layer_norm": "attn_norm",
    "layer.1.layer_norm": "ffn_norm",
    "layer.1.DenseReluDense.wi_0": "ffn_gate",
    "layer.1.DenseReluDense.wi_1": "ffn_up",
    "layer.1.DenseReluDense.wo": "ffn_down",
}


def t5_metadata() -> dict[str, Any]:
    pieces = ["<pad>", "</s>", "<unk>", "▁", *(f"▁w{i}" for i in range(T5_PIECES - 4))]
    return {
        "general.architecture": "t5encoder",
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": np.linspace(0, -9, len(pieces), dtype=np.float32),
        "tokenizer.ggml.token_type": np.array([3, 3, 2, *[1] * (len(pieces) - 3)], np.int32),
        "tokenizer.ggml.precompiled_charsmap": np.arange(200, dtype=np.uint8),
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_space_prefix": True,
    }


def diffusers_flux(tensors: Mapping[str, np.ndarray]) -> Arrays:
    """Our FLUX tensors under diffusers' names: qkv and linear1 taken apart, scale before shift at the end."""
    out: Arrays = {}
    for name, array in tensors.items():
        path, _, leaf = name.rpartition(".")
        head, *rest = path.split(".")
        if head == "double_blocks":
            out |= _double_block(f"transformer_blocks.{rest[0]}", ".".join(rest[1:]), leaf, array)
        elif head == "single_blocks":
            out |= _single_block(f"single_transformer_blocks.{rest[0]}", ".".join(rest[1:]), leaf, array)
        elif path == "final_layer.adaLN_modulation.1":
            out[f"norm_out.linear.{leaf}"] = np.concatenate(np.split(array, 2)[::-1])
        else:
            out[f"{DIFFUSERS_ENDS[path]}.{leaf}"] = array
    return out


DIFFUSERS_ENDS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
}


def _double_block(block: str, path: str, leaf: str, array: np.ndarray) -> Arrays:
    stream, part = path.split("_", 1)
    text = stream == "txt"
    if part == "attn.qkv":
        names = ["add_q_proj", "add_k_proj", "add_v_proj"] if text else ["to_q", "to_k", "to_v"]
        return {f"{block}.attn.{name}.{leaf}": rows for name, rows in zip(names, np.split(array, 3), strict=True)}
    if leaf == "scale":
        return {f"{block}.attn.norm_{'added_' if text else ''}{part.removeprefix('attn.norm.')[0]}.weight": array}
    renamed = {
        "mod.lin": "norm1_context.linear" if text else "norm1.linear",
        "attn.proj": "attn.to_add_out" if text else "attn.to_out.0",
        "mlp.0": f"ff{'_context' if text else ''}.net.0.proj",
        "mlp.2": f"ff{'_context' if text else ''}.net.2",
    }
    return {f"{block}.{renamed[part]}.{leaf}": array}


def _single_block(block: str, path: str, leaf: str, array: np.ndarray) -> Arrays:
    if path == "linear1":
        hidden = len(array) // 7
        names = ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"]
        pieces = np.split(array, [hidden, 2 * hidden, 3 * hidden])
        return {f"{block}.{name}.{leaf}": rows for name, rows in zip(names, pieces, strict=True)}
    if leaf == "scale":
        return {f"{block}.attn.norm_{path.removeprefix('norm.')[0]}.weight": array}
    return {f"{block}.{ {'modulation.lin': 'norm.linear', 'linear2': 'proj_out'}[path] }.{leaf}": array}


def sharded(
    folder: Path, tensors: Mapping[str, np.ndarray], shards: int = 3, stem: str = "diffusion_pytorch_model"
) -> Path:
    """diffusers' shards with their index; returns the index."""
    folder.mkdir(parents=True, exist_ok=True)
    weight_map = {}
    for i in range(shards):
        file = f"{stem}-{i + 1:05}-of-{shards:05}.safetensors"
        some = dict(list(tensors.items())[i::shards])
        safetensors(folder / file, some)
        weight_map |= dict.fromkeys(some, file)
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))
    return index
