"""The sizes of a network read from its tensors (our names), and which tensors a whole one of that size would have."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from relight.weights import names
from relight.weights.recognise import Shapes


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
        "double_blocks": 1 + names.highest(r"double_blocks\.(\d+)\.", shapes),
        "single_blocks": 1 + names.highest(r"single_blocks\.(\d+)\.", shapes),
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
        "layers": 1 + names.highest(r"text_model\.encoder\.layers\.(\d+)\.", shapes),
        "mlp_size": _axis(shapes, "text_model.encoder.layers.0.mlp.fc1.weight", 0),
        "vocabulary": _axis(shapes, "text_model.embeddings.token_embedding.weight", 0),
        "max_tokens": _axis(shapes, "text_model.embeddings.position_embedding.weight", 0),
    }


def _t5_sizes(shapes: Shapes) -> dict[str, int]:
    attention = "encoder.block.0.layer.0.SelfAttention"
    return {
        "hidden_size": _axis(shapes, "shared.weight", 1),
        "num_heads": _axis(shapes, f"{attention}.relative_attention_bias.weight", 1),
        "layers": 1 + names.highest(r"encoder\.block\.(\d+)\.", shapes),
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
    return 1 + names.highest(r"decoder\.up\.(\d)\.", shapes)


def _blocks(shapes: Shapes) -> int:
    """Residual blocks a level of the encoder; the decoder has one more."""
    return max(1, names.highest(r"decoder\.up\.\d\.block\.(\d)\.", shapes))


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
    "t5xxl": _t5_sizes,
    "vae": _vae_sizes,
}
EXPECTED: dict[str, Callable[[Shapes], Iterator[str]]] = {
    "diffusion": _expected_flux,
    "clip_l": lambda shapes: names.clip_names(_clip_sizes(shapes)["layers"]),
    "t5xxl": lambda shapes: names.t5_names(_t5_sizes(shapes)["layers"]),
    "vae": _expected_vae,
}
