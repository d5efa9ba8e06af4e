"""Tokens to text as it may be shown: whole characters only, and nothing that may yet become a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Feed bytes, get text. `stopped` once a stop string was met; it and what follows it are not given out."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.stops = tuple(stops)
        self.stopped = False
        self._held = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, raw: bytes) -> str:
        if self.stopped:
            return ""
        return self._give(self._decoder.decode(raw), final=False)

    def end(self) -> str:
        """What was held back, now that nothing follows; bytes of an unfinished character as U+FFFD."""
        if self.stopped:
            return ""
        return self._give(self._decoder.decode(b"", final=True), final=True)

    def _give(self, text: str, *, final: bool) -> str:
        text = self._held + text
        found = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        keep = 0 if final else max((begun(text, stop) for stop in self.stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def begun(text: str, stop: str) -> int:
    """Characters at the end of `text` that begin `stop`."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
