"""Other people's weight names to ours: one table per publisher, and the list of names a whole network has.

Ours are black-forest-labs' for FLUX and the autoencoder, transformers' for CLIP and T5, CompVis' for UNets and
ControlNets, diffusers' for TAESD and BasicSR's for upscalers, all without prefix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from relight.weights import names_small, names_unet
from relight.weights.renames import Place, Rename, Rule, by_rules, highest, leaves, one_by_one, pattern, rules

BFL, DIFFUSERS, TRANSFORMERS, LLAMA_CPP = "black-forest-labs", "diffusers", "transformers", "llama.cpp"
COMPVIS, AVERAGES, OPENCLIP = "CompVis", "CompVis, averages", "OpenCLIP"
TAESD_DECODER, TAESD_ENCODER = "madebyollin, decoder", "madebyollin, encoder"
BASICSR, ESRGAN, ESRGAN_OLD = "BasicSR", "ESRGAN", "ESRGAN, numbered"

FLUX_DIFFUSERS = rules(
    ("x_embedder.*", r"img_in.\1"),
    ("context_embedder.*", r"txt_in.\1"),
    ("time_text_embed.timestep_embedder.linear_1.*", r"time_in.in_layer.\1"),
    ("time_text_embed.timestep_embedder.linear_2.*", r"time_in.out_layer.\1"),
    ("time_text_embed.guidance_embedder.linear_1.*", r"guidance_in.in_layer.\1"),
    ("time_text_embed.guidance_embedder.linear_2.*", r"guidance_in.out_layer.\1"),
    ("time_text_embed.text_embedder.linear_1.*", r"vector_in.in_layer.\1"),
    ("time_text_embed.text_embedder.linear_2.*", r"vector_in.out_layer.\1"),
    ("transformer_blocks.{}.norm1.linear.*", r"double_blocks.\1.img_mod.lin.\2"),
    ("transformer_blocks.{}.norm1_context.linear.*", r"double_blocks.\1.txt_mod.lin.\2"),
    ("transformer_blocks.{}.attn.norm_q.weight", r"double_blocks.\1.img_attn.norm.query_norm.scale"),
    ("transformer_blocks.{}.attn.norm_k.weight", r"double_blocks.\1.img_attn.norm.key_norm.scale"),
    ("transformer_blocks.{}.attn.norm_added_q.weight", r"double_blocks.\1.txt_attn.norm.query_norm.scale"),
    ("transformer_blocks.{}.attn.norm_added_k.weight", r"double_blocks.\1.txt_attn.norm.key_norm.scale"),
    ("transformer_blocks.{}.attn.to_q.*", r"double_blocks.\1.img_attn.qkv.\2", 0, 3),
    ("transformer_blocks.{}.attn.to_k.*", r"double_blocks.\1.img_attn.qkv.\2", 1, 3),
    ("transformer_blocks.{}.attn.to_v.*", r"double_blocks.\1.img_attn.qkv.\2", 2, 3),
    ("transformer_blocks.{}.attn.add_q_proj.*", r"double_blocks.\1.txt_attn.qkv.\2", 0, 3),
    ("transformer_blocks.{}.attn.add_k_proj.*", r"double_blocks.\1.txt_attn.qkv.\2", 1, 3),
    ("transformer_blocks.{}.attn.add_v_proj.*", r"double_blocks.\1.txt_attn.qkv.\2", 2, 3),
    ("transformer_blocks.{}.attn.to_out.0.*", r"double_blocks.\1.img_attn.proj.\2"),
    ("transformer_blocks.{}.attn.to_add_out.*", r"double_blocks.\1.txt_attn.proj.\2"),
    ("transformer_blocks.{}.ff.net.0.proj.*", r"double_blocks.\1.img_mlp.0.\2"),
    ("transformer_blocks.{}.ff.net.2.*", r"double_blocks.\1.img_mlp.2.\2"),
    ("transformer_blocks.{}.ff_context.net.0.proj.*", r"double_blocks.\1.txt_mlp.0.\2"),
    ("transformer_blocks.{}.ff_context.net.2.*", r"double_blocks.\1.txt_mlp.2.\2"),
    ("single_transformer_blocks.{}.norm.linear.*", r"single_blocks.\1.modulation.lin.\2"),
    ("single_transformer_blocks.{}.attn.norm_q.weight", r"single_blocks.\1.norm.query_norm.scale"),
    ("single_transformer_blocks.{}.attn.norm_k.weight", r"single_blocks.\1.norm.key_norm.scale"),
    ("single_transformer_blocks.{}.attn.to_q.*", r"single_blocks.\1.linear1.\2", 0, 4),
    ("single_transformer_blocks.{}.attn.to_k.*", r"single_blocks.\1.linear1.\2", 1, 4),
    ("single_transformer_blocks.{}.attn.to_v.*", r"single_blocks.\1.linear1.\2", 2, 4),
    ("single_transformer_blocks.{}.proj_mlp.*", r"single_blocks.\1.linear1.\2", 3, 4),
    ("single_transformer_blocks.{}.proj_out.*", r"single_blocks.\1.linear2.\2"),
    # diffusers stores scale then shift, black-forest-labs shift then scale.
    ("norm_out.linear.*", r"final_layer.adaLN_modulation.1.\1", 0, 1, True),
    ("proj_out.*", r"final_layer.linear.\1"),
)

T5_LLAMA_CPP = rules(
    ("token_embd.*", r"shared.\1"),
    ("enc.blk.{}.attn_q.*", r"encoder.block.\1.layer.0.SelfAttention.q.\2"),
    ("enc.blk.{}.attn_k.*", r"encoder.block.\1.layer.0.SelfAttention.k.\2"),
    ("enc.blk.{}.attn_v.*", r"encoder.block.\1.layer.0.SelfAttention.v.\2"),
    ("enc.blk.{}.attn_o.*", r"encoder.block.\1.layer.0.SelfAttention.o.\2"),
    ("enc.blk.{}.attn_rel_b.*", r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.\2"),
    ("enc.blk.{}.attn_norm.*", r"encoder.block.\1.layer.0.layer_norm.\2"),
    ("enc.blk.{}.ffn_norm.*", r"encoder.block.\1.layer.1.layer_norm.\2"),
    ("enc.blk.{}.ffn_gate.*", r"encoder.block.\1.layer.1.DenseReluDense.wi_0.\2"),
    ("enc.blk.{}.ffn_up.*", r"encoder.block.\1.layer.1.DenseReluDense.wi_1.\2"),
    ("enc.blk.{}.ffn_down.*", r"encoder.block.\1.layer.1.DenseReluDense.wo.\2"),
    ("enc.output_norm.*", r"encoder.final_layer_norm.\1"),
)

QKV = ("q_proj", "k_proj", "v_proj")
OPEN_CLIP = (
    Rule(pattern("token_embedding.*"), Place(r"text_model.embeddings.token_embedding.\1")),
    Rule(pattern("positional_embedding"), Place("text_model.embeddings.position_embedding.weight")),
    *(
        Rule(
            pattern(f"transformer.resblocks.{{}}.attn.in_proj_{leaf}"),
            Place(rf"text_model.encoder.layers.\1.self_attn.{part}.{leaf}", cut=i, cuts=3),
        )
        for leaf in ("weight", "bias")
        for i, part in enumerate(QKV)
    ),
    *rules(
        ("transformer.resblocks.{}.attn.out_proj.*", r"text_model.encoder.layers.\1.self_attn.out_proj.\2"),
        ("transformer.resblocks.{}.ln_1.*", r"text_model.encoder.layers.\1.layer_norm1.\2"),
        ("transformer.resblocks.{}.ln_2.*", r"text_model.encoder.layers.\1.layer_norm2.\2"),
        ("transformer.resblocks.{}.mlp.c_fc.*", r"text_model.encoder.layers.\1.mlp.fc1.\2"),
        ("transformer.resblocks.{}.mlp.c_proj.*", r"text_model.encoder.layers.\1.mlp.fc2.\2"),
        ("ln_final.*", r"text_model.final_layer_norm.\1"),
        ("text_projection.weight", "text_projection.weight"),
    ),
    # A bare matrix [in out] there, a linear layer's [out in] here.
    Rule(pattern("text_projection"), Place("text_projection.weight", transposed=True)),
)
"""OpenCLIP's text tower; its queries, keys and values lie in one matrix."""

