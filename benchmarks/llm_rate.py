"""Tokens a second of relight's language model against llama.cpp's own loop, with one stream and with four.

    python benchmarks/llm_rate.py [--format Q4_0] [--width 2048] [--layers 6] [--threads N] [--n-gpu-layers 0]
    python benchmarks/llm_rate.py --n-gpu-layers -1 --width 4096 --layers 32 --words 128256 --format Q4_K --tokens 128

The second is for a GPU: an 8B's shapes. Without --model a model of random weights is written. Both sides use the same
library and settings and choose the likeliest token; they take turns, so that a machine that is slower for a while is
slower for both. One JSON line for each round, then the medians beside their targets.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from cyllama.llama import llama_cpp

from llm_files import LlmSizes, write_llm
from machine import describe
from relight.executors.cores import physical_cores
from relight.llm.asks import CompletionAsk, Limits, LoadSettings, Sampling, StateBudget
from relight.llm.client import Llm

PROMPT = "hello and the "
STREAMS = 4
CONTEXT = 1024
TARGETS = {"one": 0.97, "four": 0.97, "four_to_one": 2.5}
ON_GPU = ("GPU", "IGPU")


class Rate(NamedTuple):
    """Of all streams together; `cpu_s` of the processor for one token."""

    tokens_per_s: float
    cpu_s: float


class Plain:
    """llama.cpp's own loop: one token of each sequence in, the likeliest out, nothing else."""

    def __init__(self, model: Path, threads: int, layers: int) -> None:
        params = llama_cpp.LlamaModelParams()
        params.n_gpu_layers = layers if layers >= 0 else 1 << 16
        params.split_mode, params.main_gpu = 0, 0 if layers else -1
        self.model = llama_cpp.LlamaModel(str(model), params)
        p = llama_cpp.LlamaContextParams()
        p.n_ctx, p.n_seq_max, p.kv_unified = CONTEXT * STREAMS, STREAMS, True
        p.n_batch, p.n_ubatch, p.no_perf = 512, 512, True
        p.n_threads = p.n_threads_batch = threads
        if layers == 0:
            p.offload_kqv = p.op_offload = False
        self.context = llama_cpp.LlamaContext(self.model, p)
        self.vocabulary = self.model.get_vocab()
        self.ends = [t for t in range(self.vocabulary.n_vocab) if self.vocabulary.is_eog(t)]

    def rate(self, tokens: int, streams: int) -> Rate:
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
        return Rate(count / (time.perf_counter() - began), (time.process_time() - used) / count)

    def sampler(self) -> Any:
        sampler = llama_cpp.LlamaSampler(llama_cpp.LlamaSamplerChainParams())
        sampler.add_logit_bias(self.vocabulary.n_vocab, [(end, -1000.0) for end in self.ends])
        sampler.add_greedy()
        return sampler


def heard(llm: Llm, tokens: int, streams: int, ends: list[int]) -> Rate:
    """As those who listen have it: from the first piece that anybody gets to the last one."""
    sampling = Sampling(temperature=0, logit_bias=dict.fromkeys(ends, -1000.0))

    def one(index: int) -> list[tuple[float, float]]:
        ask = CompletionAsk(prompt=PROMPT + str(index), sampling=sampling, limits=Limits(max_tokens=tokens))
        return [(time.perf_counter(), used(llm) if i == 0 else 0.0) for i, _ in enumerate(llm.complete(ask))]

    with ThreadPoolExecutor(streams) as pool:
        times = list(pool.map(one, range(streams)))
    seconds = max(each[-1][0] for each in times) - min(each[0][0] for each in times)
    count = streams * (tokens - 1)
    return Rate(count / seconds, (used(llm) - min(each[0][1] for each in times)) / count)


def used(llm: Llm) -> float:
    times = psutil.Process(llm.pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    p.add_argument("--model", type=Path)
    p.add_argument("--tokens", type=int, default=48)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=physical_cores())
    p.add_argument("--n-gpu-layers", type=int, default=0)
    sizes = LlmSizes()
    p.add_argument("--width", type=int, default=sizes.width, help="of the random model, a multiple of 512")
    p.add_argument("--layers", type=int, default=6)
    p.add_argument("--words", type=int, default=sizes.words)
    p.add_argument("--format", default=sizes.format)
    a = p.parse_args()
    llama_cpp.set_log_callback(lambda level, text: None)
    llama_cpp.ggml_backend_load_all()
    if a.n_gpu_layers and not any(device["type"] in ON_GPU for device in llama_cpp.ggml_backend_dev_info()):
        raise SystemExit("no GPU here: leave --n-gpu-layers out")
    with tempfile.TemporaryDirectory() as folder:
        sizes = LlmSizes(width=a.width, layers=a.layers, words=a.words, format=a.format)
        measure(a.model or write_llm(Path(folder) / f"random-{a.format}.gguf", sizes), a)


def measure(model: Path, a: Any) -> None:
    plain = Plain(model, a.threads, a.n_gpu_layers)
    nothing_kept = StateBudget(ram_bytes=0)
    settings = LoadSettings(
        context=CONTEXT, slots=STREAMS, threads=a.threads, n_gpu_layers=a.n_gpu_layers, states=nothing_kept
    )
    rounds: list[dict[str, float]] = []
    with Llm() as llm:
        loaded = llm.load(model, settings)
        for streams in (1, STREAMS):  # a GPU's pipelines are built
            plain.rate(8, streams)
            heard(llm, 8, streams, plain.ends)
        for _ in range(a.rounds):
            rounds.append(one_round(plain, llm, a.tokens))
            print(json.dumps({name: float(f"{value:.4g}") for name, value in rounds[-1].items()}), flush=True)
    about = {"model": loaded.description, "gpu_layers": loaded.gpu_layers, "threads": a.threads, "rounds": a.rounds}
    print(json.dumps(about | {"tokens": a.tokens} | describe()))
    print(json.dumps(summary(rounds)))


def one_round(plain: Plain, llm: Llm, tokens: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, streams in (("one", 1), ("four", STREAMS)):
        theirs, ours = plain.rate(tokens, streams), heard(llm, tokens, streams, plain.ends)
        found |= {f"llama_cpp_{name}": theirs.tokens_per_s, f"relight_{name}": ours.tokens_per_s}
        found |= {f"llama_cpp_{name}_cpu_s": theirs.cpu_s, f"relight_{name}_cpu_s": ours.cpu_s}
    return found


def summary(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Ratios, each the median over the rounds; `by_cpu_time` are those a busy machine does not blur."""

    def median(above: str, below: str) -> float:
        return round(statistics.median(each[above] / each[below] for each in rounds), 3)

    ratios = {
        "one": median("relight_one", "llama_cpp_one"),
        "four": median("relight_four", "llama_cpp_four"),
        "four_to_one": median("relight_four", "relight_one"),
    }
    return {
        "targets": {
            name: {"ratio": ratio, "target": TARGETS[name], "met": ratio >= TARGETS[name]}
            for name, ratio in ratios.items()
        },
        "llama_cpp_four_to_one": median("llama_cpp_four", "llama_cpp_one"),
        "by_cpu_time": {
            "one": median("llama_cpp_one_cpu_s", "relight_one_cpu_s"),
            "four": median("llama_cpp_four_cpu_s", "relight_four_cpu_s"),
            "four_to_one": median("relight_one_cpu_s", "relight_four_cpu_s"),
            "llama_cpp_four_to_one": median("llama_cpp_one_cpu_s", "llama_cpp_four_cpu_s"),
        },
    }


if __name__ == "__main__":
    main()
