"""A prompt as the one sequence T5 takes, with the weight of each token."""

from __future__ import annotations

import numpy as np

from relight.models.tokenizers import T5_END, T5_PAD, T5Tokenizer, TokenIds
from relight.prompts.emphasis import parse


def sequence(text: str, tokenizer: T5Tokenizer, length: int) -> tuple[TokenIds, np.ndarray]:
    """The ids [length] as `tokenizer.encode` gives them, but of the text without its marks, and weights [length] f32.

    Pieces of different weight are tokenised by themselves, as stable-diffusion.cpp does. BREAK only parts them.
    """
    ids, weights, cut, count = np.full(length, T5_PAD, np.int32), np.ones(length, np.float32), [], 0
    end = 0
    for piece in (piece for part in parse(text) for piece in part):
        read = tokenizer.encode(piece.text, length - end)
        fit = min(read.count, length - end - 1)
        ids[end : end + fit], weights[end : end + fit] = read.ids[:fit], piece.weight
        end, count = end + fit, count + read.count
        cut.append(read.cut)
    ids[end] = T5_END
    return TokenIds(ids, end, count, " ".join(filter(None, cut))), weights