VAE_DIFFUSERS = (
    (re.compile(r"(encoder|decoder)\.(conv_in|conv_out)\."), r"\1.\2."),
    (re.compile(r"(encoder|decoder)\.conv_norm_out\."), r"\1.norm_out."),
    (re.compile(r"(encoder|decoder)\.mid_block\.resnets\.0\."), r"\1.mid.block_1."),
    (re.compile(r"(encoder|decoder)\.mid_block\.resnets\.1\."), r"\1.mid.block_2."),
    (re.compile(r"(encoder|decoder)\.mid_block\.attentions\.0\.(?:group_norm|norm)\."), r"\1.mid.attn_1.norm."),
    (re.compile(r"(encoder|decoder)\.mid_block\.attentions\.0\.(?:to_q|query)\."), r"\1.mid.attn_1.q."),
    (re.compile(r"(encoder|decoder)\.mid_block\.attentions\.0\.(?:to_k|key)\."), r"\1.mid.attn_1.k."),
    (re.compile(r"(encoder|decoder)\.mid_block\.attentions\.0\.(?:to_v|value)\."), r"\1.mid.attn_1.v."),
    (re.compile(r"(encoder|decoder)\.mid_block\.attentions\.0\.(?:to_out\.0|proj_attn)\."), r"\1.mid.attn_1.proj_out."),
    (re.compile(r"(encoder)\.down_blocks\.(\d)\.resnets\.(\d)\."), r"\1.down.\2.block.\3."),
    (re.compile(r"(encoder)\.down_blocks\.(\d)\.downsamplers\.0\."), r"\1.down.\2.downsample."),
    (re.compile(r"(decoder)\.up_blocks\.(\d)\.resnets\.(\d)\."), r"\1.up.\2.block.\3."),
    (re.compile(r"(decoder)\.up_blocks\.(\d)\.upsamplers\.0\."), r"\1.up.\2.upsample."),
    (re.compile(r"((?:post_)?quant_conv)\."), r"\1."),
)

