"""A child process as its parent has it: calls and their answers, its log, its silence, and in words what ended it."""

from __future__ import annotations

import itertools
import logging
import os
import queue
import subprocess
import threading
import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import relight.errors
from relight.errors import DeviceLost, RelightError, WorkerError, WorkerLost
from relight.workers.endings import how_it_ended, last_words
from relight.workers.patience import Doing, Patience, crowd, state_of, way_out
from relight.workers.protocol import Message, packed, receive, write
from relight.workers.shared import Both

log = logging.getLogger("relight.workers")

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 2.0
TICK_S = 1.0
"""Silence is counted in pieces of this length, so that what sleeps with the whole machine is not counted."""
MAX_LINE_BYTES = 1 << 16


@dataclass(eq=False)
class Call:
    """One call, and what came for it and was not heard yet: None is the end of the process."""

    number: int
    doing: Doing
    came: queue.SimpleQueue[Message | None] = field(default_factory=queue.SimpleQueue)
    answered: bool = False


class Link:
    """A child process and the pipes to it. Calls may be open side by side: each hears its own answers.

    One that gives no sign for longer than its work may take (relight.workers.patience, by `hang_s`; 0: for ever) is
    ended; a message for any call is a sign. One that even then does not end, because a driver keeps it in the kernel,
    is left behind. How it ended is settled once: whoever comes later is told the same.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        start_deadline_s: float,
        hang_s: float,
        shared: Both | None = None,
    ) -> None:
        """`shared` is for one call at a time alone. Raises WorkerLost when it is not ready within the deadline, or ends
        before."""
        self.name = name
        self.patience = Patience(hang_s)
        self._shared = shared
        self._numbers = itertools.count(1)
        self._signs = 0
        self._lines: deque[str] = deque(maxlen=200)
        self._outbox: queue.SimpleQueue[Sequence[bytes | memoryview] | None] = queue.SimpleQueue()
        self._no_message: Exception | None = None
        self._over = self._killed = False  # nothing more comes; it was ended here, whether it goes or not
        self._ending = ""
        self._settling = threading.Lock()
        start = Call(0, Doing(self.patience, "start", deadline_s=start_deadline_s))
        self._calls = {start.number: start}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(os.environ, environment) | (shared.environment if shared else {}),
            pass_fds=shared.fds if shared else (),
        )
        works = (self._collect_log, self._read, self._write)
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()
        try:
            began = self._receive(start)
            if began.kind != "ready":
                raise WorkerError(f"{name} began with {began.kind!r} instead of 'ready'")
        except BaseException:
            self.kill()
            raise
        del self._calls[start.number]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._killed and self._process.poll() is None

    def open(self, method: str, values: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> Call:
        """Send a call, whose `answers` are then to be heard."""
        given = dict(arrays or {})
        call = Call(next(self._numbers), self.patience.begin(method, values, given))
        pieces = packed(
            Message("call", call.number, {"method": method, **values}, given), self._shared and self._shared.outgoing
        )
        self._calls[call.number] = call
        self._outbox.put(pieces)
        if self._over:  # perhaps since before this call was known
            call.came.put(None)
        return call

    def answers(self, call: Call) -> Generator[Message]:
        """Events, then the result, last. Raises what the child raised, or WorkerLost when it ended instead. Whoever
        stops listening before the result cancels the call."""
        try:
            while not call.answered:
                yield self._receive(call)
        finally:
            self.forget(call)

    def forget(self, call: Call) -> None:
        """Nobody listens to this call any more: it is cancelled where it goes on."""
        if self._calls.pop(call.number, None) and not call.answered:
            self.cancel(call)

    def cancel(self, call: Call) -> None:
        """Ask a call to stop as soon as it can, from any thread."""
        self._outbox.put(packed(Message("cancel", call.number)))

    def _receive(self, call: Call) -> Message:
        """The next message for a call. Raises WorkerLost where the process has ended, or was silent for longer than it
        may be."""
        tick = min(TICK_S, self.patience.seconds / 4 or TICK_S)
        silent, signs = 0.0, self._signs
        while True:
            began = time.monotonic()
            with suppress(queue.Empty):
                message = call.came.get(timeout=tick)
                break
            # What is longer than a tick was no silence of the child: the machine slept, or this process did.
            silent = silent + min(time.monotonic() - began, 2 * tick) if signs == self._signs else 0.0
            signs = self._signs
            self._end_if_hung(call.doing, silent)
        if message is None:
            raise self._lost(call.doing.method)
        call.doing.heard(silent + min(time.monotonic() - began, 2 * tick), message.values)
        call.answered = message.kind in ("result", "error")
        if message.kind == "error":
            raise self._rebuilt(message.values, call.doing.method)
        return message

    def _end_if_hung(self, doing: Doing, silent: float) -> None:
        state = state_of(self.pid)
        if silent < doing.allowed(stopped=state == "stopped") * crowd():
            return
        if doing.deadline_s is not None:
            words = (
                f"{self.name} was not ready after {silent:.1f} s (its process was {state or 'gone'}); a driver that "
                "hangs or a very slow disk does that (--debug shows its log)"
            )
        else:
            words = (
                f"{self.name} gave no sign for {silent:.0f} s during {doing.words} and was ended (its process was "
                f"{state or 'gone'}). {way_out(self.patience.seconds)}"
            )
        log.info("%s", words)
        raise self._given_up(words)

    def _rebuilt(self, values: Mapping[str, Any], method: str) -> Exception:
        """The child's error as the same class here; an unknown one as WorkerError with its traceback in the log."""
        kind = getattr(relight.errors, values["error"], None)
        if kind is DeviceLost:
            return self._given_up(f"{values['message']} in {method}; {self.name} was ended, to begin anew")
        if isinstance(kind, type) and issubclass(kind, RelightError):
            return kind(values["message"])
        log.debug("%s: %s", self.name, values["traceback"])
        return WorkerError(
            f"{self.name} failed in {method}: {values['error']}: {values['message']} (--debug shows where)"
        )

    def _given_up(self, words: str) -> WorkerLost:
        """End it, and let every call know, whether it goes or not."""
        with self._settling:
            self._ending = self._ending or words
        self._end()
        self._nothing_more()
        return WorkerLost(self._ending)

    def _lost(self, method: str) -> WorkerLost:
        """What to raise where nothing more comes."""
        with self._settling:
            self._ending = self._ending or f"{self.name} {self._how_it_ended(method)}"
        return WorkerLost(self._ending)

    def _how_it_ended(self, method: str) -> str:
        self._end(0.0 if self._no_message else STOP_DEADLINE_S)
        if self._no_message:
            return f"sent what is no message during {method}: {self._no_message}"
        if (code := self._process.poll()) is None:
            return f"does not end during {method}: its driver hangs"
        last = last_words(list(self._lines))
        return f"ended during {method} {how_it_ended(code)}" + (f" [last words: {last}]" if last else "")

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            with self._process.stdout as stream:
                while (message := receive(stream, self._shared and self._shared.incoming)) is not None:
                    self._signs += 1
                    if call := self._calls.get(message.call):
                        call.came.put(message)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._no_message = error
        finally:
            self._nothing_more()

    def _nothing_more(self) -> None:
        self._over = True
        for call in list(self._calls.values()):
            call.came.put(None)

    def _collect_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            while raw := stream.readline(MAX_LINE_BYTES):
                line = raw.decode(errors="replace").rstrip()
                self._lines.append(line)
                log.debug("%s: %s", self.name, line)

    def _write(self) -> None:
        """Beside the calls: a process that is stopped does not read."""
        assert self._process.stdin is not None
        with suppress(OSError), self._process.stdin as stream:
            while (pieces := self._outbox.get()) is not None:
                write(stream, pieces)

    def close(self) -> None:
        """Let it go, and end it if it does not."""
        self._outbox.put(None)
        self._end(STOP_DEADLINE_S)

    def kill(self) -> None:
        """End it at once, whatever it does. Calls that wait for it get WorkerLost."""
        self._end()

    def _end(self, grace_s: float = 0.0) -> None:
        """Wait for its end, and bring it about after so many seconds."""
        for deadline_s in (grace_s, STOP_DEADLINE_S):
            try:
                self._process.wait(deadline_s)
                break
            except subprocess.TimeoutExpired:
                self._killed = True
                self._process.kill()
        else:
            log.warning("%s (process %d) does not end: its driver hangs", self.name, self.pid)
            return
        self._outbox.put(None)
        for thread in self._threads:
            thread.join(STOP_DEADLINE_S)


def child_environment(ours: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """Our environment over `defaults`: what the user set wins. ggml must not run a debugger on a child that aborts, and
    the child imports relight from where we did."""
    package_root = os.path.dirname(os.path.dirname(os.path.abspath(relight.errors.__file__)))
    paths = [package_root, *filter(None, ours.get("PYTHONPATH", "").split(os.pathsep))]
    search_path = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
    return {"GGML_NO_BACKTRACE": "1"} | dict(defaults) | dict(ours) | search_path
