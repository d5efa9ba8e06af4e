"""Which networks a file holds, told by its tensors' names and shapes alone: kind, family, naming, prefix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from relight.weights import families, names, names_unet
from relight.weights.families import Shapes, Tell

KINDS = (
    "clip_l",
    "clip_g",
    "clip_h",
    "t5xxl",
    "diffusion",
    "unet",
    "vae",
    "controlnet",
    "taesd",
    "upscaler",
    "lora",
    "embedding",
)
WANTED = {
    "clip_l": "a CLIP-L text encoder",
    "clip_g": "a CLIP-G text encoder",
    "clip_h": "a CLIP-H text encoder",
    "t5xxl": "a T5 v1.1 encoder",
    "diffusion": "a FLUX.1 transformer",
    "unet": "a Stable Diffusion UNet",
    "vae": "an AutoencoderKL",
    "controlnet": "a Stable Diffusion ControlNet",
    "taesd": "a TAESD tiny autoencoder",
    "upscaler": "an ESRGAN upscaler",
    "lora": "a LoRA",
    "embedding": "a textual inversion embedding",
}
FAMILIES = {
    "flux": ("clip_l", "t5xxl", "diffusion", "vae"),
    "sd1": ("clip_l", "unet", "vae"),
    "sd2": ("clip_h", "unet", "vae"),
    "sdxl": ("clip_l", "clip_g", "unet", "vae"),
}
"""Of each family of models, the kinds that make a picture together."""

FLAGS = {"unet": "--diffusion", "embedding": "--embedding-dir"}


def flag(kind: str) -> str:
    """The command line's option for a file of this kind."""
    return FLAGS.get(kind, "--" + kind.replace("_", "-"))


@dataclass(frozen=True)
class Found:
    """One network in a file. `kind` is one of KINDS where relight runs it, else what the network is for.

    `model` is the one of FAMILIES it belongs to, or "" where its shapes do not tell.
    """

    kind: str
    family: str
    names_as: str
    prefix: str
    model: str = ""

    @property
    def usable(self) -> bool:
        return self.kind in KINDS


class Sign(NamedTuple):
    """A tensor that only such networks have. What it says is a function of the shapes, or (kind, family) outright."""

    tensor: str
    says: Tell | tuple[str, str]
    names_as: str


SIGNS = (
    Sign("double_blocks.0.img_attn.proj.weight", families.flux, names.BFL),
    Sign("single_transformer_blocks.0.proj_mlp.weight", families.flux, names.DIFFUSERS),
    Sign("input_blocks.1.0.in_layers.0.weight", families.unet, names.COMPVIS),
    Sign("up_blocks.0.resnets.0.time_emb_proj.weight", families.unet, names.DIFFUSERS),
    Sign("controlnet_cond_embedding.conv_in.weight", families.unet, names.DIFFUSERS),
    Sign("input_blocks10in_layers0weight", families.averages, names.AVERAGES),
    Sign("embeddings.token_embedding.weight", families.clip, names.TRANSFORMERS),
    Sign("transformer.resblocks.0.attn.in_proj_weight", families.clip, names.OPENCLIP),
    Sign("encoder.block.0.layer.0.SelfAttention.q.weight", families.t5, names.TRANSFORMERS),
    Sign("enc.blk.0.attn_q.weight", families.t5, names.LLAMA_CPP),
    Sign("decoder.up.0.block.0.conv1.weight", families.vae, names.BFL),
    Sign("decoder.up_blocks.0.resnets.0.conv1.weight", families.vae, names.DIFFUSERS),
    Sign("decoder.layers.2.conv.0.weight", families.taesd, names.DIFFUSERS),
    Sign("18.conv.0.weight", families.taesd, names.TAESD_DECODER),
    Sign("1.conv.0.weight", families.taesd, names.TAESD_ENCODER),
    Sign("body.0.rdb1.conv1.weight", families.upscaler, names.BASICSR),
    Sign("body.0.weight", families.upscaler, names.BASICSR),
    Sign("RRDB_trunk.0.RDB1.conv1.weight", families.upscaler, names.ESRGAN),
    Sign("model.1.sub.0.RDB1.conv1.0.weight", families.upscaler, names.ESRGAN_OLD),
    Sign("layers.0.residual_group.blocks.0.norm1.weight", ("other upscaler", "SwinIR or HAT upscaler"), ""),
    Sign("joint_blocks.0.context_block.attn.qkv.weight", ("transformer", "Stable Diffusion 3 transformer"), ""),
    Sign("double_stream_modulation_img.lin.weight", ("transformer", "FLUX.2 transformer"), names.BFL),
    Sign("patch_embedding.weight", ("transformer", "Wan video transformer"), ""),
    Sign("transformer_blocks.0.txt_mod.1.weight", ("transformer", "Qwen-Image transformer"), names.DIFFUSERS),
    Sign("controlnet_x_embedder.weight", ("other controlnet", "FLUX ControlNet"), names.DIFFUSERS),
    Sign("vision_model.embeddings.patch_embedding.weight", ("image encoder", "CLIP vision encoder"), ""),
    Sign("blk.0.attn_q.weight", families.language_model, names.LLAMA_CPP),
    Sign("model.layers.0.self_attn.q_proj.weight", ("language model", "language model"), names.TRANSFORMERS),
)


def recognise(shapes: Shapes) -> list[Found]:
    """Every network found, in the order of SIGNS; an empty list where nothing is known."""
    for whole in (families.lora(shapes), families.embedding(shapes)):
        if whole is not None:
            return [Found(whole.kind, whole.family, "", "", whole.model)]
    found = [_read(shapes, sign, prefix) for sign in SIGNS for prefix in _prefixes(shapes, sign.tensor)]
    return list(dict.fromkeys(item for item in found if item is not None))


def _prefixes(shapes: Iterable[str], tensor: str) -> list[str]:
    """What stands before `tensor` in the names that end with it, at a dot."""
    ends, whole = "." + tensor, (tensor, names_unet.EMA + tensor)
    return [name.removesuffix(tensor) for name in shapes if name in whole or name.endswith(ends)]


def _read(shapes: Shapes, sign: Sign, prefix: str) -> Found | None:
    if isinstance(sign.says, tuple):
        kind, family = sign.says
        return Found(kind, family, sign.names_as, prefix)
    told = sign.says(shapes, sign.names_as, prefix)
    if told is None:
        return None
    # A projection stands beside the text model, so the network begins before it.
    return Found(told.kind, told.family, sign.names_as, prefix.removesuffix("text_model."), told.model)
