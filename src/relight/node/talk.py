"""The language model beside the pictures: loaded when asked for, with as many layers on the card as there is room."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Protocol

from relight.errors import DoesNotFit, RelightError, WorkerError
from relight.llm.asks import LoadSettings
from relight.llm.client import Llm
from relight.node.card import Card
from relight.planner import turns
from relight.planner.language import ANSWER_TOKENS, LanguageModel, read_language_model
from relight.planner.machine import Machine
from relight.workers.patience import DEFAULT_S

log = logging.getLogger(__name__)

NAME = "language model"
MEASURED = 16
"""Tokens from which on the seconds that they took tell how long others will take."""
MEASURED_READ = 256
"""The same of prompts: a few tokens take as long as a batch."""
SAVE_S = 10.0
"""What conversations may take to be written when the node stops."""


class Pictures(Protocol):
    """What is made beside the talk, and may be interrupted for it."""

    def interruption_s(self) -> float: ...
    def giving_way(self) -> AbstractContextManager[None]: ...


class Talk:
    """A tenant of the card. `use` gives the process with the wanted model loaded; several may use it at once.

    `pictures` and `machine` are for choosing between an answer beside a picture and an interruption of it; without them
    no picture is interrupted.
    """

    def __init__(
        self,
        settings: LoadSettings,
        card: Card | None,
        environment: dict[str, str] | None = None,
        *,
        hang_s: float = DEFAULT_S,
    ) -> None:
        self.settings, self.card = settings, card
        self.llm = Llm(environment, hang_s=hang_s)
        self.pictures: Pictures | None = None
        self.machine: Callable[[], Machine] | None = None
        self._machine: Machine | None = None
        self._measured: defaultdict[str, turns.Measured] = defaultdict(turns.Measured)
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
        """Start the process and look at the machine, so that no chat waits for that."""
        try:
            self.llm.start()
            if self.machine is not None:
                self._machine = self.machine()
        except RelightError as error:
            log.warning("%s", error)

    @contextmanager
    def use(self, name: str, path: Path, tokens: int | None = None, unread: int = 0) -> Iterator[Llm]:
        """Waits while another model is in use. `tokens`: the most that the answer may have; `unread`: about how many of
        the prompt are new to the model. Raises what loading raises."""
        with self._lock:
            while self._model is not None and self._model[0] != name and self._users:
                self._idle.wait()
            self._load(name, path, min(tokens or ANSWER_TOKENS, ANSWER_TOKENS), unread)
            self._users += 1
        try:
            yield self.llm
        finally:
            with self._lock:
                self._users -= 1
                self._measure()
                self.used = time.monotonic()
                self._idle.notify_all()
            if self.card is not None:
                self.card.touch(NAME)

    def _load(self, name: str, path: Path, tokens: int, unread: int) -> None:
        """Loaded anew where more of it could be on the card now and nobody uses it: chat does not wait for pictures, it
        goes on with fewer layers there, down to none, or interrupts them where that is sooner."""
        held = self._model
        if held is not None and held[0] == name and self._users:
            return
        layers = self._layers(path)
        if self._interrupts(name, path, layers, tokens, unread):
            assert self.pictures is not None
            try:
                with self.pictures.giving_way():
                    self._bring(name, path, self._layers(path))
                return
            except DoesNotFit as error:
                log.warning("%s", error)
        if held is None or held[0] != name or held[2] < layers:
            self._bring(name, path, layers)

    def _bring(self, name: str, path: Path, layers: int) -> None:
        if self._model is not None:
            self._leave()
        layers = self._taken(path, layers)
        try:
            self.llm.load(path, replace(self.settings, n_gpu_layers=layers))
        except BaseException:
            if self.card is not None:
                self.card.give_back(NAME)
            raise
        self._model = (name, path, layers)

    def _interrupts(self, name: str, path: Path, layers: int, tokens: int, unread: int) -> bool:
        """Whether an answer is sooner with the card to itself, the picture's way there and back included."""
        if self.card is None or self.pictures is None or self._machine is None:
            return False
        model, held = read_language_model(path), self._model
        there = held[2] if held is not None and held[0] == name else 0
        beside, alone = max(layers, there), self._most(model, self.card.room(NAME, undisturbed=False))
        if alone <= beside or (cost := self.pictures.interruption_s()) == inf:
            return False
        choice = turns.choose(
            model,
            self._machine,
            beside=beside,
            alone=alone,
            tokens=tokens,
            unread=unread,
            context=self.context,
            pictures=sum(nbytes for other, nbytes in self.card.held().items() if other != NAME),
            interruption_s=cost,
            loaded=there == beside and held is not None,
            measured=self._measured[name],
        )
        log.info("%s: an answer in %.1f s beside the picture, %.1f s instead of it", name, *vars(choice).values())
        return choice.interrupts

    def _measure(self) -> None:
        """Seconds of a token, made and read, with the layers that are on the card, once nobody uses the model."""
        if self.pictures is None or self._users or self._model is None or not self.llm.alive:
            return
        try:
            stats = self.llm.stats()
        except RelightError:
            return  # whoever asks next hears of it
        measured, layers = self._measured[self._model[0]], self._model[2]
        if stats.decode_tokens >= MEASURED:
            measured.made[layers] = stats.decode_seconds / stats.decode_tokens
        if stats.prompt_tokens >= MEASURED_READ:
            measured.read[layers] = stats.prompt_seconds / stats.prompt_tokens

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
        return self._most(read_language_model(path), self.card.room(NAME))

    def _most(self, model: LanguageModel, room: int) -> int:
        fitting, asked = model.most_layers(room, self.context), self.settings.n_gpu_layers
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
