"""Make the golden files with the published implementations: `python tests/golden/make.py`.

Needs torch, diffusers and transformers, which nothing else here does. Made with torch 2.13, diffusers 0.42 and
transformers 5. Only inputs and outputs are stored; weights come from `weights.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
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

if __name__ == "__main__":
    main()
