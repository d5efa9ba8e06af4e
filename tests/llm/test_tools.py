"""Tool calls as Hermes, Qwen, Mistral and Llama write them, in pieces of any size."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relight.errors import RequestError
from relight.llm.tools import ToolReader, check_tools, forced_grammar

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
HERMES = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
WRITTEN = {
    "hermes": HERMES,
    "qwen, no end": '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}',
    "mistral list": '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Köln"}}]',
    "mistral args": '[TOOL_CALLS]weather[ARGS]{"city": "Köln"}',
    "llama": '{"name": "weather", "parameters": {"city": "Köln"}}',
    "llama, tagged": '<|python_tag|>{"type": "function", "name": "weather", "parameters": {"city": "Köln"}}',
    "arguments as text": '<tool_call>{"name": "weather", "arguments": "{\\"city\\": \\"Köln\\"}"}</tool_call>',
}


def read(text: str, size: int) -> tuple[str, list[tuple[str, Any]]]:
    reader = ToolReader(["weather", "clock"])
    shown = "".join(reader.feed(text[i : i + size]) for i in range(0, len(text), size)) + reader.end()
    return shown, [(call.name, json.loads(call.arguments)) for call in reader.calls]


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_a_call_is_read_and_not_shown(text: str, size: int) -> None:
    assert read(text, size) == ("", [("weather", {"city": "Köln"})])


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_text_before_calls_is_shown_and_calls_are_numbered(size: int) -> None:
    reader = ToolReader(["weather", "clock"])
    text = f'Let me see.{HERMES}\n<tool_call>{{"name": "clock", "arguments": {{}}}}</tool_call>'
    shown = "".join(reader.feed(text[i : i + size]) for i in range(0, len(text), size)) + reader.end()
    assert (shown, [(call.index, call.name) for call in reader.calls]) == (
        "Let me see.",
        [(0, "weather"), (1, "clock")],
    )
    assert len({call.id for call in reader.calls}) == 2


@pytest.mark.parametrize("size", [1, 1000])
def test_several_calls_of_llama_and_mistral_are_told_apart(size: int) -> None:
    llama = '{"name": "weather", "parameters": {"city": "A"}}; {"name": "clock", "parameters": {}}'
    mistral = '[TOOL_CALLS]weather[ARGS]{"city": "A"}[TOOL_CALLS]clock[ARGS]{}'
    assert read(llama, size) == read(mistral, size) == ("", [("weather", {"city": "A"}), ("clock", {})])


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    "text",
    [
        '{"name": "nobody", "parameters": {}}',
        '{"answer": 42}',
        "{ not JSON",
        "<tool_call>not JSON</tool_call> and more",
        "a < b and [TOOL",
        "[TOOL_CALLS]nobody[ARGS]{}",
        "plain text",
        "  {'single': 1}",
        "[" * 50,
    ],
)
def test_what_is_no_call_is_shown_as_it_is(text: str, size: int) -> None:
    assert read(text, size) == (text, [])


def test_json_too_deep_is_text() -> None:
    text = "<tool_call>" + "[" * 100_000 + "</tool_call>"
    assert read(text, 100_000)[1] == []


@pytest.mark.parametrize(
    ("tools", "choice", "words"),
    [
        ([{"type": "function"}], "auto", r"tools\[0\]"),
        ([CLOCK], "weather", "tool_choice 'weather'"),
        ([], "required", "there are no tools"),
        ([{"function": {"name": ""}}], "auto", "name of 1 to"),
        ([CLOCK] * 200, "auto", "128 are allowed"),
    ],
)
def test_wrong_tools_are_refused_in_words(tools: list[Any], choice: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        check_tools(tools, choice)


@pytest.mark.parametrize(
    ("template", "begins"),
    [("... <tool_call> ...", r'root ::= "<tool_call>\n" call "\n</tool_call>"'), ("x", "root ::= call")],
)
def test_a_forced_call_is_written_as_the_template_shows_it(template: str, begins: str) -> None:
    grammar = forced_grammar([WEATHER, CLOCK], "required", template)
    assert grammar is not None
    assert grammar.splitlines()[0] == begins
    assert forced_grammar([WEATHER], "auto", template) is None
