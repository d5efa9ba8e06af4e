"""How the next token is chosen: llama.cpp's chain of samplers for one answer, and what the model thought of it."""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import Any

import numpy as np
from cyllama.llama import llama_cpp

from relight.errors import RequestError
from relight.llm.asks import MAX_SEED, Sampling


def make_sampler(vocabulary: Any, sampling: Sampling, grammar: str | None) -> Any:
    """A chain in llama.cpp's usual order. The grammar comes before anything is cut off, so that it always has a choice.

    Raises RequestError for a grammar llama.cpp cannot read and for token numbers that are not in the vocabulary.
    """
    chain = llama_cpp.LlamaSampler(_quiet())
    size = vocabulary.n_vocab
    if sampling.logit_bias:
        for token in sampling.logit_bias:
            if not 0 <= token < size:
                raise RequestError(f"logit_bias names token {token}, and the vocabulary has {size}")
        chain.add_logit_bias(size, list(sampling.logit_bias.items()))
    if grammar is not None:
        _add_grammar(chain, vocabulary, grammar, 1 if sampling.logit_bias else 0)
    if sampling.repeat_penalty != 1 or sampling.presence_penalty or sampling.frequency_penalty:
        chain.add_penalties(
            size,
            sampling.penalty_window,
            sampling.repeat_penalty,
            sampling.frequency_penalty,
            sampling.presence_penalty,
        )
    if sampling.temperature == 0:
        chain.add_greedy()
        return chain
    if sampling.top_k:
        chain.add_top_k(sampling.top_k)
    if sampling.typical_p < 1:
        chain.add_typical(sampling.typical_p, 1)
    if sampling.top_p < 1:
        chain.add_top_p(sampling.top_p, 1)
    if sampling.min_p > 0:
        chain.add_min_p(sampling.min_p, 1)
    chain.add_temp(sampling.temperature)
    chain.add_dist(seed(sampling))
    return chain


def _add_grammar(chain: Any, vocabulary: Any, grammar: str, link: int) -> None:
    """llama.cpp puts nothing into the chain for a grammar it cannot read, and a chain with nothing in it crashes."""
    chain.add_grammar(vocabulary, grammar, "root")
    try:
        chain.chain_get(link)
    except RuntimeError:
        with suppress(RuntimeError):  # it says that there was nothing, after it has taken it out
            chain.chain_remove(link)
        chain.close()
        raise RequestError("the grammar cannot be read: it needs a rule `root`, no loops to the left") from None


def seed(sampling: Sampling) -> int:
    """Of 32 bits, as llama.cpp takes them; its highest means "any" there, so that it is never given."""
    if sampling.seed is None:
        return secrets.randbelow(MAX_SEED)
    return sampling.seed % MAX_SEED


def _quiet() -> Any:
    params = llama_cpp.LlamaSamplerChainParams()
    params.no_perf = True
    return params


def logprobs(logits: Any, chosen: int, count: int) -> tuple[float, list[tuple[int, float]]]:
    """Of the chosen token and of the `count` likeliest, by the model alone: before temperature and cuts."""
    values = np.asarray(logits, np.float32)
    top = float(values.max())
    total = top + float(np.log(np.exp(values - top, dtype=np.float64).sum()))
    likeliest: list[int] = []
    if count:
        best = np.argpartition(values, -count)[-count:] if count < values.size else np.arange(values.size)
        likeliest = best[np.argsort(-values[best], kind="stable")].tolist()
    return float(values[chosen]) - total, [(token, float(values[token]) - total) for token in likeliest]
