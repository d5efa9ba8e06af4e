"""The sizes of a network read from its tensors (our names), and which tensors a whole one of that size would have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from relight.weights import names, names_small, names_unet
from relight.weights.families import Shapes
from relight.weights.renames import highest


def sizes(kind: str, shapes: Shapes) -> dict[str, int]:
    """Named sizes, such as hidden_size and num_heads; one that no tensor tells is left out."""
    return {name: size for name, size in SIZES[kind](shapes).items() if size}


def missing(kind: str, shapes: Shapes) -> list[str]:
    """Names that a whole network of this depth has and `shapes` has not, in the network's order."""
    return [name for name in EXPECTED[kind](shapes) if name not in shapes]


def _axis(shapes: Shapes, name: str, axis: int) -> int:
    shape = shapes.get(name, ())
    return shape[axis] if axis < len(shape) else 0


def _flux_sizes(shapes: Shapes) -> dict[str, int]:
    hidden = _axis(shapes, "img_in.weight", 0)
    head = max(_axis(shapes, f"double_blocks.0.img_attn.norm.{norm}_norm.scale", 0) for norm in ("query", "key"))
    return {
        "hidden_size": hidden,
        "num_heads": hidden // head if head else 0,
        "double_blocks": 1 + highest(r"double_blocks\.(\d+)\.", shapes),
        "single_blocks": 1 + highest(r"single_blocks\.(\d+)\.", shapes),
        "in_channels": _axis(shapes, "img_in.weight", 1),
        "out_channels": _axis(shapes, "final_layer.linear.weight", 0),
        "text_dim": _axis(shapes, "txt_in.weight", 1),
        "pooled_dim": _axis(shapes, "vector_in.in_layer.weight", 1),
    }


def _clip_sizes(shapes: Shapes) -> dict[str, int]:
    hidden = _axis(shapes, "text_model.embeddings.token_embedding.weight", 1)
    return {
        "hidden_size": hidden,
        "num_heads": hidden // 64,
        "layers": 1 + highest(r"text_model\.encoder\.layers\.(\d+)\.", shapes),
        "mlp_size": _axis(shapes, "text_model.encoder.layers.0.mlp.fc1.weight", 0),
        "vocabulary": _axis(shapes, "text_model.embeddings.token_embedding.weight", 0),
        "max_tokens": _axis(shapes, "text_model.embeddings.position_embedding.weight", 0),
    }


def _t5_sizes(shapes: Shapes) -> dict[str, int]:
    attention = "encoder.block.0.layer.0.SelfAttention"
    return {
        "hidden_size": _axis(shapes, "shared.weight", 1),
        "num_heads": _axis(shapes, f"{attention}.relative_attention_bias.weight", 1),
        "layers": 1 + highest(r"encoder\.block\.(\d+)\.", shapes),
        "mlp_size": _axis(shapes, "encoder.block.0.layer.1.DenseReluDense.wi_0.weight", 0),
        "vocabulary": _axis(shapes, "shared.weight", 0),
    }


def _vae_sizes(shapes: Shapes) -> dict[str, int]:
    return {
        "latent_channels": _axis(shapes, "decoder.conv_in.weight", 1),
        "levels": _levels(shapes),
        "blocks": _blocks(shapes),
        "base_channels": _axis(shapes, "decoder.conv_out.weight", 1),
        "top_channels": _axis(shapes, "decoder.conv_in.weight", 0),
    }


def _levels(shapes: Shapes) -> int:
    return 1 + highest(r"decoder\.up\.(\d)\.", shapes)


def _blocks(shapes: Shapes) -> int:
    """Residual blocks a level of the encoder; the decoder has one more."""
    return max(1, highest(r"decoder\.up\.\d\.block\.(\d)\.", shapes))


def _unet_sizes(shapes: Shapes) -> dict[str, int]:
    contexts = (_axis(shapes, name, 1) for name in shapes if name.endswith("attn2.to_k.weight"))
    return {
        "model_channels": _axis(shapes, "input_blocks.0.0.weight", 0),
        "in_channels": _axis(shapes, "input_blocks.0.0.weight", 1),
        "out_channels": _axis(shapes, "out.2.weight", 0),
        "context_dim": next(contexts, 0),
        "label_dim": _axis(shapes, "label_emb.0.0.weight", 1),
        "levels": len(names_unet.layout_of(shapes).inward),
        "blocks": 1 + highest(r"input_blocks\.(\d+)\.", shapes),
        "hint_channels": _axis(shapes, "input_hint_block.0.weight", 1),
    }


def _taesd_sizes(shapes: Shapes) -> dict[str, int]:
    decoder = _axis(shapes, "decoder.layers.0.weight", 1)
    return {
        "latent_channels": decoder or _axis(shapes, "encoder.layers.14.weight", 0),
        "channels": _axis(shapes, "decoder.layers.0.weight", 0) or _axis(shapes, "encoder.layers.0.weight", 0),
    }


