"""Warm-up when nobody asks for anything: models in use that were never timed with this card, driver and engine.

It is `relight warm` in a process of its own, of the lowest priority, and ends at once when a request comes; what was
measured by then is kept, and the rest is measured another time.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from relight.errors import DoesNotFit, RelightError
from relight.jobs.engine import EngineSettings
from relight.node.card import Card
from relight.planner.amounts import amount

log = logging.getLogger(__name__)

NAME = "warm-up"
AFTER_S = 30.0
"""Since the last request."""
LOOK_S = 2.0
GIB = 1 << 30
LOWEST: int = getattr(psutil, "IDLE_PRIORITY_CLASS", 19)
"""Windows has classes of priority, the others numbers."""
LEAST_BYTES = 1 << 28
"""Of the card, below which there is nothing to measure there."""


@dataclass(frozen=True)
class Candidate:
    """A model in use, and the command that warms it up within so many bytes of the card (None: there is none)."""

    model: str
    command: Callable[[int | None], Sequence[str]]


Candidates = Callable[[], Iterable[Candidate]]


class Warming:
    """A tenant of the card that leaves for anybody. `candidates` are models that lack measurements, `idle` whether
    nobody waits for anything; `renew` is told of a model that has them from now on."""

    def __init__(
        self,
        candidates: Candidates,
        idle: Callable[[], bool],
        card: Card | None = None,
        *,
        after_s: float = AFTER_S,
        renew: Callable[[str], None] = lambda model: None,
    ) -> None:
        self.candidates, self.idle, self.card, self.after_s, self.renew = candidates, idle, card, after_s, renew
        self.model: str | None = None
        self.warmed: list[str] = []
        self.failed: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._asked, self._comings = time.monotonic(), 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look_about, name=NAME, daemon=True)
        if card is not None:
            card.join(NAME, self)

    @property
    def busy(self) -> bool:
        """Nobody waits for it."""
        return False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self.leave()
        if self._thread.ident is not None:
            self._thread.join(LOOK_S)

    def came(self) -> None:
        """Somebody asks for something."""
        with self._lock:
            self._asked = time.monotonic()
            self._comings += 1
            if self._process is not None:
                end(self._process)

    def leave(self, *, wholly: bool = False) -> bool:
        self.came()
        if process := self._process:
            process.wait()
        return True

    def _look_about(self) -> None:
        while not self._stopping.wait(min(LOOK_S, self.after_s)):
            with self._lock:
                seen, rested = self._comings, time.monotonic() - self._asked >= self.after_s
            if not rested or not self.idle():
                continue
            try:
                found = next((each for each in self.candidates() if each.model not in self.failed), None)
                if found is not None:
                    self._warm(found, seen)
            except DoesNotFit as error:
                log.info("no warm-up: %s", error)
                self._asked = time.monotonic()
            except (RelightError, OSError):
                log.exception("no warm-up")
                return

    def _warm(self, found: Candidate, seen: int) -> None:
        """`seen`: how often somebody had come when it was looked whether anybody waits."""
        room = None
        if self.card is not None:
            room = self.card.room(NAME)
            if room < LEAST_BYTES:
                raise DoesNotFit(f"{amount(room)} of the card are left beside what stays there")
            self.card.take(NAME, room)
        try:
            with self._lock:
                if self._comings != seen or self._stopping.is_set():
                    return
                log.info("%s was never timed with this card, driver and engine: it is warmed up meanwhile", found.model)
                self._process = begun(found.command(room))
                self.model = found.model
            self._judge(found.model, self._process.wait(), seen)
        finally:
            with self._lock:
                self._process = self.model = None
            if self.card is not None:
                self.card.give_back(NAME)

    def _judge(self, model: str, code: int, seen: int) -> None:
        if self._comings != seen:
            log.info("the warm-up of %s has given way and goes on later", model)
        elif code:
            log.warning("the warm-up of %s failed (status %d); relight warm says why", model, code)
            self.failed.add(model)
        else:
            log.info("%s is warmed up", model)
            self.renew(model)
            self.warmed.append(model)


def begun(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """With the lowest priority, and in a group of its own, so that its workers end with it."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=os.name == "posix",
    )
    with suppress(psutil.Error):
        psutil.Process(process.pid).nice(LOWEST)
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    """Workers of its own see that their parent has gone."""
    with suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def warm_command(
    model: str, size: str | None, engine: EngineSettings, device: str | None, nbytes: int | None
) -> list[str]:
    """`relight warm` at a size, as these settings compute, within so many bytes of the card."""
    command = [sys.executable, "-P", "-m", "relight", "warm", model]
    command += ["--size", size] if size is not None else []
    command += ["--threads", str(engine.threads)] if engine.threads else []
    command += ["--device", device] if device is not None else []
    command += ["--backend", engine.backend] if engine.backend else []
    return command + (["--max-vram", f"{nbytes / GIB:.3f}"] if nbytes is not None else [])
