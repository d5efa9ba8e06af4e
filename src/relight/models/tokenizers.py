"""Text to token ids: CLIP's byte-pair encoding, whose vocabulary relight carries, and T5's, read from a file."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Encoding, Regex, Tokenizer, models, normalizers, pre_tokenizers

from relight.errors import ModelFileError, RequestError
from relight.models import unigram

CLIP_START, CLIP_END = 49406, 49407
CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
T5_PAD, T5_END = 0, 1
T5_PLACES = (
    "tokenizer.json",
    "t5_tokenizer.json",
    "tokenizer_2/tokenizer.json",
    "../tokenizer_2/tokenizer.json",
    "tokenizer/tokenizer.json",
)


@dataclass(frozen=True, eq=False)
class TokenIds:
    """A prompt as a text encoder takes it."""

    ids: np.ndarray  # [length] int32, with start, end and padding
    eos: int  # where the first end token is
    count: int  # tokens of the whole text, without start and end, also those that were cut
    cut: str  # the part of the text that did not fit, "" when all of it did


class ClipTokenizer:
    """CLIP's vocabulary of 49,408 pieces, lower case only. Ids are those of openai/clip-vit-large-patch14."""

    def __init__(self) -> None:
        self._pieces = clip_pieces()

    def encode(self, text: str, length: int = 77, pad: int = CLIP_END) -> TokenIds:
        """Start, text, end, then `pad` up to `length`. Raises RequestError for text that is not Unicode."""
        return framed(self._pieces, text, length, before=(CLIP_START,), end=CLIP_END, pad=pad)

    def ids(self, text: str) -> list[int]:
        """The text alone, without start, end and padding. Raises RequestError for text that is not Unicode."""
        return list(encoded(self._pieces, text).ids)


class T5Tokenizer:
    """T5's vocabulary. Spaces at both ends and repeated ones do not count, as in sentencepiece."""

    def __init__(self, pieces: Tokenizer) -> None:
        self._pieces = pieces

    @classmethod
    def find(cls, t5_file: Path, metadata: Mapping[str, Any] | None = None, extra: Path | None = None) -> T5Tokenizer:
        """The tokenizer of a T5 checkpoint: `extra` where given, else a file beside it, else its GGUF `metadata`.

        Files with another tokenizer (CLIP's, in diffusers' `tokenizer/`) are passed over, except `extra`.
        Raises ModelFileError when there is none, with the places looked in and where to get one.
        """
        if extra:
            return cls.from_json(extra)
        for path in (t5_file.parent / place for place in T5_PLACES):
            if path.is_file() and unigram.is_unigram(content := unigram.read_json(path)):
                return cls(unigram.from_content(path, content))
        if metadata and "tokenizer.ggml.tokens" in metadata:
            return cls.from_gguf(metadata)
        raise ModelFileError(
            f"{t5_file}: no T5 tokenizer in it or beside it (looked for {', '.join(T5_PLACES)} from {t5_file.parent}); "
            f"put {unigram.SOURCE} there"
        )

    @classmethod
    def from_json(cls, path: Path) -> T5Tokenizer:
        """From a `tokenizer.json` with a unigram model. Raises ModelFileError for anything else."""
        return cls(unigram.from_content(path, unigram.read_json(path)))

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> T5Tokenizer:
        """From the `tokenizer.ggml.*` of a T5 GGUF. Raises ModelFileError where it is another's or does not fit."""
        return cls(unigram.from_metadata(metadata))

    def encode(self, text: str, length: int) -> TokenIds:
        """Text, end, then padding up to `length`. Raises RequestError for text that is not Unicode."""
        return framed(self._pieces, text, length, before=(), end=T5_END, pad=T5_PAD)


def framed(pieces: Tokenizer, text: str, length: int, *, before: tuple[int, ...], end: int, pad: int) -> TokenIds:
    """The ids of `text` between `before` and `end`, cut or padded to `length`."""
    fit = length - len(before) - 1
    if fit < 0:
        raise ValueError(f"length {length} does not hold the {len(before) + 1} special tokens")
    encoding = encoded(pieces, text)
    tokens = [*before, *encoding.ids[:fit], end]
    ids = np.full(length, pad, np.int32)
    ids[: len(tokens)] = tokens
    cut = text[encoding.offsets[fit][0] :].strip() if len(encoding.ids) > fit else ""
    return TokenIds(ids, tokens.index(end), len(encoding.ids), cut)


def encoded(pieces: Tokenizer, text: str) -> Encoding:
    try:
        return pieces.encode(text, add_special_tokens=False)
    except TypeError as error:  # lone surrogates, which arguments of a command come with when they are not UTF-8
        raise RequestError(f"prompt {text[:40]!r} is not valid Unicode; give it as UTF-8") from error


@cache
def clip_pieces() -> Tokenizer:
    """Ids: 256 bytes, the same at the end of a word, the merges in their order, start, end."""
    packed = resources.files("relight.models").joinpath("clip_merges.txt.gz").read_bytes()
    merges = [(left, right) for left, right in map(str.split, gzip.decompress(packed).decode().splitlines())]
    letters, specials = byte_letters(), ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), *(left + right for left, right in merges)]
    ids = {piece: i for i, piece in enumerate(vocabulary + specials)}

    pieces = Tokenizer(models.BPE(ids, merges, end_of_word_suffix="</w>"))
    pieces.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(CLIP_WORDS), behavior="removed", invert=True)
    # ByteLevel's own pattern splits the words once more, and so it does in the published tokenizer.
    pieces.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    pieces.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in specials])
    return pieces


def byte_letters() -> list[str]:
    """A visible letter for each byte, in the order of CLIP's ids: printable Latin-1 stands for itself and comes first,
    the other bytes are the letters from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [chr(code) for code in [*printable, *range(256, 256 + others)]]
