"""Captions as ids, and the places of text tokens: relight gives FLUX 256 of them, nearly all padding.

Padding tokens are alike, so in training a few stand for many: each of EXTRA tokens after the first TOKENS speaks for a
stretch of the padding, and counts as often in attention (the logarithm of its length is added to every score). One
forward pass then takes 32 text tokens instead of 256.
"""

from __future__ import annotations

import json
import math
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relight.models.tokenizers import CLIP_END, CLIP_START, T5_END, ClipTokenizer, T5Tokenizer, clip_pieces
from relight.weights.gguf import read_gguf
from relight.weights.mapped import MappedFile

PREFIX = "tokenizer.ggml."
TOKENS, EXTRA = 24, 8
LENGTHS = (256,) * 7 + (64, 128, 512)  # text tokens that training pretends to
NEVER = -1e4


def vocabulary(archive: tarfile.TarFile) -> dict[str, Any]:
    """The `tokenizer.ggml.*` metadata of the pack's vocabulary."""
    content = json.load(archive.extractfile("vocabulary.json"))
    return described(**content, charsmap=np.frombuffer(archive.extractfile("charsmap.bin").read(), np.int8))


def vocabulary_of(model: Path) -> dict[str, Any]:
    """The same from a trained T5, which knows no other vocabulary."""
    known = {key.removeprefix(PREFIX): value for key, value in read_gguf(MappedFile(model)).metadata.items()}
    charsmap = np.array(known["precompiled_charsmap"], np.int8)
    return described(known["tokens"], known["scores"], known["token_type"], charsmap)


def described(
    tokens: Sequence[str], scores: Sequence[float], token_type: Sequence[int], charsmap: np.ndarray
) -> dict[str, Any]:
    content = {
        "model": "t5",
        "tokens": list(tokens),
        "scores": np.array(scores, np.float32),
        "token_type": np.array(token_type, np.int32),
        "precompiled_charsmap": charsmap,
        "add_space_prefix": True,
        "remove_extra_whitespaces": True,
        "eos_token_id": 1,
        "unknown_token_id": 2,
        "padding_token_id": 0,
    }
    return {PREFIX + key: value for key, value in content.items()}


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
