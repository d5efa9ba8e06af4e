"""The node as the gateway sees it: what can be asked of it, and plain records of what it answers.

No pixels and no tensors: pictures are the bytes of their files. Errors are those of relight.errors.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

ModelKind = Literal["image", "chat", "embedding"]
JobState = Literal["queued", "running", "finished", "failed", "cancelled", "set_aside"]
ENDED: frozenset[JobState] = frozenset({"finished", "failed", "cancelled", "set_aside"})


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """A model by the name that requests use. `capabilities`: `vision`, `tools`, `embeddings`, `edits` ...; `created` in
    seconds of Unix time; `stopped_s` of one whose workers died again and again: seconds until it is tried again."""

    id: str
    kind: ModelKind
    created: int
    owned_by: str = "relight"
    capabilities: frozenset[str] = frozenset()
    loaded: bool = False
    stopped_s: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageAsk:
    """`request` is JSON in the words of relight.jobs.asked; `inputs` are the files of the pictures that it names."""

    request: Mapping[str, Any]
    inputs: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen. None takes what the model's users expect."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    """What is added to the logits of tokens, by their numbers."""
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    """How many of the likeliest tokens to name beside each; 0 names only the one taken."""


@dataclass(frozen=True)
class ToolCall:
    """`arguments` is JSON as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True)
class Message:
    """`parts` in order: text, and bytes of a picture's file."""

    role: Literal["system", "user", "assistant", "tool"]
    parts: tuple[str | bytes, ...] = ()
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None


@dataclass(frozen=True, kw_only=True)
class ChatAsk:
    """`tools` are OpenAI's function objects (name, description, parameters). `tool_choice` is `none`, `auto`,
    `required` or the name of a tool. `response_schema`: None for free text, {} for any JSON object, else its schema.
    `reasoning_effort` is a word of OpenAI's; `template_values` go to the model's chat template by name."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    response_schema: Mapping[str, Any] | None = None
    reasoning_effort: str | None = None
    template_values: Mapping[str, Any] = field(default_factory=dict)
    owner: str = ""


@dataclass(frozen=True, kw_only=True)
class CompletionAsk:
    """Text to be gone on with, or its tokens; `suffix` follows what is written in between."""

    model: str
    prompt: str | tuple[int, ...]
    suffix: str | None = None
    sampling: Sampling = Sampling()
    owner: str = ""


@dataclass(frozen=True, kw_only=True)
class EmbeddingAsk:
    """Texts, or their tokens."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    owner: str = ""


@dataclass(frozen=True)
class Embeddings:
    """A vector for each input, in their order."""

    vectors: Sequence[Sequence[float]]
    prompt_tokens: int


@dataclass(frozen=True)
class ToolCallDelta:
    """A part of the tool call `index`: `id` and `name` come first and once, `arguments` piece by piece."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True)
class TokenLogprob:
    """A token's text and natural logarithm of its probability, and the likeliest ones of its place."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Usage:
    """Tokens read and written; `cached` of those read were not read again."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class ChatPiece:
    """What came since the last piece. The last one has `finish` and `usage`."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Literal["stop", "length", "tool_calls"] | None = None
    usage: Usage | None = None


@dataclass(frozen=True)
class JobError:
    """A word for programs, a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True)
class ResultView:
    """`about` is JSON: the seed, the size of the picture."""

    index: int
    media_type: str
    size: int
    sha256: str
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job as it stands. `position` 0 is next; `step` of `of` in `stage`; times are UTC."""

    id: str
    kind: str
    model: str
    owner: str
    state: JobState
    created: datetime
    started: datetime | None = None
    finished: datetime | None = None
    attempt: int = 0
    position: int | None = None
    stage: str | None = None
    step: int | None = None
    of: int | None = None
    seconds_left: float | None = None
    error: JobError | None = None
    results: tuple[ResultView, ...] = ()

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """A job as it stands after a change; whoever missed some needs only the newest. `number` grows with each event of
    the job. `preview` is a PNG or JPEG of what is there so far."""

    number: int
    state: JobState
    position: int | None = None
    stage: str | None = None
    step: int | None = None
    of: int | None = None
    seconds_left: float | None = None
    preview: bytes | None = None
    error: JobError | None = None

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True, kw_only=True)
class PlanAsk:
    """What a picture of this model and size, or a conversation of `context` tokens, would take."""

    model: str
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    batch: int = 1
    context: int | None = None


@dataclass(frozen=True)
class Check:
    """One thing that was tried. `detail` is for the operator's log and never leaves the machine."""

    name: str
    ok: bool
    seconds: float = 0.0
    detail: str = ""


@dataclass(frozen=True)
class Health:
    """The outcome of real work on each device, done when asked."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


@dataclass(frozen=True)
class Ready:
    """Whether new work is taken now; if not, why, and seconds until asking again is worth it."""

    ok: bool
    reason: str = ""
    retry_after_s: int = 5


@dataclass(frozen=True)
class Metric:
    """`name` without the prefix `relight_`, in base units (`_seconds`, `_bytes`); values by labels."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    values: Sequence[tuple[Mapping[str, str], float]]


class Node(Protocol):
    """What runs the work. Methods without `async` answer from memory and at once.

    The iterators end by themselves; closing one early stops what it reported on, for `chat` and `complete` within a
    token, and ends the watching only for `events`.
    """

    def models(self) -> Sequence[ModelCard]: ...

    async def submit_image(
        self, model: str, ask: ImageAsk, *, owner: str, key: str | None, join: bool, priority: int = 0
    ) -> JobView:
        """Durable when it returns. The same `key` of the same owner gives the same job (KeyConflict for another
        request); `join` gives the owner's job of an identical request that has not ended. Raises RequestError,
        QueueFull, KeyConflict, ModelStopped, LedgerError."""
        ...

    async def job(self, job_id: str) -> JobView:
        """Raises JobNotFound."""
        ...

    async def jobs(
        self, *, owner: str | None, states: Sequence[JobState] | None, limit: int, before: str | None
    ) -> Sequence[JobView]:
        """Newest first; `before` is the id of a job that the answer begins after. Of anybody where `owner` is None."""
        ...

    async def cancel(self, job_id: str) -> JobView:
        """A finished result wins over a late cancel. Raises JobNotFound."""
        ...

    async def result(self, job_id: str, index: int) -> tuple[bytes, str]:
        """A file and its media type. Raises JobNotFound also for an index that is not there."""
        ...

    def events(self, job_id: str) -> AsyncGenerator[JobEvent, None]:
        """The job as it stands, then each change, until it has ended. Raises JobNotFound."""
        ...

    def chat(self, ask: ChatAsk) -> AsyncGenerator[ChatPiece, None]:
        """Raises RequestError before the first piece."""
        ...

    def complete(self, ask: CompletionAsk) -> AsyncGenerator[ChatPiece, None]: ...

    async def embed(self, ask: EmbeddingAsk) -> Embeddings: ...

    async def plan(self, ask: PlanAsk) -> Mapping[str, Any]:
        """JSON, as `relight plan --json` prints. Raises RequestError, DoesNotFit."""
        ...

    async def devices(self) -> Sequence[Mapping[str, Any]]:
        """JSON: name, kind, total, free and used bytes, what is loaded."""
        ...

    async def unload(self, model: str) -> bool:
        """Take a model that nobody uses from memory; False where it is in use. One that is not loaded stays so."""
        ...

    async def health(self) -> Health: ...

    def ready(self) -> Ready: ...

    def drain(self) -> None:
        """Be ready no more and begin nothing that waits; what runs goes on."""
        ...

    def metrics(self) -> Sequence[Metric]: ...
