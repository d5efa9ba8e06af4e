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
import psutil
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
        p.n_ctx, p.n_seq_max, p.kv_unified = context * STREAMS, STREAMS, False
        p.n_batch, p.n_ubatch, p.no_perf = 512, 512, True
        p.n_threads = p.n_threads_batch = threads
        if layers == 0:
            p.offload_kqv = p.op_offload = False
        self.context = llama_cpp.LlamaContext(self.model, p)
        self.vocabulary = self.model.get_vocab()
        self.ends = [t for t in range(self.vocabulary.n_vocab) if self.vocabulary.is_eog(t)]

    def rate(self, tokens: int, streams: int = 1) -> tuple[float, float]:
        """Tokens a second of so many sequences in one batch, and processor seconds of a token."""
        samplers = [self.sampler() for _ in range(streams)]
        self.context.kv_cache_clear()
        batch = llama_cpp.LlamaBatch(n_tokens=512, embd=0, n_seq_max=1)
        prompt = self.vocabulary.tokenize(PROMPT, False, True)
        last = []
        for sequence, sampler in enumerate(samplers):
            batch.clear()
            for position, token in enumerate(prompt):
                batch.add(token, position, [sequence], position == len(prompt) - 1)
            self.context.decode(batch)
            last.append(sampler.sample(self.context, -1))
        began, used = time.perf_counter(), time.process_time()
        for step in range(tokens - 1):
            batch.clear()
            for sequence, token in enumerate(last):
                batch.add(token, len(prompt) + step, [sequence], True)
            self.context.decode(batch)
            last = [sampler.sample(self.context, row) for row, sampler in enumerate(samplers)]
        count = streams * (tokens - 1)
        return count / (time.perf_counter() - began), (time.process_time() - used) / count

    def sampler(self) -> Any:
        sampler = llama_cpp.LlamaSampler(llama_cpp.LlamaSamplerChainParams())
        sampler.add_logit_bias(self.vocabulary.n_vocab, [(end, -1000.0) for end in self.ends])
        sampler.add_greedy()
        return sampler


def ours(llm: Llm, tokens: int, streams: int, ends: list[int]) -> float:
    """Tokens a second of all streams together, from the time all have begun to the end of the first."""
    sampling = Sampling(temperature=0, logit_bias=dict.fromkeys(ends, -1000.0))

    def one(index: int) -> list[float]:
        ask = CompletionAsk(prompt=PROMPT + str(index), sampling=sampling, limits=Limits(max_tokens=tokens))
        return [time.perf_counter() for _ in llm.complete(ask)]

    before = llm.stats()
    with ThreadPoolExecutor(streams) as pool:
        list(pool.map(one, range(streams)))
    after = llm.stats()
    return (after.decode_tokens - before.decode_tokens) / (after.decode_seconds - before.decode_seconds)


def heard(llm: Llm, tokens: int, ends: list[int]) -> tuple[float, float]:
    """Tokens a second of one stream as its listener sees them, and processor seconds of a token in the process."""
    sampling = Sampling(temperature=0, logit_bias=dict.fromkeys(ends, -1000.0))
    answer = llm.complete(CompletionAsk(prompt=PROMPT, sampling=sampling, limits=Limits(max_tokens=tokens)))
    next(answer)
    before = used(llm)
    *_, last = answer
    assert last.usage is not None
    return last.usage.tokens_per_second, (used(llm) - before) / (tokens - 1)


def used(llm: Llm) -> float:
    times = psutil.Process(llm.pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    p.add_argument("--model", type=Path)
    p.add_argument("--tokens", type=int, default=96)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=physical_cores())
    p.add_argument("--n-gpu-layers", type=int, default=0)
    p.add_argument("--width", type=int, default=768, help="of the random model; 2048 makes about 800 million weights")
    a = p.parse_args()
    llama_cpp.set_log_callback(lambda level, text: None)
    llama_cpp.ggml_backend_load_all()
    with tempfile.TemporaryDirectory() as folder:
        model = a.model or write_model(
            Path(folder) / "random.gguf",
            width=a.width,
            heads=a.width // 64,
            layers=10,
            feed_forward=a.width * 8 // 3,
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
            plain_rate, plain_used = plain.rate(a.tokens)
            rate, took = heard(llm, a.tokens, plain.ends)
            one = {
                "llama_cpp": plain_rate,
                "relight": rate,
                "llama_cpp_cpu_s": plain_used,
                "relight_cpu_s": took,
                "llama_cpp_four": plain.rate(a.tokens, STREAMS)[0],
                "relight_four": ours(llm, a.tokens, STREAMS, plain.ends),
            }
            rounds.append(one)
            print(json.dumps(one))
    result = {
        "one": median(rounds, "relight", "llama_cpp"),
        "one_by_cpu_time": median(rounds, "llama_cpp_cpu_s", "relight_cpu_s"),
        "four_to_one": median(rounds, "relight_four", "relight"),
        "llama_cpp_four_to_one": median(rounds, "llama_cpp_four", "llama_cpp"),
    }
    machine = {"machine": platform.processor() or platform.machine(), "threads": a.threads, "layers": loaded.gpu_layers}
    print(json.dumps({"model": loaded.description, **result, **machine}))


def median(rounds: list[dict[str, float]], above: str, below: str) -> float:
    return round(statistics.median(each[above] / each[below] for each in rounds), 3)


if __name__ == "__main__":
    main()
