"""The parent's side of a worker: one call at a time, each by its owner, who may cancel it and is blamed for its end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from relight.errors import WorkerLost
from relight.workers.link import START_DEADLINE_S, Call, Link
from relight.workers.patience import DEFAULT_S
from relight.workers.protocol import Message
from relight.workers.shared import Both

COMMAND = (sys.executable, "-u", "-P", "-m", "relight.workers.child")
Event = Callable[[dict[str, Any]], None]
"""Called with what an event says, arrays among the values."""
NOBODY = object()


class Worker:
    """A child process that owns one device. `call` may be used from several threads; calls wait for one another."""

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
        self._lock = threading.Lock()
        self._current: tuple[Call | None, object] = (None, None)  # and its owner
        self._culprit: object = NOBODY  # whose call it ended under
        self._link = Link(
            f"worker {name}",
            command or COMMAND,
            environment or {},
            start_deadline_s=start_deadline_s,
            hang_s=hang_s,
            shared=Both.create(),
        )

    @property
    def pid(self) -> int:
        return self._link.pid

    @property
    def alive(self) -> bool:
        return self._link.alive

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
            call = self._link.open(method, values or {}, arrays)
            self._current = call, owner
            try:
                with closing(self._link.answers(call)) as answers:
                    for message in answers:
                        if message.kind == "event" and on_event:
                            on_event({**message.values, **message.arrays})
            except WorkerLost as lost:
                if self._culprit is NOBODY:
                    self._culprit = owner
                lost.bystander = self._culprit is not owner
                raise
            finally:
                self._current = None, None
        self._link.patience.answered(method, values or {}, message.values)
        return message

    def cancel(self, owner: object = None) -> None:
        """Ask the running call, if there is one (and it is `owner`'s), to stop at its next step or tile with
        JobCancelled."""
        call, whose = self._current
        if call and (owner is None or owner is whose):
            self._link.cancel(call)

    def close(self) -> None:
        """Let it go, and end it if it does not."""
        self._link.close()

    def kill(self) -> None:
        """End it at once, whatever it does. A call that waits for it gets WorkerLost."""
        self._link.kill()