CLIP_TEXT = r"text_model\.(embeddings|encoder\.layers\.\d{1,4}|final_layer_norm)\..+"
OURS = {
    "diffusion": re.compile(
        r"(img_in|txt_in|time_in|vector_in|guidance_in|final_layer)\..+|(double_blocks|single_blocks)\.\d{1,4}\..+"
    ),
    "clip_l": re.compile(CLIP_TEXT),
    "clip_g": re.compile(CLIP_TEXT + r"|text_projection\.\w+"),
    "clip_h": re.compile(CLIP_TEXT),
    "t5xxl": re.compile(r"shared\.\w+|encoder\.(block\.\d{1,4}\..+|final_layer_norm\.\w+|embed_tokens\.\w+)"),
    "vae": re.compile(r"(encoder|decoder)\.(conv_in|conv_out|norm_out|mid|up|down)\..+|(post_)?quant_conv\.\w+"),
    "unet": names_unet.OURS,
    "controlnet": names_unet.OURS,
    "taesd": re.compile(r"(encoder|decoder)\.layers\.\d{1,2}\.(conv\.\d\.)?(weight|bias)"),
    "upscaler": names_small.UPSCALER,
    "lora": re.compile(r".+"),
    "embedding": re.compile(r".+"),
}
"""Names in our own spelling; anything else in a file belongs to another component or to nobody."""

RENAMERS: dict[tuple[str, str], Callable[[Iterable[str]], Rename]] = {
    ("diffusion", DIFFUSERS): lambda names: by_rules(FLUX_DIFFUSERS),
    ("t5xxl", LLAMA_CPP): lambda names: by_rules(T5_LLAMA_CPP),
    ("vae", DIFFUSERS): lambda names: _from_diffusers_vae(names),
    ("unet", DIFFUSERS): names_unet.from_diffusers,
    ("controlnet", DIFFUSERS): names_unet.from_diffusers,
    ("unet", AVERAGES): lambda names: names_unet.from_averages(),
    ("taesd", TAESD_DECODER): lambda names: names_small.taesd_original("decoder"),
    ("taesd", TAESD_ENCODER): lambda names: names_small.taesd_original("encoder"),
    ("upscaler", ESRGAN): lambda names: one_by_one(names_small.esrgan_older),
    ("upscaler", ESRGAN_OLD): names_small.esrgan_old,
}


def renamer(kind: str, names_as: str, names: Iterable[str]) -> Rename:
    """The function from stored names (prefix removed) to places. `names` are all that follow the prefix."""
    ours = OURS[kind]
    if make := RENAMERS.get((kind, names_as)):
        return make(names)
    if kind.startswith("clip_"):
        return _clip_renamer(by_rules(OPEN_CLIP) if names_as == OPENCLIP else _with_text_model, ours)
    return one_by_one(lambda name: name if ours.fullmatch(name) else None)


def _clip_renamer(rename: Rename, ours: re.Pattern[str]) -> Rename:
    """Every CLIP file may hold a projection; it is part of the network only where pictures are made with it."""
    return lambda name: tuple(place for place in rename(name) if ours.fullmatch(place.name))


def _with_text_model(name: str) -> tuple[Place, ...]:
    """transformers 5 writes the encoder's names without their first part."""
    bare = name.startswith(("embeddings.", "encoder.", "final_layer_norm."))
    return (Place(f"text_model.{name}" if bare else name),)


