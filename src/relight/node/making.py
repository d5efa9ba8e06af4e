"""One attempt at a picture: on its model's pipeline, told of as it goes on, and what becomes of it in the ledger."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from relight.errors import (
    ConfigError,
    DoesNotFit,
    ExecutorError,
    JobCancelled,
    ModelFileError,
    OutOfDeviceMemory,
    RelightError,
    RequestError,
    RuinedPicture,
    WorkerError,
    WorkerLost,
)
from relight.images.write import encoded
from relight.jobs.asked import pictures_named, request_of
from relight.jobs.events import Advanced, Checkpointed, Event, Planned, Previewed, Warned
from relight.jobs.output import parameters_text
from relight.jobs.pipeline import Pipeline, Result
from relight.jobs.request import GenerateRequest
from relight.jobs.rungs import Rung, following, may_help
from relight.ledger import Attempt, Cause, NewResult
from relight.node.card import Card
from relight.node.checkpoints import Checkpoints

if TYPE_CHECKING:
    from relight.node.pictures import PictureLine

log = logging.getLogger(__name__)

KIND = "image"
HEARTBEAT_S = 1.0
OUT_OF_MEMORY = "out_of_memory"
CODES: tuple[tuple[type[RelightError], str], ...] = (
    (RequestError, "invalid_request"),
    (ModelFileError, "model_file"),
    (ConfigError, "configuration"),
    (DoesNotFit, "does_not_fit"),
    (OutOfDeviceMemory, OUT_OF_MEMORY),
    (ExecutorError, "device_failed"),
    (RuinedPicture, "ruined"),
    (WorkerError, "worker_lost"),
    (RelightError, "failed"),
)


class Shelf(Protocol):
    """Where the line gets a model's pipeline; it belongs to the line until it is given back."""

    def take(self, model: str, rung: Rung) -> Pipeline: ...
    def give_back(self, pipeline: Pipeline) -> None: ...


