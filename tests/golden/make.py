"""Make the golden files with the published implementations: `python tests/golden/make.py`.

Needs torch, diffusers and transformers, which nothing else here does. Made with torch 2.13, diffusers 0.42 and
transformers 5. Only inputs and outputs are stored; weights come from `weights.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, FluxTransformer2DModel, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

import weights as g

HERE = Path(__file__).parent


def main() -> None:
    torch.set_grad_enabled(False)
    save("clip", **clip())
    save("t5", **t5())
    save("flux_schnell", **flux(guidance=False))
    save("flux_dev", **flux(guidance=True))
    save("vae_16", **vae(16, quant_convs=False))
    save("vae_4", **vae(4, quant_convs=True))
    for kind in g.UNETS:
        save(f"unet_{kind}", **unet(kind))
    save("controlnet_sd1", **controlnet("sd1", 2))
    save("controlnet_sdxl", **controlnet("sdxl", 1))


def save(name: str, **arrays: np.ndarray) -> None:
    np.savez_compressed(HERE / f"{name}.npz", **arrays)
    print(name, {key: (value.shape, float(np.abs(value).max())) for key, value in arrays.items()})


def load(model: torch.nn.Module, arrays: dict[str, np.ndarray]) -> None:
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    want = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    extra = {"encoder.embed_tokens.weight", "text_model.embeddings.position_ids"}  # tied or not a weight
    assert state.keys() == want.keys() - extra, state.keys() ^ (want.keys() - extra)
    model.load_state_dict(state, strict=False)
    model.eval()


def uniform(seed: int, *shape: int) -> np.ndarray:
    return np.random.RandomState(seed).uniform(-1.7, 1.7, shape).astype(np.float32)


def clip() -> dict[str, np.ndarray]:
    """Two prompts, padded with the end-of-text token as CLIP-L is: only the first one counts."""
    end = g.CLIP_VOCABULARY - 1
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=g.CLIP_VOCABULARY,
            hidden_size=g.CLIP_HIDDEN,
            intermediate_size=g.CLIP_MLP,
            num_hidden_layers=g.CLIP_LAYERS,
            num_attention_heads=g.CLIP_HIDDEN // 64,
            hidden_act="quick_gelu",
            bos_token_id=end - 1,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
    arrays = g.random_weights(g.clip_shapes())
    if "text_model.final_layer_norm.weight" not in model.state_dict():  # transformers 5 drops the prefix
        arrays = {name.removeprefix("text_model."): array for name, array in arrays.items()}
    load(model, arrays)
    ids = np.full((2, 77), end, np.int32)
    ids[:, 0] = end - 1
    ids[0, 1:9] = np.random.RandomState(2).randint(0, end - 1, 8)
    ids[1, 1:76] = np.random.RandomState(3).randint(0, end - 1, 75)
    return {
        "ids": ids,
        "eos": np.array([9, 76], np.int32),
        "pooled": model(torch.from_numpy(ids).long()).pooler_output.numpy(),
    }


def t5() -> dict[str, np.ndarray]:
    """Longer than the 128 tokens where the last bucket of relative positions begins. Some rows of the output only."""
    model = T5EncoderModel(
        T5Config(
            vocab_size=g.T5_VOCABULARY,
            d_model=g.T5_HIDDEN,
            d_kv=64,
            num_heads=g.T5_HEADS,
            d_ff=g.T5_MLP,
            num_layers=g.T5_LAYERS,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
    )
    load(model, g.random_weights(g.t5_shapes()))
    ids = np.random.RandomState(4).randint(2, g.T5_VOCABULARY, 150).astype(np.int32)
    ids[40] = 1
    ids[41:] = np.where(np.arange(109) % 5, 0, ids[41:])  # padding, mostly
    text = model(torch.from_numpy(ids)[None].long()).last_hidden_state[0].numpy()
    rows = np.array([0, 1, 7, 39, 40, 41, 90, 148, 149])
    return {"ids": ids, "rows": rows, "text": text[rows]}


def flux(guidance: bool) -> dict[str, np.ndarray]:
    """One step at each of two timesteps, for latents of 10 x 14 (5 x 7 patches) and 11 text tokens."""
    model = FluxTransformer2DModel(
        in_channels=64,
        num_layers=g.FLUX_DOUBLE,
        num_single_layers=g.FLUX_SINGLE,
        attention_head_dim=g.FLUX_HIDDEN // g.FLUX_HEADS,
        num_attention_heads=g.FLUX_HEADS,
        joint_attention_dim=g.FLUX_TEXT,
        pooled_projection_dim=g.FLUX_POOLED,
        guidance_embeds=guidance,
        axes_dims_rope=(16, 56, 56),
    )
    load(model, diffusers_flux(g.random_weights(g.flux_shapes(guidance))))
    latents, text, pooled = uniform(5, 1, 35, 64), uniform(6, 1, 11, g.FLUX_TEXT), uniform(7, 1, g.FLUX_POOLED)
    image_ids = np.zeros((35, 3), np.float32)
    image_ids[:, 1:] = np.mgrid[:5, :7].reshape(2, -1).T
    timesteps, guidances = np.array([1.0, 0.28], np.float32), np.array([3.5, 1.5], np.float32)
    velocity = [
        model(
            hidden_states=torch.from_numpy(latents),
            encoder_hidden_states=torch.from_numpy(text),
            pooled_projections=torch.from_numpy(pooled),
            timestep=torch.tensor([float(t)]),
            guidance=torch.tensor([float(strength)]) if guidance else None,
            img_ids=torch.from_numpy(image_ids),
            txt_ids=torch.zeros(11, 3),
        ).sample.numpy()
        for t, strength in zip(timesteps, guidances, strict=True)
    ]
    inputs = {"latents": latents, "text": text, "pooled": pooled, "timesteps": timesteps}
    return inputs | ({"guidance": guidances} if guidance else {}) | {"velocity": np.concatenate(velocity)}


def diffusers_flux(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Black-forest-labs' names to diffusers': fused matrices come apart, and the last shift and scale change places."""
    out: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if name.startswith("double_blocks."):
            _, i, rest = name.split(".", 2)
            out |= {f"transformer_blocks.{i}.{n}": a for n, a in double_block_names(rest, array).items()}
        elif name.startswith("single_blocks."):
            _, i, rest = name.split(".", 2)
            out |= {f"single_transformer_blocks.{i}.{n}": a for n, a in single_block_names(rest, array).items()}
        elif name.startswith("final_layer.adaLN"):
            shift, scale = np.split(array, 2)
            out["norm_out.linear." + name.rsplit(".", 1)[1]] = np.concatenate([scale, shift])
        else:
            out[TOP_LEVEL[name.rsplit(".", 1)[0]] + "." + name.rsplit(".", 1)[1]] = array
    return out


