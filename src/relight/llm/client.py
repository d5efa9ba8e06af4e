"""The language model as the rest of relight sees it: load, ask, listen. A process that died is started again."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from relight.errors import RequestError
from relight.llm import wire
from relight.llm.asks import ChatAsk, CompletionAsk, EmbedAsk, Loaded, LoadSettings, Piece, Stats
from relight.workers.link import START_DEADLINE_S, Link
from relight.workers.patience import DEFAULT_S
from relight.workers.protocol import Message

COMMAND = (sys.executable, "-u", "-P", "-m", "relight.llm.child")
Progress = Callable[[int, int], None]


class Answer:
    """An answer as it comes: iterate for its pieces; the last one says why it ended. `cancel` from any thread."""

    def __init__(self, link: Link, method: str, ask: Mapping[str, Any]) -> None:
        self._link = link
        self._call = link.open(method, {"ask": ask})
        self._pieces = (wire.piece(message.values) for message in link.answers(self._call))

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        return next(self._pieces)

    def cancel(self) -> None:
        """Ask for an end at the next token; the last piece then says `cancelled`."""
        self._link.cancel(self._call)

    def close(self) -> None:
        """Listen no more; the answer is cancelled where it is not whole."""
        self._pieces.close()
        self._link.forget(self._call)


class Llm:
    """One language model process. Every method may be used from several threads.

    When the process ends by itself, the answers it was making raise WorkerLost, and the next ask starts a new process
    with the same model. `restarts` counts that. While a call is open it gives a sign after each step; `hang_s` is how
    long it may be silent: ten times that, for a part of a prompt can take an old processor minutes, and drivers compile
    shaders for as long (relight.workers.patience).
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        start_deadline_s: float = START_DEADLINE_S,
        hang_s: float = DEFAULT_S,
    ) -> None:
        self.environment = dict(environment or {})
        self.start_deadline_s, self.hang_s = start_deadline_s, hang_s
        self.loaded: Loaded | None = None
        self.restarts = 0
        self._wanted: tuple[Path, LoadSettings] | None = None
        self._link: Link | None = None
        self._lock = threading.RLock()

    def __enter__(self) -> Llm:
        return self

    def __exit__(self, *of: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        link = self._link
        return link is not None and link.alive

    @property
    def pid(self) -> int | None:
        link = self._link
        return link.pid if link is not None and link.alive else None

    def start(self) -> None:
        """Start the process, so that the first model need not wait for that. Raises WorkerError, WorkerLost."""
        with self._lock:
            self._process()

    def load(self, path: Path, settings: LoadSettings = LoadSettings(), on_progress: Progress | None = None) -> Loaded:  # noqa: B008
        """Load a GGUF file; what was loaded before goes first. Raises ModelFileError, OutOfDeviceMemory, WorkerLost."""
        with self._lock:
            self.loaded, self._wanted = None, None
            loaded = wire.loaded(self._call("load", _load_values(path, settings), on_progress).values)
            self.loaded, self._wanted = loaded, (path, settings)
            return loaded

    def unload(self) -> None:
        """Give the model's memory back; conversations stay, within their budget, as long as the process does."""
        with self._lock:
            self.loaded, self._wanted = None, None
            if self.alive:
                self._call("unload", {})

    def chat(self, ask: ChatAsk) -> Answer:
        """Begin an answer to a conversation. Its pieces raise RequestError, WorkerLost."""
        return Answer(self._ready(), "chat", wire.as_json(ask))

    def complete(self, ask: CompletionAsk) -> Answer:
        """Begin to go on with a text. Its pieces raise RequestError, WorkerLost."""
        return Answer(self._ready(), "complete", wire.as_json(ask))

    def embed(self, ask: EmbedAsk) -> tuple[np.ndarray, int]:
        """Vectors of length 1, [N D] float32, and how many tokens the texts had. Raises RequestError, WorkerLost."""
        message = _last(self._ready(), "embed", {"ask": wire.as_json(ask)}, None)
        return message.arrays["vectors"], int(message.values["tokens"])

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(_last(self._ready(), "count", {"text": text}, None).values["tokens"])

    def save(self, *, to_disk: bool = True) -> int:
        """Keep every conversation, those of models that were unloaded too, and in files where there is a folder; how
        many are kept. Nothing is, and nothing is started, where no process runs."""
        link = self._link
        if link is None or not link.alive:
            return 0
        return int(_last(link, "save", {"to_disk": to_disk}, None).values["kept"])

    def stats(self) -> Stats:
        return Stats(**_last(self._ready(), "stats", {}, None).values)

    def close(self) -> None:
        """End the process; conversations stay only where they were saved to files."""
        with self._lock:
            link, self._link = self._link, None
            self.loaded, self._wanted = None, None
        if link is not None:
            link.close()

    def kill(self) -> None:
        """End the process at once. Answers being made get WorkerLost; the next ask starts it anew."""
        link = self._link
        if link is not None:
            link.kill()

    def _ready(self) -> Link:
        """The process with the model loaded, started again where it ended."""
        with self._lock:
            if self._wanted is None:
                raise RequestError("no language model is loaded")
            if not self.alive:
                path, settings = self._wanted
                self._call("load", _load_values(path, settings))
            assert self._link is not None
            return self._link

    def _call(self, method: str, values: Mapping[str, Any], on_progress: Progress | None = None) -> Message:
        return _last(self._process(), method, values, on_progress)

    def _process(self) -> Link:
        if self._link is None or not self._link.alive:
            if self._link is not None:
                self.restarts += 1
                self._link.kill()
            self._link = Link(
                "the language model's process",
                COMMAND,
                self.environment,
                start_deadline_s=self.start_deadline_s,
                hang_s=self.hang_s,
            )
        return self._link


def _last(link: Link, method: str, values: Mapping[str, Any], on_progress: Progress | None) -> Message:
    with closing(link.answers(link.open(method, values))) as answers:
        for message in answers:
            if message.kind == "event" and on_progress:
                on_progress(message.values["done"], message.values["total"])
    return message


def _load_values(path: Path, settings: LoadSettings) -> dict[str, Any]:
    return {"path": str(path), "settings": wire.as_json(settings)}
