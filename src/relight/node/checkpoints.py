"""Where an attempt can go on from: known after each step, written every few seconds and when the attempt ends early."""

from __future__ import annotations

import logging
import threading
import time

from relight.errors import RelightError
from relight.jobs.events import Checkpointed
from relight.ledger import Attempt, Ledger

log = logging.getLogger(__name__)

EVERY_S = 5.0
"""A crash of the node costs a picture no more steps than that."""


class Checkpoints:
    """Of one attempt. `every_s`: seconds between two writes of a pass that goes on; of one that is done, its end is
    written at once."""

    def __init__(self, ledger: Ledger, attempt: Attempt, every_s: float) -> None:
        self.ledger, self.attempt, self.every_s = ledger, attempt, every_s
        self._unsaved: dict[str, Checkpointed] = {}
        self._saved = time.monotonic()
        self._lock = threading.Lock()

    def found(self) -> dict[str, Checkpointed]:
        """Those that earlier attempts left, by part."""
        saved = self.ledger.checkpoints(self.attempt.job.id)
        return {part: Checkpointed(part, at.step, at.arrays) for part, at in saved.items()}

    def keep(self, event: Checkpointed) -> None:
        """Raises LedgerError where it is written and cannot be."""
        with self._lock:
            self._unsaved[event.part] = event
            if event.whole or time.monotonic() - self._saved >= self.every_s:
                self._write()

    def save(self) -> None:
        """Write what is not written yet; where that fails the next attempt goes on from what was written before."""
        try:
            with self._lock:
                self._write()
        except RelightError as error:
            log.warning("job %s: its last steps are not kept: %s", self.attempt.job.id, error)

    def _write(self) -> None:
        for part, event in list(self._unsaved.items()):
            self.ledger.checkpoint(self.attempt, part, event.step, event.arrays)
            del self._unsaved[part]
        self._saved = time.monotonic()
