"""Tokens a second of relight's language model: one stream against llama.cpp's own loop, and four streams against one.

    python benchmarks/llm_rate.py [--model FILE] [--tokens 96] [--rounds 5] [--threads N] [--n-gpu-layers N]

Without a model one of 100 million random weights (F16) is made. One JSON line for each round, then the medians. The
rounds alternate, so that a machine that is slower for a while is slower for both.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from cyllama.llama import llama_cpp

from relight.executors.cores import physical_cores
from relight.llm.asks import CompletionAsk, Limits, LoadSettings, Sampling, StateBudget
from relight.llm.client import Llm

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/llm"))
from tiny_model import write_model

PROMPT = "hello and the "
STREAMS = 4


class Plain:
    """llama.cpp's own loop: one token in, the likeliest out, nothing else."""

    def __init__(self, model: Path, context: int, threads: int, layers: int) -> None:
        params = llama_cpp.LlamaModelParams()
        params.n_gpu_layers = layers
        if layers == 0:
            params.split_mode, params.main_gpu = 0, -1
        self.model = llama_cpp.LlamaModel(str(model), params)
        p = llama_cpp.LlamaContextParams()
        p.n_ctx, p.n_batch, p.n_ubatch, p.no_perf = context, 512, 512, True
        p.n_threads = p.n_threads_batch = threads
        if layers == 0:
            p.offload_kqv = p.op_offload = False
        self.context = llama_cpp.LlamaContext(self.model, p)
        self.vocabulary = self.model.get_vocab()
        self.ends = [t for t in range(self.vocabulary.n_vocab) if self.vocabulary.is_eog(t)]

    def rate(self, tokens: int) -> float:
        sampler = llama_cpp.LlamaSampler(llama_cpp.LlamaSamplerChainParams())
        sampler.add_logit_bias(self.vocabulary.n_vocab, [(end, -1000.0) for end in self.ends])
        sampler.add_greedy()
        self.context.kv_cache_clear()
        batch = llama_cpp.LlamaBatch(n_tokens=512, embd=0, n_seq_max=1)
        prompt = self.vocabulary.tokenize(PROMPT, False, True)
        for position, token in enumerate(prompt):
            batch.add(token, position, [0], position == len(prompt) - 1)
        self.context.decode(batch)
        token = sampler.sample(self.context, -1)
        began = time.perf_counter()
        for step in range(tokens - 1):
            batch.clear()
            batch.add(token, len(prompt) + step, [0], True)
            self.context.decode(batch)
            token = sampler.sample(self.context, -1)
        return (tokens - 1) / (time.perf_counter() - began)


def ours(llm: Llm, tokens: int, streams: int, ends: list[int]) -> float:
    """Tokens a second of all streams together, from the time all have begun to the end of the first."""
    sampling = Sampling(temperature=0, logit_bias=dict.fromkeys(ends, -1000.0))

    def one(index: int) -> list[float]:
        ask = CompletionAsk(
            prompt=PROMPT + str(index), sampling=sampling, limits=Limits(max_tokens=tokens, logprobs=None)
        )
        return [time.perf_counter() for _ in llm.complete(ask)]

    before = llm.stats()
    with ThreadPoolExecutor(streams) as pool:
        list(pool.map(one, range(streams)))
    after = llm.stats()
    return (after.decode_tokens - before.decode_tokens) / (after.decode_seconds - before.decode_seconds)


def heard(llm: Llm, tokens: int, ends: list[int]) -> float:
    """Tokens a second of one stream as its listener sees them."""
    sampling = Sampling(temperature=0, logit_bias=dict.fromkeys(ends, -1000.0))
    ask = CompletionAsk(prompt=PROMPT, sampling=sampling, limits=Limits(max_tokens=tokens))
    *_, last = llm.complete(ask)
    assert last.usage is not None
    return last.usage.tokens_per_second


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    p.add_argument("--model", type=Path)
    p.add_argument("--tokens", type=int, default=96)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=physical_cores())
    p.add_argument("--n-gpu-layers", type=int, default=0)
    a = p.parse_args()
    llama_cpp.set_log_callback(lambda level, text: None)
    llama_cpp.ggml_backend_load_all()
    with tempfile.TemporaryDirectory() as folder:
        model = a.model or write_model(
            Path(folder) / "random-100m.gguf",
            width=768,
            heads=12,
            layers=10,
            feed_forward=2048,
            vocabulary_size=16_384,
            dtype=np.float16,
        )
        measure(model, a)


def measure(model: Path, a: Any) -> None:
    plain = Plain(model, 1024, a.threads, a.n_gpu_layers)
    settings = LoadSettings(
        context=1024, slots=STREAMS, threads=a.threads, n_gpu_layers=a.n_gpu_layers, states=StateBudget(ram_bytes=0)
    )
    rounds: list[dict[str, float]] = []
    with Llm() as llm:
        loaded = llm.load(model, settings)
        plain.rate(16)
        heard(llm, 16, plain.ends)
        for _ in range(a.rounds):
            one = {
                "llama_cpp": plain.rate(a.tokens),
                "relight": heard(llm, a.tokens, plain.ends),
                "four_streams": ours(llm, a.tokens, STREAMS, plain.ends),
            }
            rounds.append(one)
            print(json.dumps(one))
    of_one = statistics.median(r["relight"] / r["llama_cpp"] for r in rounds)
    of_four = statistics.median(r["four_streams"] / r["relight"] for r in rounds)
    machine = {"machine": platform.processor() or platform.machine(), "threads": a.threads}
    print(json.dumps({"model": loaded.description, "one": of_one, "four": of_four, **machine}))


if __name__ == "__main__":
    main()