def _from_diffusers_vae(names: Iterable[str]) -> Rename:
    """diffusers counts the decoder's levels from the lowest resolution, black-forest-labs from the highest."""
    levels = 1 + highest(r"decoder\.up_blocks\.(\d)\.", names)

    def rename(name: str) -> str | None:
        for their, template in VAE_DIFFUSERS:
            if match := their.match(name):
                ours = match.expand(template) + name[match.end() :].replace("conv_shortcut", "nin_shortcut")
                return re.sub(r"^(decoder\.up\.)(\d)", lambda m: f"{m[1]}{levels - 1 - int(m[2])}", ours)
        return None

    return one_by_one(rename)


def flux_names(double_blocks: int, single_blocks: int, guidance: bool) -> Iterator[str]:
    """Every tensor of a FLUX.1 transformer: 776 for schnell and 780 for dev, at 19 and 38 blocks."""
    yield from leaves("img_in", "txt_in")
    for embedding in ["time_in", "vector_in", *(["guidance_in"] if guidance else [])]:
        yield from leaves(f"{embedding}.in_layer", f"{embedding}.out_layer")
    for block in (f"double_blocks.{i}" for i in range(double_blocks)):
        for stream in ("img", "txt"):
            yield from leaves(
                *(f"{block}.{stream}_{part}" for part in ("mod.lin", "attn.qkv", "attn.proj", "mlp.0", "mlp.2"))
            )
            yield from (f"{block}.{stream}_attn.norm.{norm}.scale" for norm in ("query_norm", "key_norm"))
    for block in (f"single_blocks.{i}" for i in range(single_blocks)):
        yield from leaves(*(f"{block}.{part}" for part in ("modulation.lin", "linear1", "linear2")))
        yield from (f"{block}.norm.{norm}.scale" for norm in ("query_norm", "key_norm"))
    yield from leaves("final_layer.adaLN_modulation.1", "final_layer.linear")


def clip_names(layers: int, projection: bool = False) -> Iterator[str]:
    """Every tensor of a CLIP text encoder: 196 at 12 layers, and one more with its projection."""
    yield from ("text_model.embeddings.token_embedding.weight", "text_model.embeddings.position_embedding.weight")
    for layer in (f"text_model.encoder.layers.{i}" for i in range(layers)):
        yield from leaves(*(f"{layer}.self_attn.{part}_proj" for part in ("q", "k", "v", "out")))
        yield from leaves(*(f"{layer}.{part}" for part in ("layer_norm1", "mlp.fc1", "mlp.fc2", "layer_norm2")))
    yield from leaves("text_model.final_layer_norm")
    if projection:
        yield "text_projection.weight"


def t5_names(layers: int) -> Iterator[str]:
    """Every tensor of a T5 v1.1 encoder: 219 at 24 layers."""
    yield "shared.weight"
    for i in range(layers):
        attention, feed_forward = f"encoder.block.{i}.layer.0", f"encoder.block.{i}.layer.1"
        yield from (f"{attention}.SelfAttention.{part}.weight" for part in "qkvo")
        if i == 0:
            yield f"{attention}.SelfAttention.relative_attention_bias.weight"
        yield f"{attention}.layer_norm.weight"
        yield from (f"{feed_forward}.DenseReluDense.{part}.weight" for part in ("wi_0", "wi_1", "wo"))
        yield f"{feed_forward}.layer_norm.weight"
    yield "encoder.final_layer_norm.weight"


def vae_names(levels: int, sides: Iterable[str] = ("decoder", "encoder"), blocks: int = 2) -> Iterator[str]:
    """Every tensor of an AutoencoderKL, but for the shortcuts, which follow from its channels, and the quant convs.

    The encoder has `blocks` residual blocks a level, the decoder one more.
    """
    for side in sides:
        steps, per_level = ("up", blocks + 1) if side == "decoder" else ("down", blocks)
        yield from leaves(f"{side}.conv_in", f"{side}.norm_out", f"{side}.conv_out")
        yield from _residual(f"{side}.mid.block_1")
        yield from _residual(f"{side}.mid.block_2")
        yield from leaves(*(f"{side}.mid.attn_1.{part}" for part in ("norm", "q", "k", "v", "proj_out")))
        for level in range(levels):
            for block in range(per_level):
                yield from _residual(f"{side}.{steps}.{level}.block.{block}")
            if level > 0 and side == "decoder":
                yield from leaves(f"{side}.up.{level}.upsample.conv")
            if level < levels - 1 and side == "encoder":
                yield from leaves(f"{side}.down.{level}.downsample.conv")


def _residual(path: str) -> Iterator[str]:
    yield from leaves(*(f"{path}.{part}" for part in ("norm1", "conv1", "norm2", "conv2")))
