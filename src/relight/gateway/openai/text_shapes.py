"""Bodies of the routes that write text, with the ranges that are taken."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from relight.gateway.body import Body
from relight.gateway.node import Sampling

MOST_TOKENS = 1 << 20
MOST_SEED = 2**63 - 1
Name = Annotated[str, Field(max_length=256)]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
Stop = Annotated[str, Field(min_length=1, max_length=512)]
TemplateName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
TemplateText = Annotated[str, Field(max_length=1024)]
Token = Annotated[int, Field(ge=0, lt=2**31)]
Bias = Annotated[float, Field(ge=-100, le=100)]
MOST_BIASES = 1024


class StreamOptions(Body):
    include_usage: bool = False


class Sampled(Body):
    """What chat and completions have in common."""

    model: Name | None = Field(None, description="name of a model; none: the only one, or the one that is loaded")
    stream: bool | None = Field(None, description="answer by server-sent events, piece by piece")
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, le=100_000, description="0: no limit")
    min_p: float | None = Field(None, ge=0, le=1)
    repeat_penalty: float | None = Field(None, ge=0, le=10)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[Token, Bias] | None = Field(None, max_length=MOST_BIASES, description="by the token's number")
    seed: int | None = Field(None, ge=-MOST_SEED, le=MOST_SEED)
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    n: int | None = Field(None, ge=1, le=1, description="one answer for each request")

    def sampling(self, max_tokens: int | None, logprobs: int | None) -> Sampling:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Sampling(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repeat_penalty=self.repeat_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=tuple((self.logit_bias or {}).items()),
            seed=self.seed,
            stop=stop,
            logprobs=logprobs,
        )

    @property
    def with_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ImageUrl(Body):
    url: str = Field(description="a data URL of a PNG, JPEG or WebP; other URLs are not fetched")
    detail: str | None = None


class TextPart(Body):
    type: Literal["text"]
    text: str


class ImagePart(Body):
    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class CalledFunction(Body):
    name: Word
    arguments: str = Field("", max_length=1_000_000)


class CalledTool(Body):
    id: Annotated[str, Field(max_length=256)] = ""
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], Field(max_length=1024)] | None = None
    name: Annotated[str, Field(max_length=128)] | None = None
    tool_calls: Annotated[list[CalledTool], Field(max_length=128)] | None = None
    tool_call_id: Annotated[str, Field(max_length=256)] | None = None
    reasoning_content: str | None = Field(None, description="what an earlier answer thought, for templates that ask")


class Function(Body):
    name: Word
    description: Annotated[str, Field(max_length=65_536)] | None = None
    parameters: dict[str, Any] | None = Field(None, description="a JSON schema")
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    name: Word


class NamedTool(Body):
    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Body):
    name: Annotated[str, Field(max_length=128)] | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatBody(Sampled):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)]
    max_completion_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = Field(
        None, description="for models that think before they answer; none: they answer at once, where they can"
    )
    chat_template_kwargs: dict[TemplateName, bool | int | float | TemplateText | None] | None = Field(
        None, max_length=32, description="values for the model's chat template, such as enable_thinking"
    )


class CompletionBody(Sampled):
    """POST /v1/completions."""

    prompt: (
        str
        | Annotated[list[Token], Field(min_length=1, max_length=MOST_TOKENS)]
        | Annotated[list[str], Field(min_length=1, max_length=16)]
        | Annotated[list[Annotated[list[Token], Field(min_length=1)]], Field(min_length=1, max_length=16)]
    ) = Field(description="a text, its tokens, or several of either")
    suffix: str | None = Field(None, description="text that follows what is written")
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = Field(None, description="put the prompt before the answer; for prompts that are text")
    best_of: int | None = Field(None, ge=1, le=1)


class EmbeddingBody(Body):
    """POST /v1/embeddings."""

    model: Name | None = None
    input: (
        str
        | Annotated[list[Token], Field(min_length=1, max_length=MOST_TOKENS)]
        | Annotated[list[str], Field(min_length=1, max_length=2048)]
        | Annotated[list[Annotated[list[Token], Field(min_length=1)]], Field(min_length=1, max_length=2048)]
    ) = Field(description="a text, its tokens, or several of either")
    encoding_format: Literal["float", "base64"] = Field("float", description="base64: float32, little-endian")
    dimensions: int | None = Field(None, ge=1, le=65_536)
