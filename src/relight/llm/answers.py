"""From an ask to a turn of the engine, and from its tokens to pieces of text, tool calls and logprobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from relight.errors import RequestError
from relight.llm import reasoning, sampling
from relight.llm.asks import ChatAsk, CompletionAsk, FinishReason, Limits, Piece, Sampling, TokenLogprob, Usage
from relight.llm.grammar import bounded, response_grammar
from relight.llm.header import Header
from relight.llm.reasoning import ThoughtReader
from relight.llm.slots import Turn
from relight.llm.templates import CHATML, ChatTemplate
from relight.llm.text import TextStream
from relight.llm.tools import SHOWN, ToolReader, check_tools, forced_grammar, names_of

MAX_TEXT = 16 << 20
WITHOUT_LIMIT = 1 << 30
Give = Callable[[Piece], None]
Fail = Callable[[Exception], None]


class Answerer:
    """Makes turns for one model. Knows its vocabulary and its templates."""

    def __init__(self, header: Header, vocabulary: Any, context_tokens: int) -> None:
        self.header, self.vocabulary, self.context_tokens = header, vocabulary, context_tokens
        self.template = self._template(header.template)
        self.tool_template = self._template(header.tool_template) or self.template
        self._shown = SHOWN | reasoning.control_tokens(self.template.source if self.template else "")
        self._pieces: dict[int, bytes] = {}

    def _template(self, source: str | None) -> ChatTemplate | None:
        if source is None and self._is_one_token("<|im_start|>"):
            source = CHATML
        return ChatTemplate(source, bos=self.header.bos, eos=self.header.eos) if source else None

    def _is_one_token(self, text: str) -> bool:
        return len(self.vocabulary.tokenize(text, False, True)) == 1

    @property
    def can(self) -> tuple[str, ...]:
        """What this model can be asked for."""
        if self.header.pooled:
            return ("embeddings",)
        found = ["completion", "embeddings"]
        if self.template:
            found.append("chat")
        if self.tool_template and self.tool_template.knows_tools:
            found.append("tools")
        if self.vocabulary.fim_prefix() >= 0 and self.vocabulary.fim_suffix() >= 0:
            found.append("infill")
        return tuple(found)

    def chat(self, ask: ChatAsk, give: Give, fail: Fail) -> Turn:
        """Raises RequestError for what the model or its template cannot take."""
        check_tools(ask.tools, ask.tool_choice)
        tools = () if ask.tool_choice == "none" else ask.tools
        template = self.tool_template if tools else self.template
        if template is None:
            raise RequestError(f"{self.header.name} has no chat template; ask it for a completion")
        text = template.render(ask.messages, tools, ask.template_values)
        forced = forced_grammar(tools, ask.tool_choice, template.source)
        grammar = forced or (None if tools else response_grammar(ask.response_format))
        if tools and ask.response_format and ask.response_format.get("type") != "text":
            raise RequestError("response_format together with tools: ask for one of them")
        if grammar is not None:
            grammar = reasoning.after_thoughts(grammar, template.source, text)
        reader = ToolReader(names_of(tools)) if tools else None
        thoughts = reasoning.reader_for(template.source, text)
        return self._turn(self.tokens(text), ask.sampling, grammar, ask.limits, reader, thoughts, give, fail)

    def complete(self, ask: CompletionAsk, give: Give, fail: Fail) -> Turn:
        """Raises RequestError for a suffix the model has no tokens for, and for tokens it does not have."""
        grammar = bounded(ask.grammar) if ask.grammar is not None else response_grammar(ask.response_format)
        if ask.suffix is not None:
            prompt = self._infill(ask)
        elif isinstance(ask.prompt, str):
            prompt = self.tokens(ask.prompt)
        else:
            prompt = self.checked(ask.prompt)
        return self._turn(prompt, ask.sampling, grammar, ask.limits, None, None, give, fail)

    def _infill(self, ask: CompletionAsk) -> list[int]:
        v = self.vocabulary
        if "infill" not in self.can or not isinstance(ask.prompt, str):
            raise RequestError(f"suffix: {self.header.name} cannot fill in text, or the prompt is no text")
        before, after = (v.tokenize(text, False, False) for text in (ask.prompt, ask.suffix))
        middle = [v.fim_middle()] if v.fim_middle() >= 0 else []
        return [v.fim_prefix(), *before, v.fim_suffix(), *after, *middle]

    def tokens(self, text: str) -> list[int]:
        """With the token that begins a text where the model wants one and the text does not begin with it."""
        if len(text) > MAX_TEXT:
            raise RequestError(f"the prompt has {len(text)} characters, and {MAX_TEXT} are allowed")
        begun = bool(self.header.bos) and text.startswith(self.header.bos)
        if not text and not self.vocabulary.get_add_bos():
            return []
        return list(self.vocabulary.tokenize(text, not begun, True))

    def checked(self, tokens: Sequence[int]) -> list[int]:
        size = self.vocabulary.n_vocab
        wrong = next((token for token in tokens if type(token) is not int or not 0 <= token < size), None)
        if wrong is not None:
            raise RequestError(f"the prompt names token {wrong!r}, and the vocabulary has {size}")
        return list(tokens)

    def _turn(
        self,
        prompt: list[int],
        how: Sampling,
        grammar: str | None,
        limits: Limits,
        reader: ToolReader | None,
        thoughts: ThoughtReader | None,
        give: Give,
        fail: Fail,
    ) -> Turn:
        if self.header.pooled:
            raise RequestError(f"{self.header.name} makes embeddings and writes no text")
        self._room(prompt)
        answer = Answer(self, limits, reader, thoughts, give, fail)
        chain = sampling.make_sampler(self.vocabulary, how, grammar)
        return Turn(prompt, chain, limits.max_tokens or WITHOUT_LIMIT, answer.on_token, answer.on_end)

    def _room(self, prompt: Sequence[int]) -> None:
        if not prompt:
            raise RequestError("the prompt is empty")
        if len(prompt) >= self.context_tokens:
            raise RequestError(
                f"the prompt has {len(prompt)} tokens, and the context has {self.context_tokens}: shorten it, or load "
                "the model with a larger one (language_model.ctx, or --ctx of relight chat)"
            )

    def bytes_of(self, token: int) -> bytes:
        """What a token adds to the text; nothing for control tokens nobody should see."""
        if token not in self._pieces:
            raw = bytes(self.vocabulary.token_to_bytes(token, special=True))
            unseen = self.vocabulary.is_control(token) and raw.decode(errors="replace") not in self._shown
            self._pieces[token] = b"" if unseen else raw
        return self._pieces[token]

    def ends(self, token: int) -> bool:
        return bool(self.vocabulary.is_eog(token))


class Answer:
    """One answer: text past its stop strings and half characters, thoughts, tool calls, logprobs."""

    def __init__(
        self,
        answerer: Answerer,
        limits: Limits,
        reader: ToolReader | None,
        thoughts: ThoughtReader | None,
        give: Give,
        fail: Fail,
    ) -> None:
        self.answerer, self.limits, self.reader, self.thoughts = answerer, limits, reader, thoughts
        self.give, self.fail = give, fail
        self.stream = TextStream(limits.stop)
        self.told = 0  # calls given out
        self.pending: list[TokenLogprob] = []

    def on_token(self, token: int, logits: Callable[[], Any]) -> str | None:
        if self.answerer.ends(token):
            return "stop"
        if self.limits.logprobs is not None:
            self.pending.append(self._logprob(token, logits()))
        self._show(self.stream.feed(self.answerer.bytes_of(token)))
        return "stop" if self.stream.stopped else None

    def on_end(self, why: str | Exception, usage: Usage) -> None:
        if isinstance(why, Exception):
            self.fail(why)
            return
        text, thought = self.stream.end(), ""
        if self.thoughts:
            (thought, text), (last_thought, last) = self.thoughts.feed(text), self.thoughts.end()
            thought, text = thought + last_thought, text + last
        if self.reader:
            text = self.reader.feed(text) + self.reader.end()
        calls = tuple(self.reader.calls[self.told :]) if self.reader else ()
        if self.reader and self.reader.calls and why == "stop":
            why = "tool_calls"
        self.give(Piece(text, calls, tuple(self.pending), cast(FinishReason, why), usage, thought))

    def _show(self, text: str) -> None:
        calls: tuple[Any, ...] = ()
        thought = ""
        if self.thoughts:
            thought, text = self.thoughts.feed(text)
        if self.reader:
            text = self.reader.feed(text)
            calls = tuple(self.reader.calls[self.told :])
            self.told += len(calls)
        if text or calls or thought:
            self.give(Piece(text, calls, tuple(self.pending), reasoning=thought))
            self.pending = []

    def _logprob(self, token: int, logits: Any) -> TokenLogprob:
        of_token, likeliest = sampling.logprobs(logits, token, self.limits.logprobs or 0)
        top = tuple((*self._written(each), value) for each, value in likeliest)
        return TokenLogprob(*self._written(token), of_token, top)

    def _written(self, token: int) -> tuple[str, tuple[int, ...]]:
        raw = self.answerer.bytes_of(token)
        return raw.decode(errors="replace"), tuple(raw)


def embedding_tokens(answerer: Answerer, texts: Sequence[str | Sequence[int]]) -> list[list[int]]:
    return [answerer.tokens(text) if isinstance(text, str) else answerer.checked(text) for text in texts]
