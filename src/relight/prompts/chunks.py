"""A prompt of any length as chunks of 77 tokens: start, up to 75 of the text, end, padding.

What does not fit goes to the next chunk, from the last comma on where that is near, as A1111 does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from relight.errors import RequestError
from relight.models.tokenizers import CLIP_END, CLIP_START, ClipTokenizer
from relight.prompts.emphasis import parse

LENGTH = 77
TEXT_LENGTH = LENGTH - 2
NEAR_COMMA = 20
MAX_CHUNKS = 64


class Slot(NamedTuple):
    """Where the vectors of an embedding stand in a chunk: from token `start` on."""

    start: int
    vectors: int
    name: str


@dataclass(frozen=True, eq=False)
class Chunk:
    """Token ids [77] i32 padded with the end of text as CLIP-L's are, and the weight of each [77] f32.

    `eos` is the index of the first end of text. Tokens in `slots` are placeholders for an embedding's vectors.
    """

    ids: np.ndarray
    weights: np.ndarray
    eos: int
    slots: tuple[Slot, ...] = ()

    def padded(self, pad: int) -> np.ndarray:
        """The ids with `pad` after the first end of text: 0 for CLIP-G and CLIP-H."""
        return np.where((np.arange(LENGTH) > self.eos) & (pad != CLIP_END), np.int32(pad), self.ids)


class Word(NamedTuple):
    """A token, or an embedding where `name` says which."""

    ids: tuple[int, ...]
    name: str = ""


def chunks(
    text: str, tokenizer: ClipTokenizer, embeddings: Mapping[str, int] | None = None, *, near_comma: int = NEAR_COMMA
) -> list[Chunk]:
    """The chunks of a prompt, at least one. `embeddings` are names with their numbers of vectors.

    Where a chunk is full, what follows its last comma moves on to the next if that is at most `near_comma` tokens; 0
    cuts after 75 tokens, as stable-diffusion.cpp does.
    Raises RequestError for more than 64 chunks, and for an embedding of more vectors than a chunk has room for.
    """
    counts = embeddings or {}
    names, rows = Names(tokenizer, counts), Rows(tokenizer.ids(",")[0], near_comma)
    for i, part in enumerate(parse(text)):
        if i:
            rows.close()
        for piece in part:
            for word in names.words(tokenizer.ids(piece.text)):
                rows.add(word, counts[word.name] if word.name else 1, piece.weight)
    return rows.finish()


def mentioned(text: str, tokenizer: ClipTokenizer, names: Iterable[str]) -> list[str]:
    """Those of the embeddings' names that a prompt uses: `chunks` needs the numbers of vectors of no others."""
    known = Names(tokenizer, names)
    words = (word for part in parse(text) for piece in part for word in known.words(tokenizer.ids(piece.text)))
    return list(dict.fromkeys(word.name for word in words if word.name))


class Names:
    """Names of embeddings, found by their tokens, so that neither case nor spaces count. The longest one wins."""

    def __init__(self, tokenizer: ClipTokenizer, names: Iterable[str]) -> None:
        self.by_first: dict[int, list[Word]] = {}
        for word in (Word(tuple(tokenizer.ids(name)), name) for name in names):
            if word.ids:
                self.by_first.setdefault(word.ids[0], []).append(word)
        for found in self.by_first.values():
            found.sort(key=lambda word: len(word.ids), reverse=True)

    def words(self, ids: list[int]) -> Iterator[Word]:
        at = 0
        while at < len(ids):
            known = self.by_first.get(ids[at], ())
            word = next((each for each in known if tuple(ids[at : at + len(each.ids)]) == each.ids), Word((ids[at],)))
            yield word
            at += len(word.ids)


class Rows:
    """Chunks being filled: those that are done, and the tokens, weights and slots of the next."""

    def __init__(self, comma: int, near_comma: int) -> None:
        self.comma, self.near_comma = comma, near_comma
        self.done: list[Chunk] = []
        self.begin([], [], [])

    def begin(self, ids: list[int], weights: list[float], slots: list[Slot]) -> None:
        self.ids, self.weights, self.slots, self.last_comma = ids, weights, slots, -1

    def add(self, word: Word, count: int, weight: float) -> None:
        """`count` tokens that stay together: one, or an embedding's vectors."""
        if count > TEXT_LENGTH:
            raise RequestError(f"embedding {word.name} has {count} vectors, and a chunk of a prompt has {TEXT_LENGTH}")
        if word.ids[0] == self.comma:
            self.last_comma = len(self.ids)
        elif len(self.ids) == TEXT_LENGTH and self.last_comma >= max(0, TEXT_LENGTH - self.near_comma):
            self.move_on(self.last_comma + 1)
        if len(self.ids) + count > TEXT_LENGTH:
            self.close()
        if word.name:
            self.slots.append(Slot(len(self.ids), count, word.name))
        self.ids += [0] * count if word.name else word.ids
        self.weights += [weight] * count

    def move_on(self, cut: int) -> None:
        """Begin the next chunk with what stands from token `cut` on."""
        rest = (
            self.ids[cut:],
            self.weights[cut:],
            [s._replace(start=s.start - cut) for s in self.slots if s.start >= cut],
        )
        self.ids, self.weights, self.slots = (
            self.ids[:cut],
            self.weights[:cut],
            [s for s in self.slots if s.start < cut],
        )
        self.close()
        self.begin(*rest)

    def close(self) -> None:
        if len(self.done) == MAX_CHUNKS:
            raise RequestError(f"prompt of more than {MAX_CHUNKS * TEXT_LENGTH} tokens: shorten it")
        after = LENGTH - 1 - len(self.ids)
        ids = np.array([CLIP_START, *self.ids, *[CLIP_END] * after], np.int32)
        weights = np.array([1, *self.weights, *[1] * after], np.float32)
        slots = tuple(slot._replace(start=slot.start + 1) for slot in self.slots)
        self.done.append(Chunk(ids, weights, int((ids == CLIP_END).argmax()), slots))
        self.begin([], [], [])

    def finish(self) -> list[Chunk]:
        if self.ids or not self.done:
            self.close()
        return self.done
