"""Write published_sd.json.gz: `python tests/weights/make_published.py`, with torch, diffusers and transformers.

Per network the names and shapes that diffusers and transformers give its tensors at full size, each with the name that
diffusers' own readers of single files take it from. The networks are made without memory for their weights.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    DIFFUSERS_TO_LDM_MAPPING,
    convert_controlnet_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from relight.weights.names import vae_names
from relight.weights.names_unet import SD, SDXL, controlnet_names, unet_names

SD_BLOCKS = {
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (320, 640, 1280, 1280),
}
XL_BLOCKS = {
    "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD1 = SD_BLOCKS | {"cross_attention_dim": 768, "attention_head_dim": 8}
SD2 = SD_BLOCKS | {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
UNETS = {
    "sd1_unet": (SD1, SD),
    "sd1_inpainting_unet": (SD1 | {"in_channels": 9}, SD),
    "sd2_unet": (SD2, SD),
    "sdxl_unet": (XL_BLOCKS, SDXL),
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
ENCODERS = {"clip_l": (768, 12, 12), "clip_h": (1024, 23, 16), "clip_g": (1280, 32, 20)}

Shapes = dict[str, list[int]]


def main() -> None:
    found: dict[str, dict[str, tuple[list[int], str]]] = {}
    with torch.device("meta"):
        for name, (config, layout) in UNETS.items():
            unet = UNet2DConditionModel(**config)
            known = {ours: ours for ours in unet_names(layout, shortcuts=True)}
            prefixed = {f"model.diffusion_model.{ours}": ours for ours in known}
            found[name] = pairs(unet, convert_ldm_unet_checkpoint(prefixed, unet.config))
        for name, config, layout in (("sd1_controlnet", SD1, SD), ("sdxl_controlnet", XL_BLOCKS, SDXL)):
            net = ControlNetModel(**{k: v for k, v in config.items() if k != "up_block_types"})
            known = {ours: ours for ours in (*controlnet_names(layout), *unet_names(layout, shortcuts=True))}
            known = {k: v for k, v in known.items() if not k.startswith(("out", "output_blocks"))}
            labels = DIFFUSERS_TO_LDM_MAPPING["unet"]["addition_embed_type"]
            found[name] = pairs(net, convert_controlnet_checkpoint(known, net.config) | labels)
        vae = AutoencoderKL(**VAE)
        shortcuts = [
            f"{side}.{block}.nin_shortcut.{leaf}"
            for side, block in (
                ("decoder", "up.0.block.0"),
                ("decoder", "up.1.block.0"),
                ("encoder", "down.1.block.0"),
                ("encoder", "down.2.block.0"),
            )
            for leaf in ("weight", "bias")
        ]
        quant = [f"{name}.{leaf}" for name in ("quant_conv", "post_quant_conv") for leaf in ("weight", "bias")]
        names = {name: name for name in (*vae_names(4), *shortcuts, *quant)}
        found["vae_4"] = pairs(vae, convert_vae(names, vae))
        found["taesd"] = {name: (list(tensor.shape), "") for name, tensor in AutoencoderTiny().state_dict().items()}
        for name, (width, layers, heads) in ENCODERS.items():
            found[name] = encoder(width, layers, heads, projected=name == "clip_g")
    out = Path(__file__).parent / "published_sd.json.gz"
    out.write_bytes(gzip.compress(json.dumps(found, separators=(",", ":")).encode(), mtime=0))


def pairs(module: torch.nn.Module, taken_from: dict[str, str | None]) -> dict[str, tuple[list[int], str]]:
    """Every tensor of the module with its shape and the other spelling."""
    state = module.state_dict()
    lacking = [name for name in state if taken_from.get(name) is None]
    if lacking:
        raise SystemExit(f"{type(module).__name__}: diffusers' reader found no {lacking[:5]} ({len(lacking)} in all)")
    return {name: (list(tensor.shape), str(taken_from[name])) for name, tensor in state.items()}


class Named(str):
    """A name that stands in for a tensor where diffusers' reader looks at its axes."""

    shape = (512, 512)


def convert_vae(names: dict[str, str], vae: AutoencoderKL) -> dict[str, str]:
    return convert_ldm_vae_checkpoint({key: Named(name) for key, name in names.items()}, vae.config)


def encoder(width: int, layers: int, heads: int, projected: bool) -> dict[str, tuple[list[int], str]]:
    """The other spelling of the queries, keys and values is that of the one matrix they lie in."""
    config = CLIPTextConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width,
        projection_dim=width,
    )  # fmt: skip
    model = (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)
    joined = {"positional_embedding": (77, width), "token_embedding.weight": (49408, width)}
    joined |= {f"ln_final.{leaf}": (width,) for leaf in ("weight", "bias")} | {"text_projection": (width, width)}
    for block in (f"transformer.resblocks.{i}" for i in range(layers)):
        joined |= {f"{block}.{norm}.{leaf}": (width,) for norm in ("ln_1", "ln_2") for leaf in ("weight", "bias")}
        for part, rows, columns in (
            ("attn.in_proj_", 3 * width, width),
            ("attn.out_proj.", width, width),
            ("mlp.c_fc.", 4 * width, width),
            ("mlp.c_proj.", width, 4 * width),
        ):
            joined |= {f"{block}.{part}weight": (rows, columns), f"{block}.{part}bias": (rows,)}
    tensors = {f"p.{name}": torch.empty(shape) for name, shape in joined.items()}
    read = convert_open_clip_checkpoint(model, tensors, prefix="p.")
    origin = {id(tensor): name.removeprefix("p.") for name, tensor in tensors.items()}
    out = {}
    for name, tensor in model.state_dict().items():
        long = name if name.startswith("text_") else f"text_model.{name}"
        if not projected and long not in read:
            raise SystemExit(f"{long} is not read")
        theirs = origin.get(id(read[long]), "")
        if "_proj" in long.split(".")[-2] and "self_attn" in long and "out_proj" not in long:
            number = long.split(".")[3]
            theirs = f"transformer.resblocks.{number}.attn.in_proj_{long.rpartition('.')[2]}"
        if long == "text_projection.weight":
            theirs = "text_projection"
        assert theirs, long
        out[long] = (list(tensor.shape), theirs)
    return out


if __name__ == "__main__":
    main()
