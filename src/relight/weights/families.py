"""Networks of one spelling told apart by their shapes: which kind it is, which family, which models it belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from relight.weights import names

Shapes = Mapping[str, tuple[int, ...]]


class Told(NamedTuple):
    """`model` is a family of models ("flux", "sd1", "sd2", "sdxl"), or "" where shapes cannot tell or it is none."""

    kind: str
    family: str
    model: str = ""


Tell = Callable[[Shapes, str, str], Told | None]
"""From shapes, the spelling and the prefix; None when the name alone misled."""

BY_CONTEXT = {768: ("1.x", "sd1"), 1024: ("2.x", "sd2"), 2048: ("XL", "sdxl")}
TITLES = {"sd1": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "SDXL", "flux": "FLUX.1", "": ""}
UNUSED_UNET = "other unet"


def flux(shapes: Shapes, names_as: str, prefix: str) -> Told | None:
    kind, family = "diffusion", "FLUX.1 schnell"
    bfl = names_as == names.BFL
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
    return Told(kind, family, "flux" if kind == "diffusion" else "")


def clip(shapes: Shapes, names_as: str, prefix: str) -> Told | None:
    """By width; encoders of no published width by the place they have in a checkpoint."""
    if names_as == names.OPENCLIP:
        if prefix.endswith("visual."):
            return None  # the image side of a whole CLIP
        width = _shape(shapes, prefix + "transformer.resblocks.0.attn.in_proj_weight", 2)[1]
    else:
        width = _shape(shapes, prefix + "embeddings.token_embedding.weight", 2)[1]
    known = {768: "clip_l", 1024: "clip_h", 1280: "clip_g"}
    if names_as == names.OPENCLIP and width not in known:
        kind = "clip_h" if prefix.startswith("cond_stage_model") else "clip_g"
    else:
        kind = known.get(width, "clip_g" if "embedders.1." in prefix or "clip_g" in prefix else "clip_l")
    title = {"clip_l": "CLIP-L", "clip_h": "CLIP-H", "clip_g": "CLIP-G"}[kind]
    return Told(kind, title if width in known else f"CLIP text encoder, {width} wide")


def t5(shapes: Shapes, names_as: str, prefix: str) -> Told:
    llama = names_as == names.LLAMA_CPP
    first = "enc.blk.0.attn_q.weight" if llama else "encoder.block.0.layer.0.SelfAttention.q.weight"
    gate = "enc.blk.0.ffn_gate.weight" if llama else "encoder.block.0.layer.1.DenseReluDense.wi_0.weight"
    second_bias = (
        "enc.blk.1.attn_rel_b.weight"
        if llama
        else "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"
    )
    if prefix + gate not in shapes:
        return Told("text encoder", "T5 v1.0 (no gated feed-forward)")
    if prefix + second_bias in shapes:
        return Told("text encoder", "UMT5 encoder")
    width = _shape(shapes, prefix + first, 2)[1]
    size = {4096: " XXL", 2048: " XL", 1024: " large", 768: " base", 512: " small"}.get(width, f", {width} wide")
    return Told("t5xxl", f"T5 v1.1 encoder{size}")


def vae(shapes: Shapes, names_as: str, prefix: str) -> Told | None:
    """Latents of 16 channels are FLUX's (and SD 3's, the same network); of 4 those of SD and SDXL."""
    channels = _shape(shapes, prefix + "decoder.conv_in.weight", 4)[1]
    if not channels:
        return None
    owner = {16: " (FLUX)", 4: " (SD, SDXL)", 32: " (FLUX.2)"}.get(channels, "")
    return Told("vae", f"AutoencoderKL {channels} channels{owner}", "flux" if channels == 16 else "")


def unet(shapes: Shapes, names_as: str, prefix: str) -> Told | None:
    """UNet or ControlNet, by the width of the text it attends to and the channels it takes."""
    inner = _compvis(shapes, names_as, prefix)
    labels = _shape(inner, "label_emb.0.0.weight", 2)[1]
    context = next((shape[1] for name, shape in inner.items() if name.endswith("attn2.to_k.weight") and shape[1:]), 0)
    matrices = any(name.endswith(".1.proj_in.weight") and len(shape) == 2 for name, shape in inner.items())
    unknown = ("2.x", "sd2") if matrices else ("1.x", "sd1")  # of no published width: SD 1.x has convolutions there
    version, model = ("XL", "sdxl") if labels else BY_CONTEXT.get(context, unknown)
    title = "SDXL" if model == "sdxl" else f"Stable Diffusion {version}"
    if "input_hint_block.0.weight" in inner or "zero_convs.0.0.weight" in inner:
        return _controlnet(shapes, prefix, title, model)
    channels = _shape(inner, "input_blocks.0.0.weight", 4)[1]
    if labels == 2560 or (labels and context == 1280):
        return Told(UNUSED_UNET, "SDXL refiner UNet")
    if any(name.endswith(("time_embedding.cond_proj.weight", "time_embed.cond_proj.weight")) for name in shapes):
        return Told(UNUSED_UNET, f"{title} UNet with a guidance input (LCM)")
    if "label_emb.weight" in inner or channels not in (0, 4, 9):
        what = {5: "depth", 7: "x4 upscaler", 8: "instruct-pix2pix"}.get(channels, "other inputs")
        return Told(UNUSED_UNET, f"{title} UNet of {channels} input channels ({what})")
    return Told("unet", f"{title} UNet{' (inpainting)' if channels == 9 else ''}", model)


def _compvis(shapes: Shapes, names_as: str, prefix: str) -> Shapes:
    """The network's own tensors in CompVis' spelling."""
    inner = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    if names_as == names.COMPVIS:
        return inner
    rename = names.renamer("unet", names_as, inner)
    return {place.name: shape for name, shape in inner.items() for place in rename(name)}


def _controlnet(shapes: Shapes, prefix: str, title: str, model: str) -> Told:
    if any(name.startswith((prefix + "task_embedding", prefix + "control_type_embedding")) for name in shapes):
        return Told("other controlnet", f"{title} ControlNet Union")
    return Told("controlnet", f"{title} ControlNet", model)


def averages(shapes: Shapes, names_as: str, prefix: str) -> Told | None:
    """Training's running averages count only where the weights themselves were taken out."""
    beside = any(name.endswith("model.diffusion_model.input_blocks.1.0.in_layers.0.weight") for name in shapes)
    return None if beside else unet(shapes, names_as, prefix)


