"""A language model's file from its header: layers, bytes of each, and of its memory of the conversation.

Generating a token reads every weight once, so its speed is bandwidth; reading the prompt is products. What is computed
besides (logits of a batch of 512, scratch) is ggml's own: counted here as llama.cpp's graphs have it, estimated.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from relight.errors import ModelFileError
from relight.planner.machine import Machine
from relight.weights.container import open_container
from relight.weights.formats import STORED
from relight.weights.shards import weight_files

LAYER = re.compile(r"blk\.(\d+)\.")
KV_BYTES = 2
"""Of a value of the conversation's memory, in F16."""
BATCH = 512
ANSWER_TOKENS = 256
BROUGHT = 32
"""Tokens of a prompt from which on llama.cpp computes the CPU's layers on the GPU too, where any layer is."""


@dataclass(frozen=True)
class LanguageModel:
    """`layers` are bytes of each block, `rest` those of embeddings and the output, `output` of the output alone."""

    path: Path
    architecture: str
    format: str
    layers: tuple[int, ...]
    rest: int
    output: int
    kv_per_token: int
    width: int
    vocabulary: int
    trained_context: int

    @property
    def weights(self) -> int:
        return sum(self.layers) + self.rest

    def kv(self, context: int, layers: int) -> int:
        """Bytes of the conversation's memory that so many layers hold."""
        return self.kv_per_token * context * layers // max(1, len(self.layers))

    def compute(self, context: int) -> int:
        """Logits and the widest values of a batch, and a mask over the context."""
        return BATCH * (4 * self.vocabulary + 16 * self.width + 2 * context)

    def on_gpu(self, layers: int, context: int) -> int:
        """Bytes on the GPU with the last `layers` there; the output goes with the last of all."""
        if layers == 0:
            return 0
        output = self.output if layers > len(self.layers) else 0
        return (
            self._blocks_on_gpu(layers)
            + output
            + self.kv(context, min(layers, len(self.layers)))
            + self.compute(context)
        )

    def most_layers(self, room: int, context: int) -> int:
        """As `--n-gpu-layers` counts them: one more than there are takes the output along."""
        fitting = (n for n in range(len(self.layers) + 1, 0, -1) if self.on_gpu(n, context) <= room)
        return next(fitting, 0)

    def token_seconds(self, layers: int, machine: Machine) -> float:
        """Of one generated token: all weights are read once, each where it is."""
        on_gpu = self._blocks_on_gpu(layers) + (self.output if layers > len(self.layers) else 0)
        on_cpu = sum(self.layers) + self.output - on_gpu
        seconds = on_cpu / machine.cpu.rates("ggml-cpu").weights
        if machine.gpu is not None and on_gpu:
            seconds += on_gpu / machine.gpu.rates.weights
        return seconds

    def reading_seconds(self, tokens: int, layers: int, machine: Machine) -> float:
        """Of so many tokens of a prompt, in batches: products, or the weights' way where that is longer. Long prompts
        are computed on the GPU where any layer is, for which the others' weights come there with each batch. Estimated;
        attention, some hundredths of it up to 4096 tokens, is not counted."""
        if not tokens:
            return 0.0
        batches, there = math.ceil(tokens / BATCH), self._blocks_on_gpu(layers)
        here, brought = sum(self.layers) - there, 0.0
        if machine.gpu is not None and there and tokens >= BROUGHT:
            brought, there, here = batches * here / machine.gpu.rates.upload, there + here, 0
        flops = 2 * tokens * 8 / STORED[self.format].bits_per_weight  # of a byte of weights
        products = here * flops / machine.cpu.rates("ggml-cpu").matrix_rate(self.format)
        if machine.gpu is not None:
            products += there * flops / machine.gpu.rates.matrix_rate(self.format)
        return max(brought + products, batches * self.token_seconds(layers, machine))

    def _blocks_on_gpu(self, layers: int) -> int:
        return sum(self.layers[len(self.layers) - min(layers, len(self.layers)) :])


def read_language_model(path: Path) -> LanguageModel:
    """Raises ModelFileError for what is no language model in GGUF."""
    files = weight_files(path)
    return _read(path, files, tuple(file.stat().st_mtime_ns for file in files))


@lru_cache(8)
def _read(path: Path, files: tuple[Path, ...], changed: tuple[int, ...]) -> LanguageModel:
    """A vocabulary takes a tenth of a second to read, and the node asks whenever a chat begins."""
    containers = [open_container(file) for file in files]
    try:
        metadata: dict[str, Any] = {}
        layers: Counter[int] = Counter()
        formats: Counter[str] = Counter()
        rest, output = 0, 0
        for container in containers:
            metadata = dict(container.metadata) | metadata
            for name, entry in container.entries.items():
                formats[entry.format] += entry.nbytes
                if match := LAYER.match(name):
                    layers[int(match[1])] += entry.nbytes
                else:
                    rest += entry.nbytes
                    output += entry.nbytes if name.startswith("output") else 0
        return _described(path, metadata, layers, formats, rest, output)
    finally:
        for container in containers:
            with closing(container):
                pass


def _described(
    path: Path, metadata: Mapping[str, Any], layers: Counter[int], formats: Counter[str], rest: int, output: int
) -> LanguageModel:
    architecture = str(metadata.get("general.architecture", ""))

    def number(key: str, default: int) -> int:
        value = metadata.get(f"{architecture}.{key}", default)
        return int(value) if isinstance(value, (int, float)) else default

    width, heads = number("embedding_length", 0), number("attention.head_count", 0)
    if not layers or not width or not heads:
        raise ModelFileError(f"{path}: is no language model in GGUF (architecture {architecture or 'not stated'})")
    kv_heads = metadata.get(f"{architecture}.attention.head_count_kv", heads)
    per_layer = [int(n) for n in kv_heads] if hasattr(kv_heads, "__iter__") else [int(kv_heads)] * len(layers)
    key = number("attention.key_length", width // heads)
    value = number("attention.value_length", key)
    tokens = metadata.get("tokenizer.ggml.tokens", ())
    vocabulary = len(tokens) or number("vocab_size", 128256)
    return LanguageModel(
        path=path,
        architecture=architecture,
        format=formats.most_common(1)[0][0],
        layers=tuple(layers[i] for i in sorted(layers)),
        rest=rest,
        output=output or rest,
        kv_per_token=sum(per_layer) * (key + value) * KV_BYTES,
        width=width,
        vocabulary=vocabulary,
        trained_context=number("context_length", 0),
    )
