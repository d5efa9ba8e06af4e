"""Names and shapes of FLUX.1's four networks at any size, as their publishers lay them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relight.weights.names import clip_names, flux_names, t5_names, vae_names

Shapes = dict[str, tuple[int, ...]]

HEAD_DIM = 128
IN_CHANNELS = 64
LATENT_CHANNELS = 16
CLIP_HIDDEN, CLIP_LAYERS, CLIP_MLP, CLIP_VOCABULARY, CLIP_TOKENS = 768, 12, 3072, 49408, 77
T5_VOCABULARY, T5_BUCKETS, T5_HEAD_DIM = 32128, 32, 64


@dataclass(frozen=True, kw_only=True)
class FluxSizes:
    """What may be varied; CLIP-L always has its real size, which stable-diffusion.cpp takes for granted."""

    hidden: int = 3072
    double_blocks: int = 19
    single_blocks: int = 38
    guidance: bool = False
    t5_layers: int = 24
    t5_hidden: int = 4096
    t5_mlp: int = 10240
    vae_channels: tuple[int, ...] = (128, 256, 512, 512)


PRESETS = {
    "full": FluxSizes(),
    "small": FluxSizes(hidden=512, double_blocks=2, single_blocks=4, t5_layers=2, t5_hidden=512, t5_mlp=1024),
    # Real text encoders and autoencoder around a backbone of no weight: for comparing those stages on a CPU.
    "encoders": FluxSizes(hidden=512, double_blocks=1, single_blocks=1),
}


def flux_shapes(sizes: FluxSizes) -> Shapes:
    d = sizes.hidden
    matrices = {
        "img_in": (d, IN_CHANNELS),
        "txt_in": (d, sizes.t5_hidden),
        "vector_in.in_layer": (d, CLIP_HIDDEN),
        "in_layer": (d, 256),
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
        "final_layer.linear": (IN_CHANNELS, d),
    }
    names = flux_names(sizes.double_blocks, sizes.single_blocks, sizes.guidance)
    return {name: (HEAD_DIM,) if name.endswith(".scale") else _leaf(name, matrices) for name in names}


def clip_shapes() -> Shapes:
    """CLIP-L, which is Stable Diffusion's too."""
    d = CLIP_HIDDEN
    matrices = {
        "token_embedding": (CLIP_VOCABULARY, d),
        "position_embedding": (CLIP_TOKENS, d),
        "_proj": (d, d),
        "mlp.fc1": (CLIP_MLP, d),
        "mlp.fc2": (d, CLIP_MLP),
    }
    return {name: (d,) if "norm" in name else _leaf(name, matrices) for name in clip_names(CLIP_LAYERS)}


def t5_shapes(sizes: FluxSizes) -> Shapes:
    d, mlp = sizes.t5_hidden, sizes.t5_mlp
    matrices = {
        "shared": (T5_VOCABULARY, d),
        "relative_attention_bias": (T5_BUCKETS, d // T5_HEAD_DIM),
        "wi_0": (mlp, d),
        "wi_1": (mlp, d),
        "wo": (d, mlp),
    } | {f"SelfAttention.{part}": (d, d) for part in "qkvo"}
    return {name: (d,) if "norm" in name else _leaf(name, matrices) for name in t5_names(sizes.t5_layers)}


def vae_shapes(channels: tuple[int, ...], latent_channels: int = LATENT_CHANNELS) -> Shapes:
    """Channels are given from the highest resolution down; a shortcut stands where a block changes them."""
    shapes: Shapes = {}
    for name in vae_names(len(channels)):
        path, _, leaf = name.rpartition(".")
        rows, columns = _vae_channels(path.split("."), channels, latent_channels)
        kernel = 1 if ".attn_1." in path else 3
        if "norm" in path.rpartition(".")[2]:
            shapes[name] = (columns if path.endswith("norm1") else rows,)
        else:
            shapes[name] = (rows, columns, kernel, kernel) if leaf == "weight" else (rows,)
        if name.endswith("conv1.bias") and rows != columns:
            shortcut = path.removesuffix("conv1") + "nin_shortcut"
            shapes |= {f"{shortcut}.weight": (rows, columns, 1, 1), f"{shortcut}.bias": (rows,)}
    return shapes


def _vae_channels(path: list[str], channels: tuple[int, ...], latent_channels: int) -> tuple[int, int]:
    """Output and input channels of one layer."""
    side, part, top = path[0], path[1], channels[-1]
    if part == "conv_in":
        return (top, latent_channels) if side == "decoder" else (channels[0], 3)
    if part == "conv_out":
        return (3, channels[0]) if side == "decoder" else (2 * latent_channels, top)
    if part == "norm_out":
        return (channels[0] if side == "decoder" else top,) * 2
    if part == "mid":
        return top, top
    level = int(path[2])
    rows = channels[level]
    before = channels[min(level + 1, len(channels) - 1)] if part == "up" else channels[max(level - 1, 0)]
    first = path[3:5] == ["block", "0"] and path[5] in ("norm1", "conv1")
    return rows, before if first else rows


def _leaf(name: str, matrices: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    path, _, leaf = name.rpartition(".")
    shape = next(shape for ending, shape in matrices.items() if path.endswith(ending))
    return shape if leaf == "weight" else shape[:1]
