"""A conversation in the terminal: answers as they come, commands that begin with a slash, Ctrl-C stops an answer."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TextIO

from relight.errors import RequestError, WorkerLost
from relight.llm.asks import ChatAsk, Json, Limits, Sampling, Usage
from relight.llm.client import Answer, Llm

HELP = """/help            this list
/clear           forget the conversation, keep what --system said
/system TEXT     forget the conversation and say something else to the model first
/again           another answer to the last question
/exit            end (also Ctrl-D); Ctrl-C stops an answer
A line that ends with \\ goes on in the next."""
DIM = "\x1b[2m{}\x1b[22m"
UNSEEN = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "�")
"""Control characters but tab and newline: a model must not move the cursor or name the window."""


class Talk:
    """Answers go to `out`, everything else to `notes`: the first can be piped."""

    def __init__(
        self,
        llm: Llm,
        sampling: Sampling,
        limits: Limits,
        system: str | None = None,
        out: TextIO | None = None,
        notes: TextIO | None = None,
        template_values: Json | None = None,
    ) -> None:
        self.llm, self.sampling, self.limits, self.template_values = llm, sampling, limits, template_values or {}
        self.out, self.notes = out or sys.stdout, notes or sys.stderr
        self.begin(system)

    def begin(self, system: str | None) -> None:
        self.system = system
        self.messages: list[Json] = [{"role": "system", "content": system}] if system else []

    def run(self, lines: Iterable[str]) -> None:
        held = ""
        for line in lines:
            if line.endswith("\\"):
                held += line[:-1] + "\n"
                continue
            text, held = held + line, ""
            if not text.strip():
                continue
            if text.startswith("/"):
                if not self.command(text):
                    return
            else:
                self.messages.append({"role": "user", "content": text})
                self.answer()

    def command(self, text: str) -> bool:
        """Whether the conversation goes on."""
        name, _, rest = text[1:].partition(" ")
        if name in ("exit", "quit", "bye"):
            return False
        if name == "clear":
            self.begin(self.system)
        elif name == "system":
            self.begin(rest.strip() or None)
        elif name == "again":
            self.again()
        else:
            self.say(HELP if name == "help" else f"/{name}: there is no such command\n{HELP}")
        return True

    def again(self) -> None:
        if self.messages and self.messages[-1]["role"] == "assistant":
            self.messages.pop()
        if self.messages and self.messages[-1]["role"] == "user":
            self.answer()
        else:
            self.say("there is no question yet")

    def answer(self) -> None:
        """Ask and show; a question that cannot be answered is taken back."""
        ask = ChatAsk(
            messages=tuple(self.messages),
            sampling=self.sampling,
            limits=self.limits,
            template_values=self.template_values,
        )
        try:
            answer = self.llm.chat(ask)
            said, thought, usage = self.show(answer)
        except (RequestError, WorkerLost) as error:
            self.say(str(error))
            self.messages.pop()
            return
        self.messages.append({"role": "assistant", "content": said, "reasoning_content": thought})
        self.say(summary(usage) if usage else "[stopped]")

    def show(self, answer: Answer) -> tuple[str, str, Usage | None]:
        """Text shown, what was thought before it, and what it cost; nothing of that where Ctrl-C stopped it."""
        said: list[str] = []
        thought: list[str] = []
        usage = None
        try:
            for piece in answer:
                if piece.reasoning:
                    thought.append(piece.reasoning)
                    self.think(piece.reasoning.translate(UNSEEN))
                if piece.text and thought and not said:
                    self.say("")
                usage = piece.usage
                if piece.text:
                    said.append(piece.text)
                    self.out.write(piece.text.translate(UNSEEN))
                    self.out.flush()
        except KeyboardInterrupt:
            answer.close()
        self.out.write("\n")
        self.out.flush()
        return "".join(said), "".join(thought), usage

    def think(self, text: str) -> None:
        """Thoughts are notes: dimmed in a terminal, and no part of an answer that is piped."""
        self.notes.write(DIM.format(text) if self.notes.isatty() else text)
        self.notes.flush()

    def say(self, text: str) -> None:
        self.notes.write(text + "\n")
        self.notes.flush()


def summary(usage: Usage) -> str:
    rate = f"{usage.tokens_per_second:.1f} tokens/s" if usage.completion_tokens > 1 else ""
    read = usage.prompt_tokens - usage.reused_tokens
    parts = [f"{usage.completion_tokens} tokens", rate, f"{read} read in {usage.prompt_seconds:.2f} s"]
    return f"[{', '.join(part for part in parts if part)}]"
