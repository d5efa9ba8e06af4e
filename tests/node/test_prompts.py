"""What a model has yet to read of a conversation, told by what it was asked before."""

from __future__ import annotations

from relight.llm.asks import ChatAsk, CompletionAsk
from relight.node import prompts
from relight.node.prompts import BYTES_A_TOKEN, Prompts

TOOL = {"type": "function", "function": {"name": "look_up", "description": "finds " + "things " * 100}}


def ask(*said: str, **more: object) -> ChatAsk:
    """The turns alternate, the user's first."""
    roles = ("user", "assistant")
    return ChatAsk(messages=tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(said)), **more)  # type: ignore[arg-type]


def words(tokens: int) -> str:
    return "wood" * tokens


def test_a_new_conversation_is_unread_with_its_tools() -> None:
    assert 1000 <= Prompts().unread("m", ask(words(1000))) < 1020
    with_tools = Prompts().unread("m", ask(words(1000), tools=(TOOL,)))
    assert 1170 < with_tools < 1250


def test_of_the_next_turn_only_what_was_said_since_the_answer_is_unread() -> None:
    ours = Prompts()
    ours.read("m", ask(words(1000)))
    assert ours.unread("m", ask(words(1000))) == 0
    assert 50 <= ours.unread("m", ask(words(1000), words(300), words(50))) < 70
    edited = ask(words(999), words(300), words(50))
    assert ours.unread("m", edited) > 1300
    assert ours.unread("other", ask(words(1000))) >= 1000
    assert ours.unread("m", ask(words(1000), tools=(TOOL,))) > 1000, "tools come before all that is said"


def test_the_longest_beginning_counts() -> None:
    ours = Prompts()
    ours.read("m", ask(words(10)))
    ours.read("m", ask(words(10), words(10), words(1000)))
    assert ours.unread("m", ask(words(10), words(10), words(1000), words(10), words(20))) < 40


def test_texts_and_tokens_to_go_on_with_are_read_once() -> None:
    ours, text, tokens = Prompts(), CompletionAsk(prompt=words(300)), CompletionAsk(prompt=(1, 2, 3))
    assert ours.unread("m", text) == len(words(300)) // BYTES_A_TOKEN and ours.unread("m", tokens) == 3
    ours.read("m", text)
    assert ours.unread("m", text) == 0 and ours.unread("m", tokens) == 3


def test_the_oldest_are_forgotten() -> None:
    ours = Prompts()
    for number in range(prompts.REMEMBERED + 1):
        ours.read("m", ask(f"{number}"))
    assert ours.unread("m", ask("0")) > 0 and ours.unread("m", ask("1")) == 0