class Making:
    """One attempt at one job."""

    def __init__(self, line: PictureLine, attempt: Attempt) -> None:
        self.line, self.ledger, self.attempt = line, line.ledger, attempt
        self.cancelled = self.broken_off = False
        self._progress: dict[str, Any] = {}
        self._told = 0.0
        self.begun = time.monotonic()
        self.step_s, self.saved = 0.0, self.begun
        self._checkpoints = Checkpoints(self.ledger, attempt, line.checkpoint_s)
        self._lock = threading.Lock()
        self._pipeline: Pipeline | None = None

    def run(self) -> None:
        job = self.attempt.job
        kind: Hashable = job.model
        try:
            asked = dict(job.request) | dict(job.chosen)
            kind = (job.model, asked.get("width"), asked.get("height"), asked.get("batch"))
            rung = self.line.ladder.rung(kind, job.losses)
            pipeline = self._pipeline = self.line.shelf.take(job.model, rung)
        except RelightError as error:
            self.ledger.fail(self.attempt, cause_of(error), retry=False)
            return
        try:
            request = request_of(asked, self._inputs(asked), pipeline.checked.files)
            result = self._make(pipeline, rung.request(request))
            self._give_back()
            self.ledger.commit(self.attempt, results_of(result), result.report)
        except JobCancelled:
            self._given_up()
        except RelightError as error:
            self._failed(error, rung)
        except BaseException:
            self.ledger.fail(self.attempt, Cause("internal", "an unexpected error; the log has it"), retry=False)
            raise
        else:
            self.line.breaker.worked(job.model)
            self.line.tally.made(job.model, result.report)
            if job.losses:
                short = job.error is not None and job.error.code == OUT_OF_MEMORY
                self.line.ladder.worked(kind, rung, sure=short)
        finally:
            self._give_back()

    def _give_back(self) -> None:
        """Once, before anybody hears of the picture: whoever then asks for the card shall find it free."""
        if self._pipeline is not None:
            self.line.shelf.give_back(self._pipeline)
            self._pipeline = None

    def _failed(self, error: RelightError, rung: Rung) -> None:
        """What died of another job's work, or because the node stops, is not this job's fault."""
        job, safer = self.attempt.job, following(rung)
        if not may_help(error, rung):
            self.ledger.fail(self.attempt, cause_of(error), retry=False)
            return
        if self.broken_off or (isinstance(error, WorkerLost) and error.bystander):
            self.release()
            return
        if isinstance(error, WorkerError):
            log.warning("job %s: %s", job.id, error)
        if isinstance(error, WorkerLost):
            self.line.breaker.lost(job.model, time.monotonic() - self.begun)
        if safer is not None:
            self.line.tell(job.id, Warned(f"{error}; trying {safer.words}"))
        cause = cause_of(error)
        if job.losses:
            cause = Cause(cause.code, f"{cause.message} (at attempt {self.attempt.number}, made {rung.words})")
        again = isinstance(error, WorkerError) or safer is not None or not job.losses  # memory is given back meanwhile
        self.ledger.fail(self.attempt, cause, retry=again)

    def _make(self, pipeline: Pipeline, request: GenerateRequest) -> Result:
        return pipeline.generate(request, self._on_event, resume=self._checkpoints.found(), checkpoints=True)

    def _inputs(self, asked: dict[str, Any]) -> dict[str, bytes]:
        return {name: self.ledger.input(self.attempt.job.id, name) for name in pictures_named(asked)}

    def _given_up(self) -> None:
        """Cancelled by the user, superseded, or broken off because the node stops: then another attempt goes on."""
        if self.broken_off and not self.cancelled:
            self.release()

    def release(self) -> None:
        """Give the job back with the steps that are done."""
        self._checkpoints.save()
        self.ledger.release(self.attempt)

    def _on_event(self, event: Event) -> None:
        job_id = self.attempt.job.id
        if isinstance(event, Checkpointed) and not self.cancelled:
            self._checkpoints.keep(event)  # also where it is broken off: this step is done
            self.saved = time.monotonic()
            if event.whole:
                self.step_s = 0.0
        if self.cancelled or self.broken_off:
            raise JobCancelled(f"job {job_id} is not to go on")
        if isinstance(event, Checkpointed):
            return
        self.line.tell(job_id, event)
        if isinstance(event, Advanced):
            self.step_s = event.seconds if event.stage == "denoise" else 0.0
            self._beat({"stage": event.stage, "done": event.done, "total": event.total, "picture": event.picture})
        elif isinstance(event, Planned):
            if self.line.card is not None:
                needed = sum(event.predicted_bytes.values())
                self._take_card(self.line.card, needed)
            self._beat({"stage": "plan", "note": event.note})
        elif not isinstance(event, (Previewed, Warned)):
            raise AssertionError(event)

    def _take_card(self, card: Card, needed: int) -> None:
        try:
            card.take_when_idle(KIND, needed, lambda: self.cancelled or self.broken_off)
        except DoesNotFit:
            if self.cancelled or self.broken_off:
                raise JobCancelled("it is not to go on, and has not begun") from None
            raise
        self.line.resumed()
        self.saved = time.monotonic()

    def keep(self) -> None:
        """Tell the ledger that the attempt goes on, and hear whether it may."""
        with self._lock:
            progress = self._progress
        if not self.ledger.heartbeat(self.attempt, progress):
            self.cancelled = True

    def _beat(self, progress: dict[str, Any]) -> None:
        with self._lock:
            self._progress = progress
            now = time.monotonic()
            if now - self._told < HEARTBEAT_S and progress["stage"] != "plan":
                return
            self._told = now
        if not self.ledger.heartbeat(self.attempt, progress):
            self.cancelled = True
            raise JobCancelled("the job was cancelled, or another attempt has it")


def results_of(result: Result) -> list[NewResult]:
    found = []
    for picture in result.pictures:
        height, width, _ = np.shape(picture.image)
        content = encoded(picture.image, parameters_text(picture, result.report), "png")
        found.append(NewResult(content, "image/png", {"seed": picture.seed, "width": width, "height": height}))
    return found


def cause_of(error: RelightError) -> Cause:
    return Cause(next(code for kind, code in CODES if isinstance(error, kind)), str(error))