def taesd(shapes: Shapes, names_as: str, prefix: str) -> Told | None:
    if names_as != names.DIFFUSERS and prefix.endswith("layers."):
        return None  # another publisher's numbers
    last = {names.TAESD_DECODER: "1.weight", names.TAESD_ENCODER: "14.weight"}.get(names_as)
    latent = _shape(shapes, prefix + (last or "decoder.layers.0.weight"), 4)
    channels = latent[0] if names_as == names.TAESD_ENCODER else latent[1]
    if not channels:
        return None
    owner = {16: " (FLUX)", 4: " (SD, SDXL)"}.get(channels, "")
    return Told("taesd", f"TAESD {channels} channels{owner}", "flux" if channels == 16 else "")


def upscaler(shapes: Shapes, names_as: str, prefix: str) -> Told | None:
    if prefix + "body.0.weight" in shapes and len(shapes.get(prefix + "body.1.weight", ())) != 1:
        return None
    compact = prefix + "body.0.weight" in shapes
    return Told("upscaler", "Real-ESRGAN compact upscaler" if compact else "ESRGAN upscaler")


def language_model(shapes: Shapes, names_as: str, prefix: str) -> Told | None:
    """`enc.blk.0` of T5 ends like a language model's `blk.0`."""
    return None if prefix else Told("language model", "language model")


CROSS_KEYS = re.compile(r"attn2[._](processor\.)?to_[kv][._]")
INWARD = re.compile(r"down|lora_A|hada_w1_b")
LORA_ENDINGS = re.compile(
    r".*\.(lora_(A|B|down|up)(\.\w+)?(\.weight)?|lora\.(down|up)\.weight|\w+_lora\.(down|up)\.weight"
    r"|hada_w[12]_[ab]|lokr_w[12](_[ab])?)"
)


def lora(shapes: Shapes) -> Told | None:
    """Additions to the weights of another network; which, the names tell, and the width of the text it attends to."""
    if not any(LORA_ENDINGS.fullmatch(name) for name in shapes):
        return None
    model = _lora_model(shapes)
    return Told("lora", f"LoRA for {TITLES[model]}" if model else "LoRA", model)


def _lora_model(shapes: Shapes) -> str:
    if any(re.search(r"(double|single)_blocks|single_transformer_blocks|add_[kqv]_proj", name) for name in shapes):
        return "flux"
    for name, shape in shapes.items():
        if CROSS_KEYS.search(name) and INWARD.search(name):
            if len(shape) > 1 and shape[1] in BY_CONTEXT:
                return BY_CONTEXT[shape[1]][1]
    if any(name.startswith(("lora_te2_", "lora_te1_", "text_encoder_2.")) for name in shapes):
        return "sdxl"
    if any(re.search(r"transformer_blocks[._][1-9]", name) for name in shapes):
        return "sdxl"
    if any(name.startswith(("lora_te_text_model", "lora_unet_", "unet.", "text_encoder.")) for name in shapes):
        widths = {shape[1] for name, shape in shapes.items() if "lora_te_" in name and shape[1:] and "down" in name}
        return "sd2" if 1024 in widths else "sd1"
    return ""


def embedding(shapes: Shapes) -> Told | None:
    """Textual inversion: rows as wide as a token's embedding, for one encoder or both of SDXL's."""
    wide = {name: shape[-1] for name, shape in shapes.items() if 1 <= len(shape) <= 2}
    known = {768: "sd1", 1024: "sd2", 1280: "sdxl"}
    if set(shapes) == {"clip_l", "clip_g"}:
        return Told("embedding", "textual inversion embedding for SDXL", "sdxl")
    named = "emb_params" in wide
    alone = len(shapes) == len(wide) == 1 and "." not in next(iter(shapes))
    if not named and not (alone and max(wide.values()) in known):
        return None
    model = known.get(wide["emb_params"] if named else max(wide.values()), "")
    return Told("embedding", f"textual inversion embedding for {TITLES[model] or 'another model'}", model)


def _shape(shapes: Shapes, name: str, axes: int) -> tuple[int, ...]:
    """The shape of a tensor, or zeros where it is absent or has another number of axes."""
    shape = shapes.get(name, ())
    return shape if len(shape) == axes else (0,) * axes