TOP_LEVEL = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "final_layer.linear": "proj_out",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
}
DOUBLE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
}
FUSED = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
SINGLE = {
    "modulation.lin": "norm.linear",
    "linear2": "proj_out",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
}


def double_block_names(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    layer, kind = name.rsplit(".", 1)
    if layer in FUSED:
        return {f"{part}.{kind}": rows for part, rows in zip(FUSED[layer], np.split(array, 3), strict=True)}
    return {f"{DOUBLE[layer]}.{'weight' if kind == 'scale' else kind}": array}


def single_block_names(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    layer, kind = name.rsplit(".", 1)
    if layer == "linear1":
        parts = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
        cuts = np.array([1, 2, 3]) * g.FLUX_HIDDEN
        return {f"{part}.{kind}": rows for part, rows in zip(parts, np.split(array, cuts), strict=True)}
    return {f"{SINGLE[layer]}.{'weight' if kind == 'scale' else kind}": array}


def vae(latent_channels: int, quant_convs: bool) -> dict[str, np.ndarray]:
    """Decoder on latents of 5 x 6, encoder on a picture of 48 x 40 pixels."""
    model = AutoencoderKL(
        block_out_channels=g.VAE_CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=latent_channels,
        use_quant_conv=quant_convs,
        use_post_quant_conv=quant_convs,
    )
    load(model, diffusers_vae(g.random_weights(g.vae_shapes(latent_channels, quant_convs))))
    latents, image = uniform(8, 2, latent_channels, 5, 6), uniform(9, 1, 3, 48, 40)
    decoded = model.decode(torch.from_numpy(latents)).sample.numpy()
    moments = model.encode(torch.from_numpy(image)).latent_dist.parameters.numpy()
    return {"latents": latents, "decoded": decoded, "image": image, "moments": moments}


def diffusers_vae(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Latent-diffusion's names to diffusers', which counts the decoder's levels from the other end and has matrices
    for the attention's 1x1 kernels."""
    out = {}
    for name, array in arrays.items():
        for ours, theirs in VAE_PARTS:
            name = name.replace(ours, theirs)
        if ".up." in name:
            side, _, level, rest = name.split(".", 3)
            name = f"{side}.up_blocks.{3 - int(level)}.{rest}"
        if ".attentions." in name and array.ndim == 4:
            array = array[:, :, 0, 0]
        out[name] = array
    return out


VAE_PARTS = (
    (".mid.block_1.", ".mid_block.resnets.0."),
    (".mid.block_2.", ".mid_block.resnets.1."),
    (".mid.attn_1.norm.", ".mid_block.attentions.0.group_norm."),
    (".mid.attn_1.q.", ".mid_block.attentions.0.to_q."),
    (".mid.attn_1.k.", ".mid_block.attentions.0.to_k."),
    (".mid.attn_1.v.", ".mid_block.attentions.0.to_v."),
    (".mid.attn_1.proj_out.", ".mid_block.attentions.0.to_out.0."),
    (".norm_out.", ".conv_norm_out."),
    (".nin_shortcut.", ".conv_shortcut."),
    (".upsample.conv.", ".upsamplers.0.conv."),
    (".downsample.conv.", ".downsamplers.0.conv."),
    (".block.", ".resnets."),
    (".down.", ".down_blocks."),
)


def unet(kind: str) -> dict[str, np.ndarray]:
    """Two latents of their own timestep and text, of a height and width that the levels halve to odd numbers."""
    spec = g.UNETS[kind]
    inputs = {
        "latents": uniform(10, 2, spec.in_channels, 10, 7),
        "timesteps": np.array([731.0, 12.25], np.float32),
        "context": uniform(11, 2, 5, spec.context),
    } | label_inputs(spec, 2)
    return inputs | {"noise": published_unet(kind)(**called_with(inputs)).sample.numpy()}


def controlnet(kind: str, batch: int) -> dict[str, np.ndarray]:
    """A ControlNet's residuals, and what the UNet of the same kind makes of them."""
    spec = g.UNETS[kind]
    model = ControlNetModel(conditioning_embedding_out_channels=(16, 32, 96, 256), **unet_settings(spec))
    load_compvis(model, spec, g.random_weights(g.controlnet_shapes(spec), seed=2))
    inputs = {
        "latents": uniform(12, batch, 4, 6, 10),
        "timesteps": np.array([731.0, 12.25], np.float32)[:batch],
        "context": uniform(13, batch, 5, spec.context),
    } | label_inputs(spec, batch)
    hint = (uniform(14, 1, 3, 48, 80) > 0).astype(np.float32)
    called = called_with(inputs)
    skips, middle = model(
        **called,
        controlnet_cond=torch.from_numpy(hint).repeat(batch, 1, 1, 1),
        conditioning_scale=0.7,
        return_dict=False,
    )
    noise = published_unet(kind)(
        **called, down_block_additional_residuals=skips, mid_block_additional_residual=middle
    ).sample.numpy()
    controls = {f"control_{i}": skip.numpy() for i, skip in enumerate(skips)} | {"control_middle": middle.numpy()}
    strength = np.array([0.7], np.float32)
    return inputs | {"hint": hint, "strength": strength} | controls | {"noise": noise}


def label_inputs(spec: g.UnetSpec, batch: int) -> dict[str, np.ndarray]:
    """SDXL's: pooled text, and original size, crop and target size, height first."""
    if not spec.label:
        return {}
    sizes = np.array([[1024, 768, 0, 16, 512, 640]], np.float32).repeat(batch, 0)
    return {"pooled": uniform(15, batch, g.UNET_POOLED), "sizes": sizes}


def called_with(inputs: dict[str, np.ndarray]) -> dict[str, object]:
    called: dict[str, object] = {
        theirs: torch.from_numpy(inputs[ours])
        for ours, theirs in (("latents", "sample"), ("timesteps", "timestep"), ("context", "encoder_hidden_states"))
    }
    if "pooled" in inputs:
        pooled, sizes = torch.from_numpy(inputs["pooled"]), torch.from_numpy(inputs["sizes"])
        called["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes}
    return called


def published_unet(kind: str) -> UNet2DConditionModel:
    spec = g.UNETS[kind]
    up_blocks = tuple("CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(spec.depths))
    model = UNet2DConditionModel(up_block_types=up_blocks, **unet_settings(spec))
    load_compvis(model, spec, g.unet_weights(kind))
    return model


def unet_settings(spec: g.UnetSpec) -> dict[str, object]:
    """`attention_head_dim` is diffusers' name for the number of heads."""
    linear = spec.linear_projection
    settings: dict[str, object] = {
        "in_channels": spec.in_channels,
        "block_out_channels": spec.channels,
        "down_block_types": tuple("CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in spec.depths),
        "layers_per_block": spec.res_blocks,
        "transformer_layers_per_block": tuple(depth or spec.middle_depth for depth in spec.depths),
        "cross_attention_dim": spec.context,
        "attention_head_dim": tuple(channels // 64 for channels in spec.channels) if linear else 8,
        "use_linear_projection": linear,
    }
    if spec.label:
        settings |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": spec.label,
        }
    return settings


def load_compvis(model: torch.nn.Module, spec: g.UnetSpec, arrays: dict[str, np.ndarray]) -> None:
    ours = {theirs: compvis_name(theirs, spec) for theirs in model.state_dict()}
    assert set(ours.values()) == arrays.keys(), set(ours.values()) ^ arrays.keys()
    load(model, {theirs: arrays[name] for theirs, name in ours.items()})


def compvis_name(name: str, spec: g.UnetSpec) -> str:
    """Diffusers' names to CompVis', which numbers the blocks through and the layers within a block."""
    block, rest = compvis_block(name, spec)
    for theirs, ours in UNET_PARTS:
        rest = re.sub(rf"^{theirs}\.", f"{ours}.", rest)
    return f"{block}.{rest}".removeprefix(".")


def compvis_block(name: str, spec: g.UnetSpec) -> tuple[str, str]:
    if match := re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.+)", name):
        side, level, layer, number, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        first = level * (spec.res_blocks + 1) + (side == "down")
        if layer == "downsamplers":
            return f"input_blocks.{first + spec.res_blocks}.0", rest.replace("conv", "op")
        if layer == "upsamplers":
            attends = spec.depths[-1 - level] > 0
            return f"output_blocks.{first + spec.res_blocks}.{1 + attends}", rest
        return f"{'input' if side == 'down' else 'output'}_blocks.{first + number}.{int(layer == 'attentions')}", rest
    if match := re.fullmatch(r"mid_block\.(\w+)\.(\d)\.(.+)", name):
        return f"middle_block.{2 * int(match[2]) if match[1] == 'resnets' else 1}", match[3]
    if match := re.fullmatch(r"controlnet_cond_embedding\.blocks\.(\d)\.(.+)", name):
        return f"input_hint_block.{2 * int(match[1]) + 2}", match[2]
    return "", re.sub(r"^controlnet_down_blocks\.(\d+)", r"zero_convs.\1.0", name)


UNET_PARTS = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("controlnet_cond_embedding.conv_in", "input_hint_block.0"),
    ("controlnet_cond_embedding.conv_out", f"input_hint_block.{2 * len(g.HINT_CHANNELS)}"),
    ("controlnet_mid_block", "middle_block_out.0"),
)

if __name__ == "__main__":
    main()
