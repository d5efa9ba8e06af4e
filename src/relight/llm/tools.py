"""Tool calls in what a model writes. Three ways are common: Hermes and Qwen, Mistral, and Llama 3.1's bare JSON."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

from relight.errors import RequestError
from relight.llm import grammar
from relight.llm.asks import Json, ToolCall
from relight.llm.text import begun

HERMES, HERMES_END = "<tool_call>", "</tool_call>"
MISTRAL, MISTRAL_ARGS = "[TOOL_CALLS]", "[ARGS]"
LLAMA = "<|python_tag|>"
MARKERS = (HERMES, MISTRAL, LLAMA)
SHOWN = frozenset((HERMES, HERMES_END, MISTRAL, MISTRAL_ARGS, LLAMA))
"""Control tokens whose text matters to whoever reads the answer; the others stay unseen."""
MAX_TOOLS, MAX_NAME = 128, 64


def check_tools(tools: Sequence[Json], choice: str) -> None:
    """Raises RequestError for tools not in OpenAI's shape, and for the choice of one that is not there."""
    if len(tools) > MAX_TOOLS:
        raise RequestError(f"tools: {len(tools)}, and {MAX_TOOLS} are allowed")
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
            raise RequestError(f"tools[{index}]: needs a `function` with a name of 1 to {MAX_NAME} characters")
    names = names_of(tools)
    if choice not in ("auto", "none") and not tools:
        raise RequestError(f"tool_choice {choice!r}: there are no tools")
    if choice not in ("auto", "none", "required", *names):
        raise RequestError(f"tool_choice {choice!r}: auto, none, required or one of {', '.join(names)}")


def names_of(tools: Sequence[Json]) -> list[str]:
    return [tool["function"]["name"] for tool in tools]


def forced_grammar(tools: Sequence[Json], choice: str, template: str) -> str | None:
    """The grammar of a call that has to be made, in the way the model's template shows; None where it need not be."""
    if choice in ("auto", "none"):
        return None
    wanted = [tool for tool in tools if choice in ("required", tool["function"]["name"])]
    before, argument, after = "", "arguments", ""
    if HERMES in template:
        before, after = HERMES + "\n", "\n" + HERMES_END
    elif MISTRAL in template:
        before, after = MISTRAL + "[", "]"
    elif '"parameters"' in template:
        argument = "parameters"
    call = grammar.called(grammar.schema_grammar(grammar.tool_schema(wanted, argument)), "call")
    parts = [grammar.quoted(before), "call", grammar.quoted(after)]
    return grammar.bounded("root ::= " + " ".join(part for part in parts if part != '""') + "\n" + call)


class ToolReader:
    """Feed text, get what is text for people; calls gather in `calls`. What may yet be a call is held back."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)
        self.calls: list[ToolCall] = []
        self._held = ""
        self._started = False  # whether any text was given out
        self._in_call = False

    def feed(self, text: str) -> str:
        self._held += text
        shown = ""
        while self._held:
            if self._in_call:
                if not self._read_call(final=False):
                    break
                continue
            if not self._started and self._held.lstrip()[:1] in ("", "{"):
                break  # perhaps Llama 3.1's bare JSON: known at the end
            found = [(at, marker) for marker in MARKERS if (at := self._held.find(marker)) >= 0]
            if found:
                at, _ = min(found)
                shown += self._show(self._held[:at].rstrip() if self.calls or not self._started else self._held[:at])
                self._held, self._in_call = self._held[at:], True
                continue
            keep = max(begun(self._held, marker) for marker in MARKERS)
            ready = self._held[: len(self._held) - keep]
            self._held = self._held[len(self._held) - keep :]
            shown += self._show(ready if not self.calls else ready.strip())
            break
        return shown

    def end(self) -> str:
        """What was held and is no call after all."""
        if self._in_call and self._read_call(final=True):
            self._held = self._held.lstrip()
        elif not self._in_call and not self._started and self._bare_json(self._held):
            self._held = ""
        rest, self._held = self._held, ""
        return rest

    def _show(self, text: str) -> str:
        self._started = self._started or bool(text.strip())
        return text

    def _read_call(self, *, final: bool) -> bool:
        """Whether what is held became calls, or is known to be none; both leave the state of a call."""
        if self._held.startswith(HERMES):
            end = self._held.find(HERMES_END)
            if end < 0 and not final:
                return False
            body = self._held[len(HERMES) : end if end >= 0 else None]
            rest = self._held[end + len(HERMES_END) :] if end >= 0 else ""
        elif not final:
            return False  # the other two go on to the end of the answer
        else:
            body, rest = self._held, ""
        self._in_call = False
        if not self._parse(body):
            self._started = True
            return final
        self._held = rest.lstrip()
        return True

    def _parse(self, body: str) -> bool:
        if body.startswith(MISTRAL):
            return self._mistral(body[len(MISTRAL) :])
        if body.startswith(LLAMA):
            return self._bare_json(body[len(LLAMA) :])
        return self._add_all([read_json(body)])

    def _mistral(self, body: str) -> bool:
        """A list of calls, or name, [ARGS] and the arguments for each."""
        if MISTRAL_ARGS not in body:
            calls = read_json(body)
            return self._add_all(calls if isinstance(calls, list) else [calls])
        calls = []
        for one in body.split(MISTRAL):
            name, _, arguments = one.partition(MISTRAL_ARGS)
            calls.append({"name": name.strip(), "arguments": read_json(arguments)})
        return self._add_all(calls)

    def _bare_json(self, body: str) -> bool:
        """Objects with a name that a tool has, one after another or with semicolons between them."""
        decoder, calls, at = json.JSONDecoder(), [], 0
        body = body.strip()
        while at < len(body):
            try:
                value, at = decoder.raw_decode(body, at)
            except (ValueError, RecursionError):
                return False
            calls.append(value)
            while at < len(body) and body[at] in "; \n\t":
                at += 1
        return self._add_all(calls)

    def _add_all(self, calls: Sequence[Any]) -> bool:
        """Take the calls when each is one: an object with the name of a tool."""
        found: list[ToolCall] = []
        for call in calls:
            name = call.get("name") if isinstance(call, dict) else None
            if name not in self.names:
                return False
            arguments = call.get("arguments", call.get("parameters", {}))
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            found.append(ToolCall(len(self.calls) + len(found), f"call_{secrets.token_hex(12)}", name, text))
        self.calls += found
        return bool(found)


def read_json(text: str) -> Any:
    """None for what is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