def _upscaler_sizes(shapes: Shapes) -> dict[str, int]:
    if "body.1.weight" in shapes:
        last = highest(r"body\.(\d+)\.", shapes)
        scale = round((_axis(shapes, f"body.{last}.weight", 0) / 3) ** 0.5)
        return {"channels": _axis(shapes, "body.0.weight", 0), "layers": last + 1, "scale": scale}
    inputs = _axis(shapes, "conv_first.weight", 1)
    shrink = round((inputs / 3) ** 0.5)  # pixels of a square that become channels before the first layer
    steps = highest(r"conv_up(\d)\.", shapes)
    return {
        "channels": _axis(shapes, "conv_first.weight", 0),
        "in_channels": inputs,
        "blocks": 1 + highest(r"body\.(\d+)\.", shapes),
        "scale": 2 ** max(steps, 0) // max(shrink, 1),
    }


def _lora_sizes(shapes: Shapes) -> dict[str, int]:
    downs = [shape for name, shape in shapes.items() if re.search(r"lora[_.](down|A)\b", name) and len(shape) > 1]
    return {"modules": len(downs), "rank": max((shape[0] for shape in downs), default=0)}


def _embedding_sizes(shapes: Shapes) -> dict[str, int]:
    rows = [shape[0] if len(shape) == 2 else 1 for shape in shapes.values()]
    return {"vectors": max(rows, default=0), "width": sum(shape[-1] for shape in shapes.values() if shape)}


def _expected_clip(shapes: Shapes, projection: bool = False) -> Iterator[str]:
    return names.clip_names(_clip_sizes(shapes)["layers"], projection)


def _expected_unet(shapes: Shapes) -> Iterator[str]:
    return _with_shortcuts(shapes, names_unet.unet_names(names_unet.layout_of(shapes)))


def _expected_controlnet(shapes: Shapes) -> Iterator[str]:
    return _with_shortcuts(shapes, names_unet.controlnet_names(names_unet.layout_of(shapes)))


def _with_shortcuts(shapes: Shapes, expected: Iterator[str]) -> Iterator[str]:
    """Blocks inward have one where their channels change; blocks outward always, and list it themselves."""
    for name in expected:
        yield name
        inward = name.endswith(".in_layers.2.bias") and name.startswith("input_blocks.")
        if inward and len(set(shapes.get(name.removesuffix("bias") + "weight", ())[:2])) == 2:
            yield from (name.replace("in_layers.2.bias", f"skip_connection.{leaf}") for leaf in ("weight", "bias"))


def _expected_taesd(shapes: Shapes) -> Iterator[str]:
    sides = [side for side in ("decoder", "encoder") if any(name.startswith(f"{side}.") for name in shapes)]
    return names_small.taesd_names(sides)


def _expected_upscaler(shapes: Shapes) -> Iterator[str]:
    if "body.1.weight" in shapes:
        return names_small.compact_names(shapes)
    blocks, steps = 1 + highest(r"body\.(\d+)\.", shapes), highest(r"conv_up(\d)\.", shapes)
    return names_small.rrdb_names(blocks, max(steps, 0))


def _expected_flux(shapes: Shapes) -> Iterator[str]:
    found = _flux_sizes(shapes)
    guidance = any(name.startswith("guidance_in.") for name in shapes)
    return names.flux_names(found["double_blocks"], found["single_blocks"], guidance)


def _expected_vae(shapes: Shapes) -> Iterator[str]:
    """The decoder always; the encoder where the file has any of it (decoder-only files are published)."""
    sides = ["decoder", *(["encoder"] if any(name.startswith("encoder.") for name in shapes) else [])]
    for name in names.vae_names(_levels(shapes), sides, _blocks(shapes)):
        yield name
        changes = name.endswith(".conv1.weight") and len(set(shapes.get(name, ())[:2])) == 2
        if changes:
            shortcut = name.removesuffix("conv1.weight") + "nin_shortcut"
            yield from (f"{shortcut}.weight", f"{shortcut}.bias")


SIZES: dict[str, Callable[[Shapes], dict[str, int]]] = {
    "diffusion": _flux_sizes,
    "clip_l": _clip_sizes,
    "clip_g": _clip_sizes,
    "clip_h": _clip_sizes,
    "t5xxl": _t5_sizes,
    "vae": _vae_sizes,
    "unet": _unet_sizes,
    "controlnet": _unet_sizes,
    "taesd": _taesd_sizes,
    "upscaler": _upscaler_sizes,
    "lora": _lora_sizes,
    "embedding": _embedding_sizes,
}
EXPECTED: dict[str, Callable[[Shapes], Iterator[str]]] = {
    "diffusion": _expected_flux,
    "clip_l": _expected_clip,
    "clip_g": lambda shapes: _expected_clip(shapes, projection=True),
    "clip_h": _expected_clip,
    "t5xxl": lambda shapes: names.t5_names(_t5_sizes(shapes)["layers"]),
    "vae": _expected_vae,
    "unet": _expected_unet,
    "controlnet": _expected_controlnet,
    "taesd": _expected_taesd,
    "upscaler": _expected_upscaler,
    "lora": lambda shapes: iter(()),
    "embedding": lambda shapes: iter(()),
}
