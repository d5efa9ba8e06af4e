"""The parent's side of a worker: start, call, cancel, and say in words what ended it."""

from __future__ import annotations

import itertools
import logging
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

import numpy as np

import relight.errors
from relight.errors import RelightError, WorkerError, WorkerLost
from relight.workers.endings import how_it_ended, last_words
from relight.workers.protocol import Message, receive, send

log = logging.getLogger("relight.workers")

COMMAND = (sys.executable, "-u", "-P", "-m", "relight.workers.child")
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 2.0
MAX_LINE_BYTES = 1 << 16
Event = Callable[[dict[str, Any]], None]
"""Called with what an event says, arrays among the values."""


class Worker:
    """A child process that owns one device. `call` may be used from several threads; calls wait for one another."""

    def __init__(
        self,
        name: str,
        environment: Mapping[str, str] | None = None,
        *,
        command: Sequence[str] = COMMAND,
        start_deadline_s: float = START_DEADLINE_S,
    ) -> None:
        """Raises WorkerError when it is not ready within the deadline, WorkerLost when it ends before."""
        self.name = name
        self._numbers = itertools.count(1)
        self._current: tuple[int, object] = (0, None)  # number and owner of the running call; 0 between calls
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._lines: deque[str] = deque(maxlen=200)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(os.environ, environment or {}),
        )
        self._log_reader = threading.Thread(target=self._collect_log, daemon=True)
        self._log_reader.start()
        try:
            self._wait_until_ready(start_deadline_s)
        except BaseException:
            self.kill()
            raise

    def _wait_until_ready(self, deadline_s: float) -> None:
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(deadline_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            message = self._receive("start")
        except WorkerLost as error:
            if late.is_set():
                raise WorkerError(
                    f"worker {self.name} was not ready after {deadline_s:g} s; a driver that hangs or a very slow disk "
                    "does that (--debug shows its log)"
                ) from error
            raise
        finally:
            timer.cancel()
        if message.kind != "ready":
            raise WorkerError(f"worker {self.name} began with {message.kind!r} instead of 'ready'")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def call(
        self,
        method: str,
        values: Mapping[str, Any] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        on_event: Event | None = None,
        owner: object = None,
    ) -> Message:
        """The answer to a call. Raises what the worker raised, or WorkerLost when it ended instead. `owner` is whoever
        may cancel it."""
        with self._lock:
            number = next(self._numbers)
            self._current = (number, owner)
            try:
                self._send(Message("call", number, {"method": method, **(values or {})}, dict(arrays or {})), method)
                return self._answer(number, method, on_event)
            finally:
                self._current = (0, None)

    def _answer(self, number: int, method: str, on_event: Event | None) -> Message:
        while True:
            message = self._receive(method)
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
                raise self._rebuilt(message.values, method)

    def cancel(self, owner: object = None) -> None:
        """Ask the running call, if there is one (and it is `owner`'s), to stop at its next step or tile with
        JobCancelled."""
        number, whose = self._current
        if number and (owner is None or owner is whose):
            try:
                self._send(Message("cancel", number), "cancel")
            except WorkerLost:
                log.debug("%s: was gone before it could be asked to stop", self.name)

    def _send(self, message: Message, doing: str) -> None:
        assert self._process.stdin is not None
        try:
            with self._sending:
                send(self._process.stdin, message)
        except (OSError, ValueError) as error:  # ValueError: the pipe was closed here
            raise self._lost(doing) from error

    def _receive(self, doing: str) -> Message:
        assert self._process.stdout is not None
        try:
            message = receive(self._process.stdout)
        except (ValueError, KeyError, TypeError) as error:
            self._process.kill()
            raise WorkerLost(f"worker {self.name} sent what is no message during {doing}: {error}") from error
        if message is None:
            raise self._lost(doing)
        return message

    def _lost(self, doing: str) -> WorkerLost:
        try:
            code = self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._log_reader.join(STOP_DEADLINE_S)
        last = last_words(list(self._lines))
        said = f" [last words: {last}]" if last else ""
        return WorkerLost(f"worker {self.name} ended during {doing} {how_it_ended(code)}{said}")

    def _rebuilt(self, values: Mapping[str, Any], method: str) -> Exception:
        """The worker's error as the same class here; an unknown one as WorkerError with its traceback in the log."""
        kind = getattr(relight.errors, values["error"], None)
        if isinstance(kind, type) and issubclass(kind, RelightError):
            return kind(values["message"])
        log.debug("%s: %s", self.name, values["traceback"])
        return WorkerError(
            f"worker {self.name} failed in {method}: {values['error']}: {values['message']} (--debug shows where)"
        )

    def _collect_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            while raw := stream.readline(MAX_LINE_BYTES):
                line = raw.decode(errors="replace").rstrip()
                self._lines.append(line)
                log.debug("%s: %s", self.name, line)

    def close(self) -> None:
        """Let it go, and end it if it does not."""
        self._close_pipe(self._process.stdin)
        try:
            self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()

    def kill(self) -> None:
        """End it at once, whatever it does. A call that waits for it gets WorkerLost."""
        self._process.kill()
        self._reap()

    def _reap(self) -> None:
        self._process.wait()
        self._log_reader.join(STOP_DEADLINE_S)
        self._close_pipe(self._process.stdin)
        self._close_pipe(self._process.stdout)

    @staticmethod
    def _close_pipe(pipe: IO[bytes] | None) -> None:
        with suppress(OSError):  # what was not sent yet reaches nobody
            if pipe is not None:
                pipe.close()


def child_environment(ours: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """Our environment over `defaults`: what the user set wins. ggml must not run a debugger on a child that aborts, and
    the child imports relight from where we did."""
    package_root = os.path.dirname(os.path.dirname(os.path.abspath(relight.errors.__file__)))
    paths = [package_root, *filter(None, ours.get("PYTHONPATH", "").split(os.pathsep))]
    search_path = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
    return {"GGML_NO_BACKTRACE": "1"} | dict(defaults) | dict(ours) | search_path
