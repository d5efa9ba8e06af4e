"""Which networks a file holds, told by its tensors' names and shapes alone: kind, family, naming, prefix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from relight.weights import names

KINDS = ("clip_l", "t5xxl", "diffusion", "vae")
WANTED = {
    "clip_l": "a CLIP-L text encoder",
    "t5xxl": "a T5 v1.1 encoder",
    "diffusion": "a FLUX.1 transformer",
    "vae": "an AutoencoderKL",
}

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Found:
    """One network in a file. `kind` is one of KINDS where relight runs it, else what the network is for."""

    kind: str
    family: str
    names_as: str
    prefix: str

    @property
    def usable(self) -> bool:
        return self.kind in KINDS


class Sign(NamedTuple):
    """A tensor that only networks of this kind have; `family` is empty where shapes have to tell it."""

    tensor: str
    kind: str
    names_as: str
    family: str = ""


SIGNS = (
    Sign("double_blocks.0.img_attn.proj.weight", "diffusion", names.BFL),
    Sign("single_transformer_blocks.0.proj_mlp.weight", "diffusion", names.DIFFUSERS),
    Sign("embeddings.token_embedding.weight", "clip_l", names.TRANSFORMERS),
    Sign("encoder.block.0.layer.0.SelfAttention.q.weight", "t5xxl", names.TRANSFORMERS),
    Sign("enc.blk.0.attn_q.weight", "t5xxl", names.LLAMA_CPP),
    Sign("decoder.up.0.block.0.conv1.weight", "vae", names.BFL),
    Sign("decoder.up_blocks.0.resnets.0.conv1.weight", "vae", names.DIFFUSERS),
    Sign("input_blocks.1.0.in_layers.0.weight", "unet", "CompVis"),
    Sign("up_blocks.0.resnets.0.time_emb_proj.weight", "unet", names.DIFFUSERS),
    Sign("transformer.resblocks.0.attn.in_proj_weight", "text encoder", "OpenCLIP", "OpenCLIP text encoder"),
    Sign("joint_blocks.0.context_block.attn.qkv.weight", "transformer", "Stability", "Stable Diffusion 3 transformer"),
    Sign("double_stream_modulation_img.lin.weight", "transformer", names.BFL, "FLUX.2 transformer"),
    Sign("patch_embedding.weight", "transformer", "Wan", "Wan video transformer"),
    Sign("transformer_blocks.0.txt_mod.1.weight", "transformer", names.DIFFUSERS, "Qwen-Image transformer"),
    Sign("controlnet_x_embedder.weight", "controlnet", names.DIFFUSERS, "FLUX ControlNet"),
    Sign("vision_model.embeddings.patch_embedding.weight", "image encoder", names.TRANSFORMERS, "CLIP vision encoder"),
    Sign("decoder.layers.1.conv.0.weight", "preview decoder", names.DIFFUSERS, "tiny autoencoder (TAESD)"),
    Sign("blk.0.attn_q.weight", "language model", names.LLAMA_CPP),
    Sign("model.layers.0.self_attn.q_proj.weight", "language model", names.TRANSFORMERS, "language model"),
)
LORA_ENDINGS = (".lora_A.weight", ".lora_B.weight", ".lora_down.weight", ".lora_up.weight")


def recognise(shapes: Shapes) -> list[Found]:
    """Every network found, in the order of SIGNS; an empty list where nothing is known."""
    if any(name.endswith(LORA_ENDINGS) for name in shapes):
        return [Found("lora", "LoRA", "", "")]
    found = [_refine(shapes, sign, prefix) for sign in SIGNS for prefix in _prefixes(shapes, sign.tensor)]
    return [item for item in found if item is not None]


def _prefixes(shapes: Iterable[str], tensor: str) -> list[str]:
    """What stands before `tensor` in the names that end with it, at a dot."""
    ends = "." + tensor
    return [name.removesuffix(tensor) for name in shapes if name == tensor or name.endswith(ends)]


def _refine(shapes: Shapes, sign: Sign, prefix: str) -> Found | None:
    """Tell families of one shape of name apart. None when the sign alone misleads."""
    tell = {"diffusion": _flux, "clip_l": _clip, "t5xxl": _t5, "vae": _vae, "unet": _unet, "language model": _llm}
    if sign.family:
        return Found(sign.kind, sign.family, sign.names_as, prefix)
    return tell[sign.kind](shapes, sign, prefix)


def _flux(shapes: Shapes, sign: Sign, prefix: str) -> Found | None:
    kind, family = "diffusion", "FLUX.1 schnell"
    bfl = sign.names_as == names.BFL
    guidance = "guidance_in.in_layer.weight" if bfl else "time_text_embed.guidance_embedder.linear_1.weight"
    inputs = _shape(shapes, prefix + ("img_in.weight" if bfl else "x_embedder.weight"), 2)
    if any(name.startswith(prefix + "distilled_guidance_layer.") for name in shapes):
        kind, family = "transformer", "Chroma transformer"
    elif bfl and prefix + "double_stream_modulation_img.lin.weight" in shapes:
        return None  # FLUX.2, which has a sign of its own
    elif bfl and prefix + "vector_in.in_layer.weight" not in shapes:
        kind, family = "transformer", "FLUX-like transformer without a pooled text input"
    elif prefix + guidance in shapes:
        family = {384: "FLUX.1 Fill", 128: "FLUX.1 Depth or Canny"}.get(inputs[1], "FLUX.1 dev")
    return Found(kind, family, sign.names_as, prefix)


def _clip(shapes: Shapes, sign: Sign, prefix: str) -> Found:
    width = _shape(shapes, prefix + sign.tensor, 2)[1]
    larger = {1280: "CLIP-G", 1024: "CLIP-H"}
    if width in larger:
        return Found("text encoder", larger[width], sign.names_as, prefix)
    return Found("clip_l", "CLIP-L" if width == 768 else f"CLIP text encoder, {width} wide", sign.names_as, prefix)


def _t5(shapes: Shapes, sign: Sign, prefix: str) -> Found:
    llama = sign.names_as == names.LLAMA_CPP
    gate = "enc.blk.0.ffn_gate.weight" if llama else "encoder.block.0.layer.1.DenseReluDense.wi_0.weight"
    second_bias = (
        "enc.blk.1.attn_rel_b.weight"
        if llama
        else "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"
    )
    if prefix + gate not in shapes:
        return Found("text encoder", "T5 v1.0 (no gated feed-forward)", sign.names_as, prefix)
    if prefix + second_bias in shapes:
        return Found("text encoder", "UMT5 encoder", sign.names_as, prefix)
    width = _shape(shapes, prefix + sign.tensor, 2)[1]
    size = {4096: " XXL", 2048: " XL", 1024: " large", 768: " base", 512: " small"}.get(width, f", {width} wide")
    return Found("t5xxl", f"T5 v1.1 encoder{size}", sign.names_as, prefix)


def _vae(shapes: Shapes, sign: Sign, prefix: str) -> Found | None:
    """Latents of 16 channels are FLUX's (and SD 3's, the same network); of 4 those of SD and SDXL."""
    shape = _shape(shapes, prefix + "decoder.conv_in.weight", 4)
    channels = shape[1]
    if not channels:
        return None
    owner = {16: " (FLUX)", 4: " (SD, SDXL)", 32: " (FLUX.2)"}.get(channels, "")
    return Found("vae", f"AutoencoderKL {channels} channels{owner}", sign.names_as, prefix)


def _unet(shapes: Shapes, sign: Sign, prefix: str) -> Found:
    compvis = sign.names_as == "CompVis"
    if prefix + ("label_emb.0.0.weight" if compvis else "add_embedding.linear_1.weight") in shapes:
        return Found("unet", "SDXL UNet", sign.names_as, prefix)
    block = "input_blocks.1.1" if compvis else "down_blocks.0.attentions.0"
    context = _shape(shapes, f"{prefix}{block}.transformer_blocks.0.attn2.to_k.weight", 2)[1]
    version = {768: "1.x", 1024: "2.x"}.get(context, "1.x")
    return Found("unet", f"Stable Diffusion {version} UNet", sign.names_as, prefix)


def _llm(shapes: Shapes, sign: Sign, prefix: str) -> Found | None:
    """`enc.blk.0` of T5 ends like a language model's `blk.0`."""
    return None if prefix else Found(sign.kind, "language model", sign.names_as, prefix)


def _shape(shapes: Shapes, name: str, axes: int) -> tuple[int, ...]:
    """The shape of a tensor, or zeros where it is absent or has another number of axes."""
    shape = shapes.get(name, ())
    return shape if len(shape) == axes else (0,) * axes
