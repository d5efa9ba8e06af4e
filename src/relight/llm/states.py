"""Conversations that left the model's memory: their state in RAM, then in files, so that no prompt is read twice.

The least recently used go first, to files when RAM's budget is spent and for good when the disk's is. A file holds a
header line of JSON, the tokens as int32, and llama.cpp's bytes; its hash covers all of it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from relight.llm.asks import StateBudget
from relight.llm.slots import common_prefix

log = logging.getLogger("relight.llm.states")

SUFFIX = ".state"
MAX_HEADER = 4096
KEY_LETTERS = 32


@dataclass
class Kept:
    """One conversation of the model `model`. `raw` is None where it is in `file`."""

    model: str
    tokens: np.ndarray  # [T] int32
    size: int
    raw: bytes | None
    file: Path | None = None


class States:
    """Kept conversations, each under the hash of its model and tokens; the last used is the last to go."""

    def __init__(self, budget: StateBudget) -> None:
        self.budget = budget
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self.folder = Path(budget.folder) if budget.folder and budget.disk_bytes else None
        if self.folder:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._find()
            self._shrink()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def ram_bytes(self) -> int:
        return sum(kept.size for kept in self._kept.values() if kept.raw is not None)

    @property
    def disk_bytes(self) -> int:
        return sum(kept.size for kept in self._kept.values() if kept.file is not None)

    @property
    def largest(self) -> int:
        """Bytes of the largest conversation there is a budget for."""
        return max(self.budget.ram_bytes, self.budget.disk_bytes if self.folder else 0)

    def holds(self, model: str, tokens: Sequence[int]) -> bool:
        return key_of(model, tokens) in self._kept

    def keep(self, model: str, tokens: Sequence[int], raw: bytes) -> None:
        """Remember a conversation. Shorter beginnings of the same one are forgotten."""
        held = np.asarray(tokens, np.int32)
        for key, kept in list(self._kept.items()):
            if (
                kept.model == model
                and len(kept.tokens) <= len(held)
                and common_prefix(kept.tokens, held) == len(kept.tokens)
            ):
                self._forget(key)
        self._kept[key_of(model, tokens)] = Kept(model, held, len(raw), raw)
        self._shrink()

    def best(self, model: str, prompt: Sequence[int]) -> tuple[str, int] | None:
        """The key of the conversation that shares most with a prompt, and how many tokens that is."""
        wanted = np.asarray(prompt, np.int32)
        shared = {key: common_prefix(kept.tokens, wanted) for key, kept in self._kept.items() if kept.model == model}
        key = max(shared, key=lambda each: shared[each], default=None)
        return (key, shared[key]) if key is not None and shared[key] else None

    def take(self, key: str) -> tuple[np.ndarray, bytes] | None:
        """Tokens and state; None where the file is gone or is not what was written. It stays kept."""
        kept = self._kept[key]
        raw = kept.raw if kept.raw is not None else self._read(kept)
        if raw is None:
            self._forget(key)
            return None
        self._kept.move_to_end(key)
        return kept.tokens, raw

    def forget(self, key: str) -> None:
        self._forget(key)

    def flush(self) -> int:
        """Write what is only in RAM to files, as far as the budget goes; how many were written."""
        if not self.folder:
            return 0
        waiting = [(key, kept) for key, kept in self._kept.items() if kept.file is None]
        written = sum(self._write(key, kept) for key, kept in reversed(waiting))
        self._shrink()
        return written

    def _shrink(self) -> None:
        while self.ram_bytes > self.budget.ram_bytes:
            key, kept = next((k, e) for k, e in self._kept.items() if e.raw is not None)
            if kept.file is None and not (self.folder and self._write(key, kept)):
                self._forget(key)
                continue
            kept.raw = None
        while self.disk_bytes > self.budget.disk_bytes:
            key, kept = next((k, e) for k, e in self._kept.items() if e.file is not None)
            if kept.raw is None:
                self._forget(key)
            else:
                self._remove_file(kept)

    def _forget(self, key: str) -> None:
        self._remove_file(self._kept.pop(key))

    def _remove_file(self, kept: Kept) -> None:
        if kept.file is not None:
            kept.file.unlink(missing_ok=True)
            kept.file = None

    def _write(self, key: str, kept: Kept) -> bool:
        assert self.folder is not None and kept.raw is not None
        if kept.size > self.budget.disk_bytes:
            return False
        tokens = kept.tokens.tobytes()
        digest = hashlib.blake2b(kept.raw, digest_size=16, key=hashlib.blake2b(tokens).digest()).hexdigest()
        header = json.dumps({"model": kept.model, "tokens": len(kept.tokens), "size": kept.size, "hash": digest})
        place = self.folder / (key + SUFFIX)
        try:
            descriptor, temporary = tempfile.mkstemp(dir=self.folder, suffix=".part")
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.writelines((header.encode() + b"\n", tokens, kept.raw))
                os.replace(temporary, place)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            log.warning("a conversation cannot be kept in %s: %s", self.folder, error)
            return False
        kept.file = place
        return True

    def _read(self, kept: Kept) -> bytes | None:
        assert kept.file is not None
        try:
            with kept.file.open("rb") as stream:
                header = _header(stream)
                tokens = stream.read(4 * header["tokens"])
                raw = stream.read()
        except (OSError, ValueError) as error:
            log.warning("a kept conversation is lost: %s: %s", kept.file.name, error)
            return None
        digest = hashlib.blake2b(raw, digest_size=16, key=hashlib.blake2b(tokens).digest()).hexdigest()
        if digest != header["hash"] or tokens != kept.tokens.tobytes():
            log.warning("a kept conversation is lost: %s is not what was written", kept.file.name)
            return None
        return raw

    def _find(self) -> None:
        """Take up the files of earlier runs, oldest first; what is none of ours stays unread."""
        assert self.folder is not None
        for part in self.folder.glob("*.part"):
            part.unlink(missing_ok=True)
        files = sorted(self.folder.glob(f"*{SUFFIX}"), key=lambda file: file.stat().st_mtime_ns)
        for file in files:
            try:
                with file.open("rb") as stream:
                    header = _header(stream)
                    tokens = np.frombuffer(stream.read(4 * header["tokens"]), np.int32)
                    whole = file.stat().st_size == stream.tell() + header["size"]
            except (OSError, ValueError) as error:
                log.warning("%s is no kept conversation: %s", file.name, error)
                continue
            if whole and len(tokens) == header["tokens"] and file.stem == key_of(header["model"], tokens):
                self._kept[file.stem] = Kept(header["model"], tokens, header["size"], None, file)
            else:
                file.unlink(missing_ok=True)


def key_of(model: str, tokens: Sequence[int] | np.ndarray) -> str:
    digest = hashlib.blake2b(model.encode(), digest_size=KEY_LETTERS // 2)
    digest.update(b"\0" + np.asarray(tokens, np.int32).tobytes())
    return digest.hexdigest()


def _header(stream: Any) -> dict[str, Any]:
    """Raises ValueError for anything but a header of ours."""
    line = stream.readline(MAX_HEADER)
    if not line.startswith(b'{"model": '):
        raise ValueError("not a header")
    header = json.loads(line)
    if not isinstance(header, dict) or not isinstance(header.get("model"), str):
        raise ValueError("not a header")
    for name in ("tokens", "size"):
        if type(header.get(name)) is not int or not 0 <= header[name] < 1 << 40:
            raise ValueError(f"{name} is {header.get(name)!r}")
    return header
