"""The models by the names that requests use: what was pulled, what lies in named folders, the one that ships."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from relight import demo
from relight.errors import ModelFileError, RequestError
from relight.jobs import models
from relight.jobs.request import GenerateRequest, ModelFiles
from relight.store import catalogue
from relight.store.places import Places

EMBEDDED = "relight-emoji"
FRESH_S = 10.0
Kind = Literal["image", "chat"]


@dataclass(frozen=True)
class Entry:
    """`path` of a language model's file; None for a model of pictures, which is opened by name."""

    name: str
    kind: Kind
    created: int
    path: Path | None = None


class Registry:
    """`named` are models the configuration names, by the name requests use; `first` the model of requests that name
    none; `loras` and `embeddings` folders of what requests may name. Folders are looked through at most every ten
    seconds."""

    def __init__(
        self,
        named: Mapping[str, ModelFiles] | None = None,
        chat: Mapping[str, Path] | None = None,
        *,
        first: str | None = None,
        loras: Sequence[Path] = (),
        embeddings: Sequence[Path] = (),
    ) -> None:
        self._named, self._chat, self._first = dict(named or {}), dict(chat or {}), first
        self._loras, self._embeddings = loras, embeddings
        self._entries: dict[str, Entry] = {}
        self._looked = 0.0
        self._lock = threading.Lock()

    def entries(self) -> dict[str, Entry]:
        with self._lock:
            if time.monotonic() - self._looked > FRESH_S or not self._entries:
                self._entries, self._looked = self._found(), time.monotonic()
            return dict(self._entries)

    def _found(self) -> dict[str, Entry]:
        found = {name: Entry(name, "image", 0) for name in self._named}
        found |= {name: Entry(name, "chat", modified(path), path) for name, path in self._chat.items()}
        for model in catalogue.models(Places.of()):
            kind = kind_of(model)
            if kind is not None and not model.missing and model.name not in found:
                path = Path(model.where)
                found[model.name] = Entry(model.name, kind, modified(path), path if kind == "chat" else None)
        found |= {EMBEDDED: Entry(EMBEDDED, "image", modified(demo.EMBEDDED))}
        return {name: found[name] for name in (self._first,) if name in found} | found

    def files(self, name: str) -> ModelFiles:
        """Of a model of pictures. Raises RequestError for an unknown name, ModelFileError for broken files."""
        if name in self._named:
            files = self._named[name]
        elif self.entry(name, "image").name == EMBEDDED:
            return models.files_in(demo.EMBEDDED)
        else:
            files = models.model_files(name, {})
        return replace(
            files,
            loras={**files.loras, **models.loras_in(self._loras)},
            embeddings={**files.embeddings, **models.embeddings_in(self._embeddings)},
        )

    def where(self, name: str) -> str | None:
        """How other commands name a model of pictures; None for one that only this process knows."""
        if name in self._named:
            return None
        return str(demo.EMBEDDED) if self.entry(name, "image").name == EMBEDDED else name

    def usual(self, name: str) -> GenerateRequest:
        """A picture of the size that a model is for."""
        side = demo.SIZE if name == EMBEDDED else None
        return GenerateRequest(prompt="", width=side, height=side, seed=0)

    def chat_file(self, name: str) -> Path:
        entry = self.entry(name, "chat")
        if entry.path is None:
            raise ModelFileError(f"{name}: has no file of its own")
        return entry.path

    def entry(self, name: str, kind: Kind) -> Entry:
        """Raises RequestError. Names are never paths: only what is listed can be asked for."""
        entry = self.entries().get(name)
        if entry is None or entry.kind != kind:
            what = "pictures" if kind == "image" else "conversations"
            there = sorted(known for known, other in self.entries().items() if other.kind == kind)
            raise RequestError(f"model {name!r} is none for {what} here; there are {', '.join(there) or 'none'}")
        return entry


def kind_of(model: catalogue.Model) -> Kind | None:
    family = model.family.lower()
    if "language model" in family or family.endswith("instruct"):
        return "chat"
    if any(word in family for word in ("flux.1", "stable diffusion", "sdxl")) and "lora" not in family:
        return "image"
    return None


def modified(path: Path) -> int:
    try:
        return int(path.stat().st_mtime)
    except OSError:
        return 0
