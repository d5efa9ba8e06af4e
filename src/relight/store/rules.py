"""Which format each tensor of a quantised file gets: the usual exceptions, then the user's rules over them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from relight.errors import RequestError
from relight.weights.formats import FORMATS

TARGETS = tuple(name for name in FORMATS if name not in ("F8_E4M3", "I32"))
"""What ggml can write."""
FILE_TYPES = {
    "F32": 0,
    "F16": 1,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q8_0": 7,
    "Q5_0": 8,
    "Q5_1": 9,
    "Q2_K": 10,
    "Q3_K": 11,
    "Q4_K": 14,
    "Q5_K": 16,
    "Q6_K": 18,
    "IQ4_NL": 25,
    "IQ4_XS": 30,
    "BF16": 32,
}
"""general.file_type of llama.cpp for a file that is mostly in this format (the K-quants' small variants)."""

NARROWER = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}
"""What a row gets that is no whole number of 256 values, as in llama.cpp: blocks of 32 with a bit more each."""

KEPT = {
    "diffusion": r"img_in|txt_in|time_in|vector_in|guidance_in|final_layer",
    "unet": r"(time_embed|label_emb|out|input_blocks\.0)\.",
    "controlnet": r"(time_embed|label_emb|input_blocks\.0|input_hint_block|zero_convs|middle_block_out)\.",
    "other unet": r"(.*\.)?(time_embed|label_emb|add_embedding|time_embedding|out|conv_in|conv_out|input_blocks\.0)\.",
    "clip_l": r".*embeddings\.",
    "clip_g": r".*(embedding|text_projection)",
    "clip_h": r".*(embedding|text_projection)",
    "text encoder": r".*(embedding|text_projection)",
    "t5xxl": r".*(relative_attention_bias|attn_rel_b)\.",
    "vae": r".*",
    "taesd": r".*",
    "upscaler": r".*",
}
"""By component, names whose matrices stay F16: they are small, and errors in them reach everything."""


@dataclass(frozen=True)
class Rule:
    """Tensors whose `component.name` the pattern is found in get this format; the first rule that fits counts."""

    pattern: re.Pattern[str]
    format: str

    @classmethod
    def parse(cls, text: str) -> Rule:
        """`REGEX=TYPE`. Raises RequestError for anything else."""
        pattern, equals, format_name = text.rpartition("=")
        if not equals or not pattern:
            raise RequestError(f"--rule {text}: give REGEX=TYPE, such as img_mlp=Q5_K or t5xxl=Q8_0")
        try:
            return cls(re.compile(pattern), target(format_name))
        except re.error as error:
            raise RequestError(f"--rule {text}: {pattern!r} is no regular expression: {error}") from error


def target(name: str) -> str:
    """A format ggml writes, in GGUF's spelling; Q4_K_S is Q4_K. Raises RequestError for others."""
    plain = name.upper().removesuffix("_S") if "_K_" in name.upper() else name.upper()
    if plain not in TARGETS:
        raise RequestError(f"type {name}: is none of {', '.join(TARGETS)}")
    return plain


def choose(kind: str, name: str, shape: tuple[int, ...], wanted: str, rules: Sequence[Rule]) -> str:
    """The format of one tensor, `wanted` being that of most. Rules count for matrices, where whole blocks fit."""
    if len(shape) < 2:
        return "F32"
    ruled = next((rule.format for rule in rules if rule.pattern.search(f"{kind}.{name}")), None)
    if ruled is None and wanted in ("F32", "BF16", "F16"):
        ruled = wanted
    if ruled is None:
        kept = len(shape) > 2 or re.match(KEPT.get(kind, r"(?!)"), name) is not None
        ruled = "F16" if kept else wanted
    return fitting(ruled, shape[-1])


def fitting(format_name: str, row: int) -> str:
    """The format, or the nearest whose blocks fill a row of this many values."""
    while row % FORMATS[format_name].block_elements:
        format_name = NARROWER.get(format_name, "F16")
    return format_name
