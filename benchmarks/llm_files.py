"""A language model of any size with random weights in one file (GGUF, llama), written as fast as the disk takes it.

The vocabulary is that of the tests' small model, filled up with words of its own; matrices come from a pool of normal
numbers already in their format. Heads are of 128, a quarter of them for keys and values, as in Llama 3.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from random_weights import deviation, source
from relight.weights.write import TensorSource, write_gguf

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from llm.tiny_model import CHATML, SPECIAL, vocabulary

HEAD = 128
NORMAL, CONTROL = 1, 3
SURE = 4.0
"""Gain of the output: choices sure enough not to hang on the order of a sum."""


@dataclass(frozen=True, kw_only=True)
class LlmSizes:
    """`width` 4096, 32 `layers` and 128,256 words are Llama 3's 8B."""

    width: int = 2048
    layers: int = 8
    words: int = 32_768
    context: int = 8192
    format: str = "Q4_0"

    @property
    def feed_forward(self) -> int:
        return -(-self.width * 7 // 2 // 256) * 256

    @property
    def heads(self) -> int:
        return self.width // HEAD

    @property
    def key_heads(self) -> int:
        return max(1, self.heads // 4)


def write_llm(path: Path, sizes: LlmSizes) -> Path:
    write_gguf(path, _tensors(sizes), _metadata(path.stem, sizes))
    return path


def _tensors(s: LlmSizes) -> list[TensorSource]:
    keys = s.key_heads * HEAD
    block = {
        "attn_norm": (s.width,),
        "attn_q": (s.width, s.width),
        "attn_k": (keys, s.width),
        "attn_v": (keys, s.width),
        "attn_output": (s.width, s.width),
        "ffn_norm": (s.width,),
        "ffn_gate": (s.feed_forward, s.width),
        "ffn_up": (s.feed_forward, s.width),
        "ffn_down": (s.width, s.feed_forward),
    }
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (s.words, s.width)}
    shapes |= {f"blk.{i}.{name}": shape for i in range(s.layers) for name, shape in block.items()}
    shapes |= {"output_norm": (s.width,), "output": (s.words, s.width)}
    gains = {"token_embd": sqrt(s.width), "output.": SURE}
    return [_tensor(f"{name}.weight", shape, s.format, gains) for name, shape in shapes.items()]


def _tensor(name: str, shape: tuple[int, ...], format_name: str, gains: dict[str, float]) -> TensorSource:
    gain = {} if "blk." in name else gains
    return source(name, shape, "F32" if len(shape) == 1 else format_name, deviation(name, shape, gain))


def _metadata(name: str, s: LlmSizes) -> dict[str, Any]:
    pieces, merges = vocabulary()
    tokens = pieces + list(SPECIAL)
    kinds = [NORMAL] * len(pieces) + [CONTROL] * len(SPECIAL) + [NORMAL] * (s.words - len(tokens))
    tokens += [f"w{i}" for i in range(s.words - len(tokens))]
    return {
        "general.architecture": "llama",
        "general.name": name,
        "general.quantization_version": 2,
        "llama.context_length": s.context,
        "llama.embedding_length": s.width,
        "llama.block_count": s.layers,
        "llama.feed_forward_length": s.feed_forward,
        "llama.attention.head_count": s.heads,
        "llama.attention.head_count_kv": s.key_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": HEAD,
        "llama.vocab_size": s.words,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.asarray(kinds, "<i4"),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": len(pieces),
        "tokenizer.ggml.eos_token_id": len(pieces) + 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHATML,
    }
