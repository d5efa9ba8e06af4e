"""Names and shapes in single-file checkpoints of Stable Diffusion 1.x, 2.x and SDXL, at real widths or narrower."""

from __future__ import annotations

from dataclasses import dataclass

from flux_shapes import CLIP_HIDDEN, CLIP_TOKENS, CLIP_VOCABULARY, Shapes, clip_shapes, vae_shapes
from relight.weights import names_unet

VAE_CHANNELS = (128, 256, 512, 512)
LATENT_CHANNELS = 4
CLIP_G_HIDDEN, CLIP_G_LAYERS = 1280, 32
CLIP_H_HIDDEN, CLIP_H_LAYERS = 1024, 24
LABEL = CLIP_G_HIDDEN + 6 * 256


@dataclass(frozen=True)
class SdSizes:
    """`channels` of the UNet by level, full resolution first: multiples of the first that stable-diffusion.cpp takes
    for granted, as it does the sizes of text encoders and autoencoder. SD 1.x has 8 heads, those of others are 64 wide.
    """

    family: str
    channels: tuple[int, ...]

    @property
    def layout(self) -> names_unet.Layout:
        return names_unet.SDXL if self.family == "sdxl" else names_unet.SD

    @property
    def context(self) -> int:
        return {"sd1": CLIP_HIDDEN, "sd2": CLIP_H_HIDDEN, "sdxl": CLIP_HIDDEN + CLIP_G_HIDDEN}[self.family]


PRESETS = {
    "sd15": SdSizes("sd1", (320, 640, 1280, 1280)),
    "sd21": SdSizes("sd2", (320, 640, 1280, 1280)),
    "sdxl": SdSizes("sdxl", (320, 640, 1280)),
    "sd15-narrow": SdSizes("sd1", (64, 128, 256, 256)),
    "sd21-narrow": SdSizes("sd2", (64, 128, 256, 256)),
    "sdxl-narrow": SdSizes("sdxl", (64, 128, 256)),
}
PREFIXES = {
    "sd1": {"clip_l": "cond_stage_model.transformer."},
    "sd2": {"clip_h": "cond_stage_model.model."},
    "sdxl": {"clip_l": "conditioner.embedders.0.transformer.", "clip_g": "conditioner.embedders.1.model."},
}


def checkpoint_shapes(sizes: SdSizes) -> Shapes:
    """Every tensor of a whole model that pictures are made with."""
    parts = {
        "unet": unet_shapes(sizes),
        "vae": sd_vae_shapes(),
        "clip_l": clip_shapes(),
        "clip_h": open_clip_shapes(CLIP_H_HIDDEN, CLIP_H_LAYERS),
        "clip_g": open_clip_shapes(CLIP_G_HIDDEN, CLIP_G_LAYERS),
    }
    prefixes = {"unet": "model.diffusion_model.", "vae": "first_stage_model."} | PREFIXES[sizes.family]
    return {prefix + name: shape for part, prefix in prefixes.items() for name, shape in parts[part].items()}


def sd_vae_shapes() -> Shapes:
    shapes = vae_shapes(VAE_CHANNELS, LATENT_CHANNELS)
    for name, size in (("quant_conv", 2 * LATENT_CHANNELS), ("post_quant_conv", LATENT_CHANNELS)):
        shapes |= {f"{name}.weight": (size, size, 1, 1), f"{name}.bias": (size,)}
    return shapes


def open_clip_shapes(d: int, layers: int) -> Shapes:
    """In OpenCLIP's spelling: queries, keys and values in one matrix, and a projection without the name of a layer."""
    shapes: Shapes = {"token_embedding.weight": (CLIP_VOCABULARY, d), "positional_embedding": (CLIP_TOKENS, d)}
    for layer in (f"transformer.resblocks.{i}" for i in range(layers)):
        shapes |= {f"{layer}.attn.in_proj_weight": (3 * d, d), f"{layer}.attn.in_proj_bias": (3 * d,)}
        for path, shape in (("attn.out_proj", (d, d)), ("mlp.c_fc", (4 * d, d)), ("mlp.c_proj", (d, 4 * d))):
            shapes |= {f"{layer}.{path}.weight": shape, f"{layer}.{path}.bias": shape[:1]}
        shapes |= {f"{layer}.{norm}.{leaf}": (d,) for norm in ("ln_1", "ln_2") for leaf in ("weight", "bias")}
    return shapes | {"ln_final.weight": (d,), "ln_final.bias": (d,), "text_projection": (d, d)}


