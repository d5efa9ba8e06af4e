"""What a model thinks before it answers, told apart from the answer: in tags, or in channels as gpt-oss has them."""

from __future__ import annotations

import json
import re
from typing import Protocol

from relight.llm import grammar
from relight.llm.asks import Json
from relight.llm.text import begun
from relight.llm.tools import HERMES, HERMES_END

PAIRS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
USUAL = PAIRS[0]
CHANNEL, MESSAGE, START = "<|channel|>", "<|message|>", "<|start|>"
ENDS = ("<|end|>", "<|call|>", START, CHANNEL)
AFTER = "after-thoughts"
CALLED = re.compile(r"to=functions\.([\w.-]+)")
EFFORTS = {"none": "low", "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high"}
"""What clients may ask for, and the nearest of those that templates know."""


class ThoughtReader(Protocol):
    """Feed text, get what was thought and what was said; what may yet be a tag is held back."""

    def feed(self, text: str) -> tuple[str, str]: ...
    def end(self) -> tuple[str, str]: ...


def pair_of(template: str) -> tuple[str, str] | None:
    """The tags that a template knows."""
    return next((pair for pair in PAIRS if pair[0] in template or pair[1] in template), None)


def reader_for(template: str, prompt: str) -> ThoughtReader:
    """For the answer to a prompt made by a template, which may end with a tag that it has opened."""
    if CHANNEL in template:
        return Channels()
    pair = pair_of(template) or USUAL
    return Tags(*pair, inside=prompt.rstrip().endswith(pair[0]))


def control_tokens(template: str) -> frozenset[str]:
    """Those whose text a reader has to see."""
    if CHANNEL in template:
        return frozenset((CHANNEL, MESSAGE, "<|constrain|>", *ENDS))
    return frozenset(pair_of(template) or USUAL)


def template_values(effort: str | None, given: Json) -> Json:
    """What templates are told: `enable_thinking` and `reasoning_effort`, unless the request names them itself."""
    told = {} if effort is None else {"reasoning_effort": EFFORTS[effort], "enable_thinking": effort != "none"}
    return told | given


def after_thoughts(answer: str, template: str, prompt: str) -> str:
    """A grammar that keeps the answer to `answer` and lets the model think before it. Channels are no answer to a
    grammar: a model that has them answers at once."""
    pair = pair_of(template)
    if pair is None:
        return answer
    opening, closing = pair
    first = closing[0]
    inner = f"([^{_escaped(first)}] | {grammar.quoted(first)} [^{_escaped(closing[1])}])*"
    thoughts = f"{inner} {grammar.quoted(closing)} [ \\n]*"
    if not prompt.rstrip().endswith(opening):
        thoughts = f"({grammar.quoted(opening)} {thoughts})?"
    return grammar.bounded(f"root ::= {thoughts} {AFTER}\n" + grammar.called(answer, AFTER))


def _escaped(letter: str) -> str:
    return "\\" + letter if letter in "[]\\^-" else letter


def plain(message: Json, template: str) -> Json:
    """A message of the assistant as the template wants it: earlier thoughts only where it asks for them."""
    thought = message.get("reasoning_content")
    kept = {name: value for name, value in message.items() if name not in ("reasoning_content", "thinking")}
    if isinstance(thought, str) and thought:
        kept |= {name: thought for name in ("reasoning_content", "thinking") if name in template}
    pair = pair_of(template) or USUAL
    content = kept.get("content")
    if isinstance(content, str) and pair[1] not in template and content.lstrip().startswith(pair[0]):
        kept["content"] = content.partition(pair[1])[2].lstrip()
    return kept


class Tags:
    """Thoughts come first, from `opening` (or from the beginning, `inside`) to `closing`."""

    def __init__(self, opening: str, closing: str, *, inside: bool) -> None:
        self.opening, self.closing = opening, closing
        self._state = "thinks" if inside else "begins"
        self._held = ""
        self._blank = True  # nothing but white space was given out in this state

    def feed(self, text: str) -> tuple[str, str]:
        self._held += text
        if self._state == "begins":
            self._begin()
        thought = self._think() if self._state == "thinks" else ""
        return thought, self._say() if self._state == "says" else ""

    def end(self) -> tuple[str, str]:
        rest, self._held = self._held, ""
        return (rest.strip() if self._blank else rest.rstrip(), "") if self._state == "thinks" else ("", rest)

    def _begin(self) -> None:
        start = self._held.lstrip()
        if start.startswith(self.opening):
            self._state, self._held = "thinks", start[len(self.opening) :]
        elif not self.opening.startswith(start):
            self._state, self._blank = "says", False

    def _think(self) -> str:
        thought, found, rest = self._held.partition(self.closing)
        if found:
            self._held = rest
        else:
            keep = begun(thought, self.closing)
            thought, self._held = thought[: len(thought) - keep], thought[len(thought) - keep :]
        if self._blank:
            thought = thought.lstrip()
        self._blank = self._blank and not thought
        if found:
            self._state, self._blank = "says", True
            return thought.rstrip()
        seen = thought.rstrip()
        self._held = thought[len(seen) :] + self._held
        return seen

    def _say(self) -> str:
        said, self._held = self._held, ""
        if self._blank:
            said = said.lstrip()
        self._blank = self._blank and not said
        return said


class Channels:
    """`analysis` is thought, `final` and what has no addressee is said; calls of functions become Hermes' tags."""

    def __init__(self) -> None:
        self._held = ""
        self._header: str | None = None  # of the channel that is open
        self._called = ""

    def feed(self, text: str) -> tuple[str, str]:
        self._held += text
        thought = said = ""
        while self._held:
            if self._header is None:
                if not self._open():
                    break
                continue
            at, mark = min(((at, m) for m in ENDS if (at := self._held.find(m)) >= 0), default=(-1, ""))
            keep = max(begun(self._held, m) for m in ENDS) if at < 0 else 0
            body = self._held[:at] if at >= 0 else self._held[: len(self._held) - keep]
            self._held = self._held[len(body) :]
            more = self._heard(body)
            thought, said = thought + more[0], said + more[1]
            if at < 0:
                break
            said += self._close()
            self._held = self._held if mark == CHANNEL else self._held[len(mark) :]
        return thought, said

    def end(self) -> tuple[str, str]:
        rest, self._held = self._held, ""
        if self._header is None:
            return "", "" if CHANNEL in rest or rest in ("assistant", "") else rest
        thought, said = self._heard(rest)
        return thought, said + self._close()

    def _open(self) -> bool:
        """Whether the header of a channel is whole; text before any is said."""
        at = self._held.find(CHANNEL)
        ready = self._held.find(MESSAGE, max(at, 0))
        if at < 0 or ready < 0:
            return False
        self._header, self._held = self._held[at + len(CHANNEL) : ready], self._held[ready + len(MESSAGE) :]
        return True

    def _heard(self, body: str) -> tuple[str, str]:
        header = self._header or ""
        if CALLED.search(header):
            self._called += body
            return "", ""
        return (body, "") if header.startswith("analysis") else ("", body)

    def _close(self) -> str:
        found, self._header = CALLED.search(self._header or ""), None
        body, self._called = self._called, ""
        if not found:
            return ""
        try:
            arguments = json.loads(body)
        except (ValueError, RecursionError):
            arguments = body
        return f"{HERMES}{json.dumps({'name': found[1], 'arguments': arguments})}{HERMES_END}"
