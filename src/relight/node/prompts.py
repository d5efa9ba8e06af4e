"""How much of a prompt a language model has yet to read: the beginning of a conversation was read for its last turn."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator

from relight.llm.asks import ChatAsk, CompletionAsk

BYTES_A_TOKEN = 4
"""Of text in UTF-8: English, code and Chinese are all near it."""
REMEMBERED = 1024
"""Prompts; the model's own memory forgets sooner or later than that, and then reads more than is counted here."""


class Prompts:
    """Those that models have read, by hash."""

    def __init__(self) -> None:
        self._read: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def unread(self, model: str, ask: ChatAsk | CompletionAsk) -> int:
        """Tokens, about, after the longest beginning that the model has read; its own answer to that it knows too."""
        if isinstance(ask, CompletionAsk):
            return 0 if self._knows(_of_completion(model, ask)) else _tokens(ask.prompt)
        digests = list(_beginnings(model, ask))
        known = next((n for n in range(len(digests), 0, -1) if self._knows(digests[n - 1])), 0)
        new = ask.messages[known:]
        if known and new and new[0]["role"] == "assistant":
            new = new[1:]
        parts = new if known else (*ask.tools, *new)
        return sum(
            _tokens(json.dumps(part, ensure_ascii=False)) for part in parts
        )  # its signs are about the template's

    def read(self, model: str, ask: ChatAsk | CompletionAsk) -> None:
        """The model has read all of it."""
        whole = _of_completion(model, ask) if isinstance(ask, CompletionAsk) else [*_beginnings(model, ask)][-1]
        with self._lock:
            self._read[whole] = None
            self._read.move_to_end(whole)
            while len(self._read) > REMEMBERED:
                self._read.popitem(last=False)

    def _knows(self, digest: bytes) -> bool:
        with self._lock:
            return digest in self._read


def _tokens(prompt: str | tuple[int, ...]) -> int:
    return len(prompt.encode()) // BYTES_A_TOKEN if isinstance(prompt, str) else len(prompt)


def _of_completion(model: str, ask: CompletionAsk) -> bytes:
    return _digest(b"", [model, ask.prompt, ask.suffix])


def _beginnings(model: str, ask: ChatAsk) -> Iterator[bytes]:
    """Of the conversation up to each of its messages; tools and the template's values come before them all."""
    digest = _digest(b"", [model, ask.tools, ask.template_values])
    yield from (digest := _digest(digest, message) for message in ask.messages)


def _digest(before: bytes, value: object) -> bytes:
    return hashlib.blake2b(before + json.dumps(value, default=str).encode(), digest_size=16).digest()
