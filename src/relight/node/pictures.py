"""The line of pictures: image jobs of the ledger, several beside one another, those of one model at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from relight.errors import DoesNotFit
from relight.jobs.events import Event
from relight.ledger import Attempt, Ledger
from relight.node.breaker import Breaker
from relight.node.card import Card
from relight.node.checkpoints import EVERY_S
from relight.node.interruptions import Interruptions
from relight.node.ladder import Ladder
from relight.node.making import KIND, Making, Shelf
from relight.node.tally import Tally

log = logging.getLogger(__name__)

AT_ONCE = 3
"""One encoded, one denoised, one decoded; more would only wait."""
SILENCE_S = 20.0
"""The ledger hears this often of attempts that only wait, or are in a long step: their workers' ends are seen here."""
IDLE_S = 1.0
BREAK_OFF_S = 2.0
"""A step that takes longer is lost: the worker is ended in it, and the job goes on from the one before."""
GIVE_WAY_S = 300.0
"""A step of the slowest card, and the decode of a picture on the slowest processor."""


class PictureLine:
    """Claims jobs as long as it runs. Jobs of another model wait until those of the one that is open have ended."""

    def __init__(
        self,
        ledger: Ledger,
        shelf: Shelf,
        *,
        at_once: int = AT_ONCE,
        checkpoint_s: float = EVERY_S,
        card: Card | None = None,
        tell: Callable[[str, Event], None] = lambda job_id, event: None,
    ) -> None:
        self.ledger, self.shelf, self.at_once, self.checkpoint_s, self.tell = ledger, shelf, at_once, checkpoint_s, tell
        self.card, self.ladder, self.breaker, self.tally = card, Ladder(), Breaker(), Tally()
        self._free = threading.Semaphore(at_once)
        self._wake, self._stopping, self._stopped = threading.Event(), threading.Event(), threading.Event()
        self._lock = threading.Condition()
        self._running: dict[str, Making] = {}
        self._next: Making | None = None
        self._held, self._interruptions = False, Interruptions()
        self._thread = threading.Thread(target=self._claim_all, name="pictures", daemon=True)
        self._beats = threading.Thread(target=self._keep_all, name="heartbeats", daemon=True)
        self._unwatch = ledger.watch(None, lambda job: self._wake.set())

    def start(self) -> None:
        self._thread.start()
        self._beats.start()

    def drain(self) -> None:
        """Take no more; what runs goes on."""
        self._stopping.set()
        self._wake.set()

    def stop(self, deadline_s: float) -> None:
        """Take no more; let what runs end within the deadline, then break it off: it goes on from its last step."""
        self.drain()
        ends = time.monotonic() + deadline_s
        with self._lock:
            self._lock.wait_for(lambda: not self._running, max(0.0, ends - time.monotonic()))
            for making in self._running.values():
                making.broken_off = True
            self._lock.wait_for(lambda: not self._running, BREAK_OFF_S)
            left = [*self._running.values(), *([self._next] if self._next else [])]
        for making in left:  # in a long step, which is lost: the node was told to stop, and no job is to blame
            making.release()
        self._unwatch()
        self._stopped.set()
        for thread in (self._thread, self._beats):
            thread.join(BREAK_OFF_S)

    def cancel(self, job_id: str) -> None:
        """Stop a running job at its next step; the ledger knows already."""
        with self._lock:
            if making := self._running.get(job_id):
                making.cancelled = True

    @property
    def busy(self) -> bool:
        with self._lock:
            return bool(self._running)

    def interruption_s(self) -> float:
        """What it would cost to give way now; infinite where nothing is made, or they just gave way."""
        with self._lock:
            return self._interruptions.cost_s(list(self._running.values()))

    @contextmanager
    def giving_way(self) -> Iterator[None]:
        """Break off what is made at the end of its step, to go on from there after the block, once the card can be had.
        Raises DoesNotFit where it does not stop."""
        with self._lock:
            self._held = True
            self._interruptions.begin()
            for making in self._running.values():
                making.broken_off = True
            stopped = self._lock.wait_for(lambda: not self._running, GIVE_WAY_S)
        try:
            if not stopped:
                raise DoesNotFit("the picture in the works does not come to the end of its step")
            yield
        finally:
            with self._lock:
                self._held = False
                self._lock.notify_all()

    def resumed(self) -> None:
        with self._lock:
            self._interruptions.end()

    def _claim_all(self) -> None:
        while not self._stopping.is_set():
            self._free.acquire()
            attempt = None if self._stopping.is_set() else self._claim()
            if attempt is None:
                self._free.release()
                self._wake.wait(IDLE_S)
                self._wake.clear()
                continue
            making = self._next = Making(self, attempt)
            if not self._admitted(making):
                self.ledger.release(attempt)
                return
            threading.Thread(target=self._run, args=(making,), name=attempt.job.id, daemon=True).start()

    def _claim(self) -> Attempt | None:
        with self._lock:
            running = Counter(making.attempt.job.model for making in self._running.values())
        return self.ledger.claim((KIND,), "pictures", without=self.breaker.blocked(running))

    def _admitted(self, making: Making) -> bool:
        """Once those of other models have ended and nobody is given way to; not where the line stops meanwhile."""
        job = making.attempt.job
        with self._lock:
            self._lock.wait_for(
                lambda: not self._held and all(m.attempt.job.model == job.model for m in self._running.values())
            )
            if self._stopping.is_set():
                return False
            self._running[job.id], self._next = making, None
            return True

    def _keep_all(self) -> None:
        while not self._stopped.wait(SILENCE_S):
            with self._lock:
                makings = [*self._running.values(), *([self._next] if self._next else [])]
            for making in makings:
                making.keep()

    def _run(self, making: Making) -> None:
        try:
            making.run()
        except Exception:
            log.exception("job %s", making.attempt.job.id)
        finally:
            with self._lock:
                del self._running[making.attempt.job.id]
                self._lock.notify_all()
            self._free.release()
            self._wake.set()
