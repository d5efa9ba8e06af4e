"""The language model beside the pictures: loaded when asked for, with as many layers on the card as there is room."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from relight.errors import DoesNotFit, WorkerError
from relight.llm.asks import LoadSettings
from relight.llm.client import Llm
from relight.node.card import Card
from relight.planner.language import read_language_model

log = logging.getLogger(__name__)

NAME = "language model"
SAVE_S = 10.0
"""What conversations may take to be written when the node stops."""


class Talk:
    """A tenant of the card. `use` gives the process with the wanted model loaded; several may use it at once."""

    def __init__(self, settings: LoadSettings, card: Card | None, environment: dict[str, str] | None = None) -> None:
        self.settings, self.card = settings, card
        self.llm = Llm(environment)
        self._model: tuple[str, Path, int] | None = None
        self._users = 0
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self.used = 0.0

    @property
    def busy(self) -> bool:
        return self._users > 0

    @property
    def context(self) -> int:
        """Tokens of all conversations together."""
        return self.settings.context * self.settings.slots

    @property
    def model(self) -> str | None:
        return self._model[0] if self._model else None

    def get_ready(self) -> None:
        """Start the process, so that no chat waits for that."""
        try:
            self.llm.start()
        except WorkerError as error:
            log.warning("%s", error)

    @contextmanager
    def use(self, name: str, path: Path) -> Iterator[Llm]:
        """Waits while another model is in use. Raises what loading raises."""
        with self._lock:
            while self._model is not None and self._model[0] != name and self._users:
                self._idle.wait()
            self._load(name, path)
            self._users += 1
        try:
            yield self.llm
        finally:
            with self._lock:
                self._users -= 1
                self.used = time.monotonic()
                self._idle.notify_all()
            if self.card is not None:
                self.card.touch(NAME)

    def _load(self, name: str, path: Path) -> None:
        """Loaded anew where more of it could be on the card now and nobody uses it: chat does not wait for pictures, it
        goes on with fewer layers there, down to none."""
        layers = self._layers(path)
        held = self._model
        if held is not None and held[0] == name and (held[2] >= layers or self._users):
            return
        if held is not None:
            self._leave()
        layers = self._taken(path, layers)
        try:
            self.llm.load(path, replace(self.settings, n_gpu_layers=layers))
        except BaseException:
            if self.card is not None:
                self.card.give_back(NAME)
            raise
        self._model = (name, path, layers)

    def _taken(self, path: Path, layers: int) -> int:
        """So many layers, or the fewer that there is room for by the time it is taken."""
        while self.card is not None and layers:
            try:
                self.card.take(NAME, read_language_model(path).on_gpu(layers, self.context))
                return layers
            except DoesNotFit:  # pictures began since
                layers = min(layers - 1, self._layers(path))
        if self.card is not None:
            self.card.give_back(NAME)
        return 0

    def _layers(self, path: Path) -> int:
        """As many as fit beside what is at work there; all or those asked for where it has the room."""
        if self.card is None or not self.settings.n_gpu_layers:
            return 0
        fitting = read_language_model(path).most_layers(self.card.room(NAME), self.context)
        asked = self.settings.n_gpu_layers
        return fitting if asked < 0 else min(fitting, asked)

    def leave(self, *, wholly: bool = False) -> bool:
        """The model goes, the process and its conversations stay; `wholly` writes these to files. False while somebody
        uses or loads it: who loads asks the card, and waiting for him here would stop both."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._users:
                return False
            self._leave()
            if wholly:
                self._save()
            return True
        finally:
            self._lock.release()

    def _leave(self) -> None:
        """Nobody waits for a disk: what the budget of RAM does not hold is all that is written."""
        if self._model is not None:
            self.llm.unload()
        self._model = None

    def _save(self) -> None:
        try:
            self.llm.save(to_disk=self.settings.states.folder is not None)
        except WorkerError as error:
            log.warning("conversations are not kept: %s", error)

    def close(self) -> None:
        saving = threading.Thread(target=self._save, daemon=True)
        saving.start()
        saving.join(SAVE_S)
        self.llm.close()
        self._model = None
