"""What was thought and what was said, however the text is cut, and what of it the next turn's prompt gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from asking import NO_END, SETTINGS, whole
from tiny_model import CHATML, write_model

from relight.llm import grammar
from relight.llm.asks import ChatAsk, Limits, Sampling
from relight.llm.client import Llm
from relight.llm.reasoning import Channels, Tags, ThoughtReader, after_thoughts, reader_for, template_values
from relight.llm.templates import ChatTemplate

QWEN = (
    "{% for m in messages %}{% if m.role == 'assistant' and m.reasoning_content %}<think>{{ m.reasoning_content }}"
    "</think>{% endif %}{{ m.content }};{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)
PLAIN = "{% for m in messages %}{{ m.content }};{% endfor %}"
HARMONY = "<|start|>assistant<|channel|>analysis<|message|>"
DEEP: list[dict[str, Any]] = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?", "reasoning_content": "A greeting."},
    {"role": "user", "content": "On"},
]


def read(reader: ThoughtReader, text: str, length: int) -> tuple[str, str]:
    """In pieces of so many characters."""
    parts = [reader.feed(text[at : at + length]) for at in range(0, len(text), length)] + [reader.end()]
    return "".join(thought for thought, _ in parts), "".join(said for _, said in parts)


@pytest.mark.parametrize("length", [1, 3, 7, 100])
@pytest.mark.parametrize(
    ("text", "inside", "thought", "said"),
    [
        ("<think>\nHm, 1 < 2.\n</think>\n\nYes. \n", False, "Hm, 1 < 2.", "Yes. \n"),
        ("Hm </thin no.\n</think>Yes", True, "Hm </thin no.", "Yes"),
        (" \nYes <think> no", False, "", " \nYes <think> no"),
        ("<think>", False, "", ""),
        ("<thi", False, "", "<thi"),
        ("\n Hm \n", True, "Hm", ""),
        ("<think></think>", False, "", ""),
        ("<think> a\n\n b </think> c </think>", False, "a\n\n b", "c </think>"),
    ],
)
def test_thoughts_are_told_from_answers_wherever_the_text_is_cut(
    text: str, inside: bool, thought: str, said: str, length: int
) -> None:
    assert read(Tags("<think>", "</think>", inside=inside), text, length) == (thought, said)


@pytest.mark.parametrize("length", [1, 5, 200])
def test_channels_are_thoughts_answers_and_calls(length: int) -> None:
    text = (
        "<|channel|>analysis<|message|>Hm <b.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|end|>"
        '<|start|>assistant<|channel|>commentary to=functions.find <|constrain|>json<|message|>{"a": 1}<|call|>'
    )
    call = '<tool_call>{"name": "find", "arguments": {"a": 1}}</tool_call>'
    assert read(Channels(), text, length) == ("Hm <b.", "Yes." + call)
    assert read(Channels(), "no channels", length) == ("", "no channels")


def test_nothing_is_held_back_for_long() -> None:
    tags = Tags("<think>", "</think>", inside=True)
    assert [tags.feed(piece) for piece in ("One", " two", "</", "think>", "\nYes")] == [
        ("One", ""),
        (" two", ""),
        ("", ""),
        ("", ""),
        ("", "Yes"),
    ]


def test_the_prompt_says_whether_the_model_thinks_already() -> None:
    assert read(reader_for(QWEN, "Hi;<think>\n"), "Hm</think>Yes", 4) == ("Hm", "Yes")
    assert read(reader_for(QWEN, "<think>\n\n</think>\n\n"), "Yes", 4) == ("", "Yes")
    assert read(reader_for("[/THINK]", ""), "[THINK]Hm[/THINK]Yes", 4) == ("Hm", "Yes")
    assert isinstance(reader_for(HARMONY, ""), Channels)


def test_earlier_thoughts_go_only_to_templates_that_ask() -> None:
    assert ChatTemplate(QWEN).render(DEEP) == "Hi;<think>A greeting.</think>Yes?;On;"
    assert ChatTemplate(PLAIN).render(DEEP) == "Hi;Yes?;On;"
    inline = [DEEP[0], {"role": "assistant", "content": "<think>\nA greeting.</think>\n\nYes?"}]
    assert ChatTemplate(PLAIN).render(inline) == "Hi;Yes?;"


def test_switches_reach_the_template() -> None:
    assert template_values("none", {}) == {"reasoning_effort": "low", "enable_thinking": False}
    assert template_values("high", {"enable_thinking": False}) == {"reasoning_effort": "high", "enable_thinking": False}
    assert template_values(None, {}) == {}
    assert ChatTemplate(QWEN).render(DEEP[:1], values=template_values("none", {})).endswith("</think>\n\n")


def test_a_grammar_lets_the_model_think_first() -> None:
    answer = grammar.schema_grammar({"const": "yes"})
    assert after_thoughts(answer, PLAIN, "") == answer
    assert after_thoughts(answer, QWEN, "x").startswith('root ::= ("<think>" ')
    opened = after_thoughts(answer, QWEN, "x<think>\n")
    assert opened.startswith('root ::= ([^<] | "<" [^/])* "</think>" [ \\n]* after-thoughts\n')
    assert "\nafter-thoughts ::= " in opened


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    template = CHATML + "{% if add_generation_prompt and enable_thinking is not false %}{{ '<think>\n' }}{% endif %}"
    return write_model(tmp_path_factory.mktemp("thinking") / "thinking.gguf", template=template)


def test_a_model_thinks_before_it_answers(thinking: Path) -> None:
    message = {"role": "user", "content": "hello"}
    how = Sampling(temperature=0, logit_bias=NO_END)
    slashes = {ord(letter) - 33: 300.0 for letter in "</"}  # of the vocabulary, as it numbers its bytes
    yes = {"type": "json_schema", "json_schema": {"schema": {"const": "yes"}}}
    with Llm() as llm:
        llm.load(thinking, SETTINGS)
        only = whole(llm.chat(ChatAsk(messages=(message,), sampling=how, limits=Limits(max_tokens=9))))
        thought = "".join(piece.reasoning for piece in only.pieces)
        assert thought and not only.text and only.finish == "length"
        off = {"enable_thinking": False}
        ask = ChatAsk(messages=(message,), sampling=how, limits=Limits(max_tokens=9), template_values=off)
        at_once = whole(llm.chat(ask))
        assert at_once.text and not any(piece.reasoning for piece in at_once.pieces)
        closes = Sampling(temperature=20, top_k=0, top_p=1, min_p=0, seed=3, logit_bias=NO_END | slashes)
        ask = ChatAsk(messages=(message,), sampling=closes, limits=Limits(max_tokens=200), response_format=yes)
        both = whole(llm.chat(ask))
        assert (both.text.strip(), both.finish) == ('"yes"', "stop")
        assert any(piece.reasoning for piece in both.pieces)
