"""The pipe to the language model's process: several calls at once, each hears its own answers."""

from __future__ import annotations

import itertools
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import relight.errors
from relight.errors import RelightError, WorkerError, WorkerLost
from relight.workers.endings import how_it_ended, last_words
from relight.workers.patience import DEFAULT_S, UNKNOWN, crowd, state_of, way_out
from relight.workers.process import STOP_DEADLINE_S, TICK_S, child_environment
from relight.workers.protocol import Message, receive, send

log = logging.getLogger("relight.llm")

COMMAND = (sys.executable, "-u", "-P", "-m", "relight.llm.child")
MAX_LINE_BYTES = 1 << 16


class Link:
    """One child process. Raises WorkerError when it is not ready in time, WorkerLost when it ends before.

    Where a call is open, the process gives a sign after each step. One that gives none for ten times `hang_s` (0: for
    ever), or is stopped for as long as `hang_s`, is ended: a part of a prompt can take an old processor minutes, and
    drivers compile shaders for as long.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        start_deadline_s: float,
        command: Sequence[str] = COMMAND,
        *,
        hang_s: float = DEFAULT_S,
    ) -> None:
        self._numbers = itertools.count(1)
        self._answers: dict[int, queue.SimpleQueue[Message | None]] = {}
        self._sending = threading.Lock()
        self._lines: deque[str] = deque(maxlen=200)
        self._hang_s, self._signs, self._hung = hang_s, 0, ""
        self._ended = threading.Event()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(os.environ, environment),
        )
        ready: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._answers[0] = ready
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._collect_log, self._read)]
        for thread in self._threads:
            thread.start()
        try:
            message = ready.get(timeout=start_deadline_s)
        except queue.Empty:
            self.kill()
            raise WorkerError(
                f"the language model's process was not ready after {start_deadline_s:g} s; a driver that hangs or a "
                "very slow disk does that (--debug shows its log)"
            ) from None
        if message is None:
            error = self._lost("start")
            self._reap()
            raise error
        self._answers.pop(0)
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._hung and self._process.poll() is None

    def open(self, method: str, values: Mapping[str, Any]) -> int:
        """Send a call; its number, for `answers`."""
        number = next(self._numbers)
        self._answers[number] = queue.SimpleQueue()
        try:
            self._send(Message("call", number, {"method": method, **values}), method)
        except BaseException:
            self._answers.pop(number, None)
            raise
        if not self.alive:
            self._answers[number].put(None)  # the reader may have gone before this call was known
        return number

    def answers(self, number: int, doing: str) -> Iterator[Message]:
        """Events, then the result, last. Raises what the child raised, or WorkerLost when it ended instead. Whoever
        stops listening before the result cancels the call."""
        answers, done = self._answers[number], False
        try:
            while not done:
                message = answers.get()
                done = message is None or message.kind in ("result", "error")
                if message is None:
                    raise self._lost(doing)
                if message.kind == "error":
                    raise self._rebuilt(message.values, doing)
                yield message
        finally:
            if done:
                self._answers.pop(number, None)
            else:
                self.forget(number)

    def forget(self, number: int) -> None:
        """Nobody listens to this call any more: it is cancelled where it goes on."""
        if self._answers.pop(number, None) is not None:
            self.cancel(number)

    def cancel(self, number: int) -> None:
        with suppress(WorkerLost):  # what is gone does no more of it
            self._send(Message("cancel", number), "cancel")

    def _send(self, message: Message, doing: str) -> None:
        assert self._process.stdin is not None
        try:
            with self._sending:
                send(self._process.stdin, message)
        except (OSError, ValueError) as error:  # ValueError: the pipe was closed here
            raise self._lost(doing) from error

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while (message := receive(self._process.stdout)) is not None:
                self._signs += 1
                if answers := self._answers.get(message.call):
                    answers.put(message)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.debug("the language model's process sent what is no message: %s", error)
            self._process.kill()
        finally:
            self._ended.set()
            self._give_up()

    def _give_up(self) -> None:
        for answers in list(self._answers.values()):
            answers.put(None)

    def _watch(self) -> None:
        """Silence is counted in pieces of a tick, so that what sleeps with the whole machine is not counted."""
        tick = min(TICK_S, self._hang_s / 4 or TICK_S)
        silent, signs, then = 0.0, self._signs, time.monotonic()
        while not self._ended.wait(tick):
            now = time.monotonic()
            silent, then = silent + min(now - then, 2 * tick), now
            if signs != self._signs or not self._answers or not self._hang_s:
                silent, signs = 0.0, self._signs
            elif silent >= self._hang_s:
                self._end_if_hung(silent)

    def _end_if_hung(self, silent: float) -> None:
        state = state_of(self.pid)
        if silent < self._hang_s * (1 if state == "stopped" else UNKNOWN) * crowd():
            return
        self._hung = (
            f"gave no sign for {silent:.0f} s and was ended (it was {state or 'gone'}). {way_out(self._hang_s)}"
        )
        log.warning("the language model's process %s", self._hung)
        self._ended.set()
        self._process.kill()
        self._give_up()  # whether it ends or not: a driver can keep it in the kernel

    def _lost(self, doing: str) -> WorkerLost:
        if self._hung:
            return WorkerLost(f"the language model's process, during {doing}, {self._hung}")
        try:
            code = self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._threads[0].join(STOP_DEADLINE_S)
        last = last_words(list(self._lines))
        said = f" [last words: {last}]" if last else ""
        return WorkerLost(f"the language model's process ended during {doing} {how_it_ended(code)}{said}")

    def _rebuilt(self, values: Mapping[str, Any], doing: str) -> Exception:
        kind = getattr(relight.errors, values["error"], None)
        if isinstance(kind, type) and issubclass(kind, RelightError):
            return kind(values["message"])
        log.debug("llm: %s", values["traceback"])
        return WorkerError(
            f"the language model failed in {doing}: {values['error']}: {values['message']} (--debug shows where)"
        )

    def _collect_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            while raw := stream.readline(MAX_LINE_BYTES):
                line = raw.decode(errors="replace").rstrip()
                self._lines.append(line)
                log.debug("llm: %s", line)

    def close(self) -> None:
        """Let it go, and end it if it does not."""
        with suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()

    def kill(self) -> None:
        """End it at once, whatever it does. Calls that wait for it get WorkerLost."""
        self._process.kill()
        self._reap()

    def _reap(self) -> None:
        try:
            self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            log.warning("the language model's process (%d) does not end: its driver hangs", self.pid)
            return
        for thread in self._threads:
            thread.join(STOP_DEADLINE_S)
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what was not sent yet reaches nobody
                if pipe is not None:
                    pipe.close()
