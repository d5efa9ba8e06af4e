"""A program under comparison in a process of its own, warm between pictures: one JSON line in, one line out.

The child is one of the scripts `*_side.py`; it answers on the stdout it was started with and sends everything that
libraries print to stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCE = HERE.parent / "src"
LOG_LINES = 12

Values = dict[str, Any]


class SideError(Exception):
    """The child died or refused; carries the last lines of its log."""


class Side:
    """`script` is started with `settings`, which it answers when it is ready for `ask`."""

    def __init__(self, script: str, settings: Values, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.name = script.removesuffix("_side.py")
        self.log = log
        paths = os.pathsep.join(filter(None, [str(HERE), str(SOURCE), os.environ.get("PYTHONPATH")]))
        env = os.environ | dict(environment or {}) | {"PYTHONPATH": paths}
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=env,
            )
        try:
            self.ready = self.ask(settings)
        except SideError:
            self.close()
            raise

    def ask(self, values: Values) -> Values:
        """Raises SideError when the child ends or answers with an error."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(values).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            status = self.process.wait()
            raise SideError(f"{self.name} ended with status {status}:\n{self.last_words()}")
        answer: Values = json.loads(line)
        if "error" in answer:
            raise SideError(f"{self.name}: {answer['error']}\n{self.last_words()}")
        return answer

    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])

    def close(self) -> None:
        """Ends the child after what it does now."""
        assert self.process.stdin and self.process.stdout
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def serve(start: Callable[[Values], tuple[Values, Callable[[Values], Values]]]) -> None:
    """The child's main: `start` takes the settings and gives its first answer and the function for all others."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(values: Values) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    lines = iter(sys.stdin.readline, "")
    try:
        first, reply = start(json.loads(next(lines)))
        answer(first)
        for line in lines:
            answer(reply(json.loads(line)))
    except Exception as error:
        answer({"error": f"{type(error).__name__}: {error}"})
        raise
