"""What is asked of a language model and what comes back: plain values, the same in both processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from relight.errors import RequestError

Json = dict[str, Any]
CacheType = Literal["f16", "q8_0", "q4_0"]
FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]
MAX_STOPS, MAX_STOP_LENGTH, MAX_LOGPROBS, MAX_BIASES = 16, 256, 20, 1024
MAX_SEED = 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True)
class StateBudget:
    """Bytes of kept conversations, in RAM and in files of `folder`; no file is written without a folder."""

    ram_bytes: int = 1 << 30
    disk_bytes: int = 4 << 30
    folder: str | None = None
    min_tokens: int = 32


@dataclass(frozen=True, kw_only=True)
class LoadSettings:
    """`context`: tokens of each slot; 0 for what the model was trained with, at most 8192. `device`: of the layers on
    the GPU, `vulkan0` where none is named."""

    n_gpu_layers: int = 0
    device: str | None = None
    context: int = 4096
    slots: int = 4
    threads: int | None = None
    cache_k: CacheType = "f16"
    cache_v: CacheType = "f16"
    flash_attention: bool | None = None
    batch: int = 512
    states: StateBudget = field(default_factory=StateBudget)

    def __post_init__(self) -> None:
        _within("context", self.context, 0, 1 << 22)
        _within("slots", self.slots, 1, 64)
        _within("batch", self.batch, 32, 8192)
        _within("n_gpu_layers", self.n_gpu_layers, -1, 10_000)
        if self.threads is not None:
            _within("threads", self.threads, 1, 1024)
        for name in (self.cache_k, self.cache_v):
            if name not in ("f16", "q8_0", "q4_0"):
                raise RequestError(f"cache type {name!r}: f16, q8_0 or q4_0")
        if self.flash_attention is False and self.cache_v != "f16":
            raise RequestError(f"cache_v {self.cache_v} needs flash attention; leave it on, or take f16")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen. `temperature` 0 takes the likeliest. Penalties count the answer's own tokens."""

    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_window: int = 64
    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _within("temperature", self.temperature, 0, 100)
        _within("top_p", self.top_p, 0, 1)
        _within("top_k", self.top_k, 0, 1 << 20)
        _within("min_p", self.min_p, 0, 1)
        _within("typical_p", self.typical_p, 0, 1)
        _within("repeat_penalty", self.repeat_penalty, 0.01, 100)
        _within("presence_penalty", self.presence_penalty, -10, 10)
        _within("frequency_penalty", self.frequency_penalty, -10, 10)
        _within("penalty_window", self.penalty_window, 0, 1 << 20)
        if self.seed is not None and not -(1 << 63) <= self.seed < 1 << 64:
            raise RequestError(f"seed {self.seed}: at most 64 bits")
        if len(self.logit_bias) > MAX_BIASES:
            raise RequestError(f"logit_bias has {len(self.logit_bias)} entries, and {MAX_BIASES} are allowed")
        for bias in self.logit_bias.values():
            _within("logit_bias", bias, -1000, 1000)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What ends an answer. `max_tokens` None: as many as the context has room for. `logprobs`: how many of the
    likeliest tokens are told beside the one chosen; None tells nothing."""

    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None

    def __post_init__(self) -> None:
        if self.max_tokens is not None:
            _within("max_tokens", self.max_tokens, 1, 1 << 22)
        if self.logprobs is not None:
            _within("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        if len(self.stop) > MAX_STOPS:
            raise RequestError(f"stop has {len(self.stop)} strings, and {MAX_STOPS} are allowed")
        for text in self.stop:
            if not 0 < len(text) <= MAX_STOP_LENGTH:
                raise RequestError(f"a stop string has {len(text)} characters: 1 to {MAX_STOP_LENGTH}")


@dataclass(frozen=True, kw_only=True)
class ChatAsk:
    """A conversation to go on with, messages and tools in OpenAI's shape.

    `tool_choice`: `auto`, `none`, `required`, or the name of a tool. `response_format`: None, or of type `json_object`
    or `json_schema`. `template_values` go to the template by name.
    """

    messages: tuple[Json, ...]
    tools: tuple[Json, ...] = ()
    tool_choice: str = "auto"
    response_format: Json | None = None
    sampling: Sampling = field(default_factory=Sampling)
    limits: Limits = field(default_factory=Limits)
    template_values: Json = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CompletionAsk:
    """Text, or tokens, to go on with. `suffix`: what shall come after, for models that know how to fill in.
    `grammar`: GBNF that the answer keeps to."""

    prompt: str | tuple[int, ...]
    suffix: str | None = None
    response_format: Json | None = None
    grammar: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, kw_only=True)
class EmbedAsk:
    """Texts, or token lists, to turn into vectors. `dimensions`: the first so many, normalised again."""

    texts: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None


@dataclass(frozen=True)
class TokenLogprob:
    """A token that was chosen, its natural logarithm of probability, and the likeliest in its place."""

    text: str
    raw: tuple[int, ...]
    logprob: float
    top: tuple[tuple[str, tuple[int, ...], float], ...] = ()


@dataclass(frozen=True)
class ToolCall:
    """One call of a tool; `arguments` is JSON text, as OpenAI has it."""

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer. `reused_tokens` of the prompt were remembered and not read again."""

    prompt_tokens: int
    reused_tokens: int
    completion_tokens: int
    prompt_seconds: float
    decode_seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Of the answer, from its second token on; 0 where there was none."""
        return (self.completion_tokens - 1) / self.decode_seconds if self.decode_seconds > 0 else 0.0


@dataclass(frozen=True)
class Piece:
    """A part of an answer; `reasoning` is what the model thinks before it. The last has `finish_reason` and `usage`."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    reasoning: str = ""


@dataclass(frozen=True)
class Loaded:
    """What was loaded: `model_bytes` of weights, `context` tokens of each slot; it `can` chat, tools, embeddings ...

    `layers` counts blocks; `gpu_layers` one more where the output is on the GPU too."""

    name: str
    architecture: str
    description: str
    model_bytes: int
    parameters: int
    layers: int
    gpu_layers: int
    context: int
    trained_context: int
    slots: int
    vocabulary: int
    width: int
    can: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Stats:
    """Since the model was loaded. Rates are tokens a second while the engine worked on them."""

    prompt_tokens: int
    prompt_seconds: float
    decode_tokens: int
    decode_seconds: float
    reused_tokens: int
    running: int
    waiting: int
    states: int
    state_ram_bytes: int
    state_disk_bytes: int


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # NaN is not within anything
        raise RequestError(f"{name} {value}: {low} to {high}")
