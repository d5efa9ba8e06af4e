"""Other people's weight names to ours: one table per publisher, and the list of names a whole network has.

Ours are black-forest-labs' for FLUX and the autoencoder, and transformers' for CLIP and T5, all without prefix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

BFL, DIFFUSERS, TRANSFORMERS, LLAMA_CPP = "black-forest-labs", "diffusers", "transformers", "llama.cpp"


class Place(NamedTuple):
    """Where a stored tensor belongs: piece `part` of `parts` of our tensor `name`, perhaps with its halves swapped."""

    name: str
    part: int = 0
    parts: int = 1
    swap_halves: bool = False


class Rule(NamedTuple):
    """A stored name that matches `pattern` whole becomes `template` (groups by number)."""

    pattern: re.Pattern[str]
    template: str
    part: int = 0
    parts: int = 1
    swap_halves: bool = False


Rename = Callable[[str], Place | None]


def _rules(*rows: tuple[str, str] | tuple[str, str, int, int] | tuple[str, str, int, int, bool]) -> tuple[Rule, ...]:
    """`{}` in a pattern is a block number, `.*` at its end the leaf (weight, bias, scale of fp8 ...)."""
    rules = []
    for pattern, template, *rest in rows:
        escaped = re.escape(pattern).replace(r"\{\}", r"(\d{1,4})")
        if pattern.endswith(".*"):
            escaped = escaped.removesuffix(r"\.\*") + r"\.(\w+)"
        rules.append(Rule(re.compile(escaped), template, *rest))  # type: ignore[arg-type]
    return tuple(rules)


FLUX_DIFFUSERS = _rules(
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

T5_LLAMA_CPP = _rules(
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

OURS = {
    "diffusion": re.compile(
        r"(img_in|txt_in|time_in|vector_in|guidance_in|final_layer)\..+|(double_blocks|single_blocks)\.\d{1,4}\..+"
    ),
    "clip_l": re.compile(r"text_model\.(embeddings|encoder|final_layer_norm)\..+"),
    "t5xxl": re.compile(r"shared\.\w+|encoder\.(block\.\d{1,4}\..+|final_layer_norm\.\w+|embed_tokens\.\w+)"),
    "vae": re.compile(r"(encoder|decoder)\.(conv_in|conv_out|norm_out|mid|up|down)\..+|(post_)?quant_conv\.\w+"),
}
"""Names in our own spelling; anything else in a file belongs to another component or to nobody."""


def renamer(kind: str, names_as: str, names: Iterable[str]) -> Rename:
    """The function from stored names (prefix removed) to places; None for names that are no part of `kind`."""
    if names_as == DIFFUSERS and kind == "vae":
        return _vae_renamer(names)
    tables = {("diffusion", DIFFUSERS): FLUX_DIFFUSERS, ("t5xxl", LLAMA_CPP): T5_LLAMA_CPP}
    rules = tables.get((kind, names_as))
    if rules is not None:
        return lambda name: _by_rules(rules, name)
    ours, prefix = OURS[kind], "text_model." if kind == "clip_l" else ""
    return lambda name: Place(prefix + name) if ours.fullmatch(prefix + name) else None


def _by_rules(rules: tuple[Rule, ...], name: str) -> Place | None:
    for rule in rules:
        if match := rule.pattern.fullmatch(name):
            return Place(match.expand(rule.template), rule.part, rule.parts, rule.swap_halves)
    return None


def _vae_renamer(names: Iterable[str]) -> Rename:
    """diffusers counts the decoder's levels from the lowest resolution, black-forest-labs from the highest."""
    levels = 1 + highest(r"decoder\.up_blocks\.(\d)\.", names)

    def rename(name: str) -> Place | None:
        for pattern, template in VAE_DIFFUSERS:
            if match := pattern.match(name):
                ours = match.expand(template) + name[match.end() :].replace("conv_shortcut", "nin_shortcut")
                return Place(re.sub(r"^(decoder\.up\.)(\d)", lambda m: f"{m[1]}{levels - 1 - int(m[2])}", ours))
        return None

    return rename


def highest(pattern: str, names: Iterable[str]) -> int:
    """The largest number the pattern's group finds at the start of a name, or -1."""
    compiled = re.compile(pattern)
    return max((int(match[1]) for name in names if (match := compiled.match(name))), default=-1)


def flux_names(double_blocks: int, single_blocks: int, guidance: bool) -> Iterator[str]:
    """Every tensor of a FLUX.1 transformer: 776 for schnell and 780 for dev, at 19 and 38 blocks."""
    yield from _leaves("img_in", "txt_in")
    for embedding in ["time_in", "vector_in", *(["guidance_in"] if guidance else [])]:
        yield from _leaves(f"{embedding}.in_layer", f"{embedding}.out_layer")
    for block in (f"double_blocks.{i}" for i in range(double_blocks)):
        for stream in ("img", "txt"):
            yield from _leaves(
                *(f"{block}.{stream}_{part}" for part in ("mod.lin", "attn.qkv", "attn.proj", "mlp.0", "mlp.2"))
            )
            yield from (f"{block}.{stream}_attn.norm.{norm}.scale" for norm in ("query_norm", "key_norm"))
    for block in (f"single_blocks.{i}" for i in range(single_blocks)):
        yield from _leaves(*(f"{block}.{part}" for part in ("modulation.lin", "linear1", "linear2")))
        yield from (f"{block}.norm.{norm}.scale" for norm in ("query_norm", "key_norm"))
    yield from _leaves("final_layer.adaLN_modulation.1", "final_layer.linear")


def clip_names(layers: int) -> Iterator[str]:
    """Every tensor of a CLIP text encoder without its projection: 196 at 12 layers."""
    yield from ("text_model.embeddings.token_embedding.weight", "text_model.embeddings.position_embedding.weight")
    for layer in (f"text_model.encoder.layers.{i}" for i in range(layers)):
        yield from _leaves(*(f"{layer}.self_attn.{part}_proj" for part in ("q", "k", "v", "out")))
        yield from _leaves(*(f"{layer}.{part}" for part in ("layer_norm1", "mlp.fc1", "mlp.fc2", "layer_norm2")))
    yield from _leaves("text_model.final_layer_norm")


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
        yield from _leaves(f"{side}.conv_in", f"{side}.norm_out", f"{side}.conv_out")
        yield from _residual(f"{side}.mid.block_1")
        yield from _residual(f"{side}.mid.block_2")
        yield from _leaves(*(f"{side}.mid.attn_1.{part}" for part in ("norm", "q", "k", "v", "proj_out")))
        for level in range(levels):
            for block in range(per_level):
                yield from _residual(f"{side}.{steps}.{level}.block.{block}")
            if level > 0 and side == "decoder":
                yield from _leaves(f"{side}.up.{level}.upsample.conv")
            if level < levels - 1 and side == "encoder":
                yield from _leaves(f"{side}.down.{level}.downsample.conv")


def _residual(path: str) -> Iterator[str]:
    yield from _leaves(*(f"{path}.{part}" for part in ("norm1", "conv1", "norm2", "conv2")))


def _leaves(*paths: str) -> Iterator[str]:
    for path in paths:
        yield from (f"{path}.weight", f"{path}.bias")
