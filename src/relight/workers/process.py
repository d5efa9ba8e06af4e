"""The parent's side of a worker: start, call, cancel, and say in words what ended it."""

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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

import relight.errors
from relight.errors import DeviceLost, RelightError, WorkerError, WorkerLost
from relight.workers.endings import how_it_ended, last_words
from relight.workers.patience import DEFAULT_S, Doing, Patience, crowd, state_of, way_out
from relight.workers.protocol import Message, packed, receive, write

log = logging.getLogger("relight.workers")

COMMAND = (sys.executable, "-u", "-P", "-m", "relight.workers.child")
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 2.0
TICK_S = 1.0
"""A worker's silence is counted in pieces of this length, so that what sleeps with the whole machine is not counted."""
MAX_LINE_BYTES = 1 << 16
Event = Callable[[dict[str, Any]], None]
"""Called with what an event says, arrays among the values."""
NOBODY = object()


class Worker:
    """A child process that owns one device. `call` may be used from several threads; calls wait for one another.

    One that gives no sign for longer than its work may take (relight.workers.patience, by `hang_s`; 0: for ever) is
    ended. One that even then does not end, because a driver keeps it in the kernel, is left behind.
    """

    def __init__(
        self,
        name: str,
        environment: Mapping[str, str] | None = None,
        *,
        command: Sequence[str] | None = None,
        start_deadline_s: float = START_DEADLINE_S,
        hang_s: float = DEFAULT_S,
    ) -> None:
        """Raises WorkerLost when it is not ready within the deadline, or ends before."""
        self.name = name
        self._numbers = itertools.count(1)
        self._current: tuple[int, object] = (0, None)  # number and owner of the running call; 0 between calls
        self._lock = threading.Lock()
        self._lines: deque[str] = deque(maxlen=200)
        self._patience = Patience(hang_s)
        self._culprit: object = NOBODY  # whose call it ended under
        self._ending = ""  # and how
        self._left_behind = False
        self._messages: queue.SimpleQueue[Message | Exception | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Sequence[bytes | memoryview] | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            command or COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(os.environ, environment or {}),
        )
        works = (self._collect_log, self._read, self._write)
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()
        try:
            self._wait_until_ready(start_deadline_s)
        except BaseException:
            self.kill()
            raise

    def _wait_until_ready(self, deadline_s: float) -> None:
        message = self._receive(Doing(self._patience, "start", deadline_s=deadline_s), None)
        if message.kind != "ready":
            raise WorkerError(f"worker {self.name} began with {message.kind!r} instead of 'ready'")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._left_behind and self._process.poll() is None

    def call(
        self,
        method: str,
        values: Mapping[str, Any] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        on_event: Event | None = None,
        owner: object = None,
    ) -> Message:
        """The answer to a call. Raises what the worker raised, or WorkerLost when it ended instead. `owner` is whoever
        may cancel it, and to blame where the worker ends."""
        with self._lock:
            number = next(self._numbers)
            self._current = (number, owner)
            given = dict(arrays or {})
            doing = self._patience.begin(method, values or {}, given)
            try:
                self._outbox.put(packed(Message("call", number, {"method": method, **(values or {})}, given)))
                answer = self._answer(number, doing, on_event, owner)
            finally:
                self._current = (0, None)
        self._patience.answered(method, values or {}, answer.values)
        return answer

    def _answer(self, number: int, doing: Doing, on_event: Event | None, owner: object) -> Message:
        while True:
            message = self._receive(doing, owner)
            if message.call != number:
                continue  # of an earlier call whose listener raised
            if message.kind == "event" and on_event:
                try:
                    on_event({**message.values, **message.arrays})
                except BaseException:
                    self.cancel()
                    raise
            elif message.kind == "result":
                return message
            elif message.kind == "error":
                raise self._rebuilt(message.values, doing.method, owner)

    def cancel(self, owner: object = None) -> None:
        """Ask the running call, if there is one (and it is `owner`'s), to stop at its next step or tile with
        JobCancelled."""
        number, whose = self._current
        if number and (owner is None or owner is whose):
            self._outbox.put(packed(Message("cancel", number)))

    def _receive(self, doing: Doing, owner: object) -> Message:
        """The next message. Raises WorkerLost where the process has ended, or was silent for longer than it may be."""
        silent = 0.0
        while True:
            began = time.monotonic()
            try:
                message = self._messages.get(timeout=self._tick)
            except queue.Empty:
                # What is longer than a tick was no silence of the worker: the machine slept, or this process did.
                silent += min(time.monotonic() - began, 2 * self._tick)
                self._end_if_hung(doing, silent, owner)
                continue
            if not isinstance(message, Message):
                raise self._lost(message, doing.method, owner)
            doing.heard(silent + min(time.monotonic() - began, 2 * self._tick), message.values)
            return message

    @property
    def _tick(self) -> float:
        return min(TICK_S, self._patience.seconds / 4 or TICK_S)

    def _end_if_hung(self, doing: Doing, silent: float, owner: object) -> None:
        state = state_of(self.pid)
        if silent < doing.allowed(stopped=state == "stopped") * crowd():
            return
        self._end()
        self._messages.put(None)  # for every later call, where the process does not end
        if doing.deadline_s is not None:
            words = (
                f"worker {self.name} was not ready after {silent:.1f} s (its process was {state or 'gone'}); a driver "
                "that hangs or a very slow disk does that (--debug shows its log)"
            )
        else:
            words = (
                f"worker {self.name} gave no sign for {silent:.0f} s during {doing.words} and was ended (its process "
                f"was {state or 'gone'}). {way_out(self._patience.seconds)}"
            )
        raise self._ended(owner, words)

    def _lost(self, instead: Exception | None, doing: str, owner: object) -> WorkerLost:
        """What to raise for the end of the messages, or for what is none."""
        self._messages.put(instead)  # for every later call
        self._end(STOP_DEADLINE_S if instead is None else 0.0)
        code = self._process.poll()
        if instead is not None:
            words = f"worker {self.name} sent what is no message during {doing}: {instead}"
        elif code is None:
            words = f"worker {self.name} does not end during {doing}: its driver hangs"
        else:
            last = last_words(list(self._lines))
            words = f"worker {self.name} ended during {doing} {how_it_ended(code)}"
            words += f" [last words: {last}]" if last else ""
        return self._ended(owner, words)

    def _ended(self, owner: object, words: str) -> WorkerLost:
        """How it ended and under whose call is settled once: calls that come later are told the same."""
        if self._culprit is NOBODY:
            self._culprit, self._ending = owner, words
        return WorkerLost(self._ending, bystander=self._culprit is not owner)

    def _rebuilt(self, values: Mapping[str, Any], method: str, owner: object) -> Exception:
        """The worker's error as the same class here; an unknown one as WorkerError with its traceback in the log."""
        kind = getattr(relight.errors, values["error"], None)
        if kind is DeviceLost:
            self._end()
            return self._ended(owner, f"{values['message']} in {method}; worker {self.name} was ended, to begin anew")
        if isinstance(kind, type) and issubclass(kind, RelightError):
            return kind(values["message"])
        log.debug("%s: %s", self.name, values["traceback"])
        return WorkerError(
            f"worker {self.name} failed in {method}: {values['error']}: {values['message']} (--debug shows where)"
        )

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while (message := receive(self._process.stdout)) is not None:
                self._messages.put(message)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._messages.put(error)
        else:
            self._messages.put(None)

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
        """End it at once, whatever it does. A call that waits for it gets WorkerLost."""
        self._end()

    def _end(self, grace_s: float = 0.0) -> None:
        """Wait for its end, and bring it about after so many seconds."""
        for deadline_s in (grace_s, STOP_DEADLINE_S):
            try:
                self._process.wait(deadline_s)
                break
            except subprocess.TimeoutExpired:
                self._process.kill()
        else:
            self._left_behind = True
            log.warning("worker %s (process %d) does not end: its driver hangs", self.name, self.pid)
            return
        self._outbox.put(None)
        for thread in self._threads:
            thread.join(STOP_DEADLINE_S)
        if self._process.stdout is not None and not self._threads[1].is_alive():  # what is being read cannot be closed
            self._process.stdout.close()


def child_environment(ours: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """Our environment over `defaults`: what the user set wins. ggml must not run a debugger on a child that aborts, and
    the child imports relight from where we did."""
    package_root = os.path.dirname(os.path.dirname(os.path.abspath(relight.errors.__file__)))
    paths = [package_root, *filter(None, ours.get("PYTHONPATH", "").split(os.pathsep))]
    search_path = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
    return {"GGML_NO_BACKTRACE": "1"} | dict(defaults) | dict(ours) | search_path
