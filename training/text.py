"""Captions as ids, and the places of text tokens: relight gives FLUX 256 of them, nearly all padding.

Padding tokens are alike, so in training a few stand for many: each of EXTRA tokens after the first TOKENS speaks for a
stretch of the padding, and counts as often in attention (the logarithm of its length is added to every score). One
forward pass then takes 28 text tokens instead of 256.
"""

from __future__ import annotations

import json
import math
import tarfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relight.models.tokenizers import CLIP_END, CLIP_START, T5_END, ClipTokenizer, T5Tokenizer, clip_pieces

TOKENS, EXTRA = 20, 8
LENGTHS = (256,) * 7 + (64, 128, 512)  # text tokens that training pretends to
NEVER = -1e4


def vocabulary(archive: tarfile.TarFile) -> dict[str, Any]:
    """The `tokenizer.ggml.*` metadata of the pack's vocabulary."""
    content = json.load(archive.extractfile("vocabulary.json"))
    return {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.tokens": content["tokens"],
        "tokenizer.ggml.scores": np.array(content["scores"], np.float32),
        "tokenizer.ggml.token_type": np.array(content["token_type"], np.int32),
        "tokenizer.ggml.precompiled_charsmap": np.frombuffer(archive.extractfile("charsmap.bin").read(), np.int8),
        "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.ggml.remove_extra_whitespaces": True,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
    }


class Tokenizers:
    def __init__(self, metadata: dict[str, Any]) -> None:
        self.t5, self.clip = T5Tokenizer.from_gguf(metadata), ClipTokenizer()

    def many(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """T5's and CLIP's ids [N TOKENS] int32, the same as relight's encode gives."""
        t5, clip = np.zeros((len(texts), TOKENS), np.int32), np.full((len(texts), TOKENS), CLIP_END, np.int32)
        for row, encoding in enumerate(self.t5._pieces.encode_batch(list(texts), add_special_tokens=False)):
            ids = [*encoding.ids[: TOKENS - 1], T5_END]
            t5[row, : len(ids)] = ids
        for row, encoding in enumerate(clip_pieces().encode_batch(list(texts), add_special_tokens=False)):
            ids = [CLIP_START, *encoding.ids[: TOKENS - 2], CLIP_END]
            clip[row, : len(ids)] = ids
        return t5, clip


def layout(length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Positions [TOKENS + EXTRA] and what is added to the score of each, standing for `length` text tokens."""
    edges = np.linspace(TOKENS, length, EXTRA + 1)
    positions = [*range(TOKENS), *((edges[:-1] + edges[1:] - 1) / 2).round().astype(int)]
    stretch = (length - TOKENS) / EXTRA
    bias = [0.0] * TOKENS + [math.log(stretch) if stretch else NEVER] * EXTRA
    return torch.tensor(positions, device=device), torch.tensor(bias, device=device)


def every(length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """All of `length` text tokens, as relight runs the model."""
    return torch.arange(length, device=device), torch.zeros(length, device=device)
