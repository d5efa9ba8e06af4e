"""`relight chat`: turns, commands, and what Ctrl-C stops."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relight.errors import RequestError
from relight.llm.asks import ChatAsk, Limits, Piece, Sampling, Usage
from relight.llm.talk import Talk

USAGE = Usage(prompt_tokens=9, reused_tokens=4, completion_tokens=3, prompt_seconds=0.5, decode_seconds=0.1)


class FakeAnswer:
    def __init__(self, text: str) -> None:
        self.text = text
        self.closed = False

    def __iter__(self) -> Iterator[Piece]:
        thought, _, text = self.text.rpartition(")")
        if thought:
            yield Piece(reasoning=thought)
        for letter in text:
            if letter == "!":
                raise KeyboardInterrupt
            yield Piece(letter)
        yield Piece(finish_reason="stop", usage=USAGE)

    def close(self) -> None:
        self.closed = True


class FakeLlm:
    """Answers with what it was told, in capitals."""

    def __init__(self) -> None:
        self.asks: list[ChatAsk] = []
        self.answers: list[FakeAnswer] = []

    def chat(self, ask: ChatAsk) -> FakeAnswer:
        self.asks.append(ask)
        said = ask.messages[-1]["content"]
        if said == "too long":
            raise RequestError("the prompt has 9 tokens")
        self.answers.append(FakeAnswer(said.upper()))
        return self.answers[-1]


def talk(*lines: str, system: str | None = None) -> tuple[FakeLlm, str, str]:
    llm: Any = FakeLlm()
    out, notes = io.StringIO(), io.StringIO()
    Talk(llm, Sampling(), Limits(), system, out, notes).run(lines)
    return llm, out.getvalue(), notes.getvalue()


def said(ask: ChatAsk) -> list[str]:
    return [message["content"] for message in ask.messages]


def test_every_turn_carries_those_before() -> None:
    llm, out, notes = talk("one", "two", system="brief")
    assert out == "ONE\nTWO\n"
    assert said(llm.asks[1]) == ["brief", "one", "ONE", "two"]
    assert "[3 tokens, 20.0 tokens/s, 5 read in 0.50 s]" in notes


def test_clear_forgets_all_but_the_system_message() -> None:
    llm, _, _ = talk("one", "/clear", "two", "/system other", "three", system="brief")
    assert [said(ask) for ask in llm.asks] == [["brief", "one"], ["brief", "two"], ["other", "three"]]


def test_again_asks_the_last_question_anew() -> None:
    llm, _, notes = talk("/again", "one", "/again")
    assert [said(ask) for ask in llm.asks] == [["one"], ["one"]]
    assert "there is no question yet" in notes


def test_thoughts_are_notes_and_are_there_for_templates_that_want_them() -> None:
    llm, out, notes = talk("hm)yes", "on")
    assert out == "YES\nON\n" and notes.startswith("HM\n")
    assert llm.asks[1].messages[1] == {"role": "assistant", "content": "YES", "reasoning_content": "HM"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_thoughts_are_dimmed_in_a_terminal_and_can_be_switched_off() -> None:
    llm: Any = FakeLlm()
    out, notes = Terminal(), Terminal()
    Talk(llm, Sampling(), Limits(), None, out, notes, {"enable_thinking": False}).run(["hm)yes"])
    assert notes.getvalue().startswith("\x1b[2mHM\x1b[22m\n") and out.getvalue() == "YES\n"
    assert llm.asks[0].template_values == {"enable_thinking": False}


def test_exit_ends_and_unknown_commands_are_told() -> None:
    llm, _, notes = talk("/nonsense", "/exit", "one")
    assert llm.asks == []
    assert "/nonsense: there is no such command" in notes


def test_a_backslash_joins_lines() -> None:
    llm, _, _ = talk("one\\", "two", "  ")
    assert said(llm.asks[0]) == ["one\ntwo"]


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said() -> None:
    llm, out, notes = talk("ab!cd", "next")
    assert out.startswith("AB\n")
    assert "[stopped]" in notes
    assert llm.answers[0].closed
    assert said(llm.asks[1]) == ["ab!cd", "AB", "next"]


def test_a_question_that_cannot_be_answered_is_taken_back() -> None:
    llm, _, notes = talk("too long", "short")
    assert "the prompt has 9 tokens" in notes
    assert said(llm.asks[1]) == ["short"]


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert talk("\x1b[2J\x07ok\tso")[1] == "\ufffd[2J\ufffdOK\tSO\n"


def test_the_command_answers_from_a_file(model: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "relight",
        "chat",
        str(model),
        "--max-tokens",
        "5",
        "--temp",
        "0",
        "--threads",
        "1",
    ]
    done = subprocess.run(command, input="hello\n/exit\n", capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.endswith("\n")
    assert "tiny" in done.stderr
    assert "/help lists" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"), [(["--ctx", "-5"], "context -5"), (["--temp", "nan"], "temperature nan")]
)
def test_wrong_numbers_are_told_before_anything_is_loaded(model: Path, arguments: list[str], words: str) -> None:
    command = [sys.executable, "-m", "relight", "chat", str(model), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, words in done.stderr) == (2, True)
