"""The parent's side of a worker: start, call, cancel, and say in words what ended it."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import relight.errors
from relight.errors import RelightError, WorkerError, WorkerLost
from relight.workers.protocol import Message, receive, send

log = logging.getLogger("relight.workers")

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 2.0
Event = Callable[[dict[str, Any]], None]

ABORT_CAUSE = (
    "the engine gave up, most likely because the device ran out of memory or was lost. "
    "Try --vae-tile-size 32, a smaller size, --max-vram, or another --backend for that component"
)
KILL_CAUSE = "it was killed, most likely by the system for want of memory; use a smaller T5 (Q8_0, Q4_K) or a smaller size"
CAUSES = {signal.SIGABRT: ABORT_CAUSE, signal.SIGSEGV: ABORT_CAUSE, signal.SIGBUS: ABORT_CAUSE}
if hasattr(signal, "SIGKILL"):
    CAUSES[signal.SIGKILL] = KILL_CAUSE


class Worker:
    """A child process that owns one device. `call` may be used from several threads; calls wait for one another."""

    def __init__(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._lines: deque[str] = deque(maxlen=200)
        command = [sys.executable, "-u", "-P", "-m", "relight.workers.child"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | child_environment() | dict(environment or {}),
        )
        threading.Thread(target=self._collect_log, daemon=True).start()
        killer = threading.Timer(START_DEADLINE_S, self._process.kill)
        killer.start()
        try:
            if self._receive("start").kind != "ready":
                raise WorkerError(f"worker {name} did not start as expected")
        finally:
            killer.cancel()

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(
        self,
        method: str,
        values: Mapping[str, Any] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        on_event: Event | None = None,
    ) -> Message:
        """The answer to a call. Raises what the worker raised, or WorkerLost when it ended instead."""
        with self._lock:
            number = next(self._numbers)
            try:
                assert self._process.stdin is not None
                request = Message("call", number, {"method": method, **(values or {})}, dict(arrays or {}))
                send(self._process.stdin, request)
            except OSError as error:
                raise self._lost(method) from error
            while True:
                message = self._receive(method)
                if message.kind == "event" and on_event:
                    on_event(message.values)
                elif message.kind == "result":
                    return message
                elif message.kind == "error":
                    raise rebuilt_error(message.values)

    def cancel(self) -> None:
        """Ask the running call to stop at its next step or tile."""
        assert self._process.stdin is not None
        send(self._process.stdin, Message("cancel"))

    def _receive(self, doing: str) -> Message:
        assert self._process.stdout is not None
        message = receive(self._process.stdout)
        if message is None:
            raise self._lost(doing)
        return message

    def _lost(self, doing: str) -> WorkerLost:
        try:
            code = self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        how = f"exit status {code}"
        cause = ""
        if code < 0:
            ended_by = signal.Signals(-code)
            how, cause = ended_by.name, CAUSES.get(ended_by, "")
        last = next((line for line in reversed(self._lines) if telling(line)), "")
        return WorkerLost(
            f"worker {self.name} ended during {doing} ({how})"
            + (f": {cause}" if cause else "")
            + (f" [last words: {last}]" if last else "")
        )

    def _collect_log(self) -> None:
        assert self._process.stderr is not None
        for raw in self._process.stderr:
            line = raw.decode(errors="replace").rstrip()
            self._lines.append(line)
            log.debug("%s: %s", self.name, line)

    def close(self) -> None:
        """Let it go, and end it if it does not."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(STOP_DEADLINE_S)
        except (OSError, subprocess.TimeoutExpired):
            self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def child_environment() -> dict[str, str]:
    """The child imports relight from where the parent did; ggml must not run a debugger on it when it aborts."""
    package_root = os.path.dirname(os.path.dirname(os.path.abspath(relight.errors.__file__)))
    paths = [package_root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "GGML_NO_BACKTRACE": "1"}


def telling(line: str) -> bool:
    """Whether a line of the log may say why the worker ended."""
    return bool(line) and not line.startswith(("DEBUG", "INFO"))


def rebuilt_error(values: Mapping[str, Any]) -> Exception:
    """The worker's error as the same class here; an unknown one as WorkerError with its traceback in the log."""
    kind = getattr(relight.errors, values["error"], None)
    if isinstance(kind, type) and issubclass(kind, RelightError):
        return kind(values["message"])
    log.debug("%s", values["traceback"])
    return WorkerError(f"{values['error']}: {values['message']}")
