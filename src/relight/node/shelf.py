"""The pipeline that is open: one model of pictures at a time, kept until another is wanted or the card is."""

from __future__ import annotations

import threading
from collections.abc import Callable

from relight.jobs.conditioning import ConditioningCache
from relight.jobs.engine import EngineSettings
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import ModelFiles
from relight.jobs.rungs import Rung


class PipelineShelf:
    """`files_of` finds a model's files by its name and raises ConfigError or ModelFileError. A tenant of the card."""

    def __init__(self, files_of: Callable[[str], ModelFiles], settings: EngineSettings) -> None:
        self.files_of, self.settings = files_of, settings
        self._open: Pipeline | None = None
        self._what: tuple[str, Rung] | None = None
        self._users = 0
        self._counted: tuple[ConditioningCache | None, int, int] = None, 0, 0
        self._lock = threading.Condition()

    @property
    def busy(self) -> bool:
        return self._users > 0

    @property
    def model(self) -> str | None:
        """Of the pipeline that is open."""
        return self._what[0] if self._what else None

    def prompts(self) -> tuple[int, int]:
        """How often what an encoder gives was on the disk, and was not."""
        cache, found, missed = self._counted
        return (found, missed) if cache is None else (found + cache.hits, missed + cache.misses)

    def take(self, model: str, rung: Rung) -> Pipeline:
        """Open the model if it is not; waits while another, or another way of making it, is in use."""
        with self._lock:
            if self._what != (model, rung):
                self._lock.wait_for(lambda: self._users == 0)
                self._close()
                self._open = Pipeline(self.files_of(model), rung.settings(self.settings))
                self._what = (model, rung)
                self._counted = self._open.text.cache, *self.prompts()
            assert self._open is not None
            self._users += 1
            return self._open

    def give_back(self, pipeline: Pipeline) -> None:
        with self._lock:
            self._users -= 1
            self._lock.notify_all()

    def leave(self, *, wholly: bool = False) -> bool:
        """Leave the card, and `wholly` close what is open, unless it is in use; whether it was not."""
        with self._lock:
            if self._users:
                return False
            if wholly or self._open is None:
                self._close()
            else:
                self._open.leave_gpu()
            return True

    def _close(self) -> None:
        self._counted = None, *self.prompts()
        if self._open is not None:
            self._open.fleet.close()
        self._open = self._what = None