def unet_shapes(sizes: SdSizes) -> Shapes:
    blocks = block_channels(sizes)
    first, emb = sizes.channels[0], 4 * sizes.channels[0]
    ends: Shapes = {
        "time_embed.0": (emb, first),
        "time_embed.2": (emb, emb),
        "label_emb.0.0": (emb, LABEL),
        "label_emb.0.2": (emb, emb),
        "input_blocks.0.0": (first, LATENT_CHANNELS, 3, 3),
        "out.0": (first,),
        "out.2": (LATENT_CHANNELS, first, 3, 3),
    }
    shapes: Shapes = {}
    for name in names_unet.unet_names(sizes.layout, shortcuts=True):
        path, _, leaf = name.rpartition(".")
        block, part = _parted(path)
        if part == "skip_connection" and blocks[block][0] == blocks[block][1]:
            continue
        whole = ends.get(path) or _layer(sizes, part, *blocks[block])
        shapes[name] = whole if leaf == "weight" else whole[:1]
    return shapes


def block_channels(sizes: SdSizes) -> dict[str, tuple[int, int]]:
    """Channels in and out of the first layer of each block."""
    blocks: dict[str, tuple[int, int]] = {}
    size, skips = sizes.channels[0], [sizes.channels[0]]
    for level, channels in enumerate(sizes.channels):
        downsample = level < len(sizes.channels) - 1
        for rows in [channels, channels, *([channels] if downsample else [])]:
            blocks[f"input_blocks.{len(skips)}"] = (size, rows)
            skips.append(rows)
            size = rows
    blocks["middle_block"] = (size, size)
    for number, channels in enumerate(channels for channels in reversed(sizes.channels) for _ in range(3)):
        blocks[f"output_blocks.{number}"] = (size + skips.pop(), channels)
        size = channels
    return blocks


def _parted(path: str) -> tuple[str, str]:
    """Block and layer: `input_blocks.4.1.transformer_blocks.0.norm1` is layer `norm1` of `input_blocks.4`."""
    numbered = path.split(".")
    if numbered[0] == "middle_block":
        return "middle_block", _without_number(numbered[2:])
    return ".".join(numbered[:2]), _without_number(numbered[3:])


def _without_number(parts: list[str]) -> str:
    return ".".join(parts[2:] if parts[:1] == ["transformer_blocks"] else parts)


def _layer(sizes: SdSizes, part: str, columns: int, rows: int) -> tuple[int, ...]:
    """Shape of a layer's weight, in a block of `columns` channels in and `rows` out."""
    if part.startswith(("attn1.", "attn2.")):
        return rows, sizes.context if part in ("attn2.to_k", "attn2.to_v") else rows
    pointwise = (rows, rows, 1, 1) if sizes.family == "sd1" else (rows, rows)
    return {
        "in_layers.0": (columns,),
        "in_layers.2": (rows, columns, 3, 3),
        "emb_layers.1": (rows, 4 * sizes.channels[0]),
        "out_layers.0": (rows,),
        "out_layers.3": (rows, rows, 3, 3),
        "skip_connection": (rows, columns, 1, 1),
        "op": (rows, rows, 3, 3),
        "conv": (rows, rows, 3, 3),
        "proj_in": pointwise,
        "proj_out": pointwise,
        "ff.net.0.proj": (8 * rows, rows),
        "ff.net.2": (rows, 4 * rows),
    }.get(part, (rows,))
