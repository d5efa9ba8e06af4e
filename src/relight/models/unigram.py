"""T5's unigram vocabulary, from a tokenizer.json or from the metadata of a GGUF.

Only pieces, scores and the character map are taken from either. How spaces are treated differs between the published
tokenizer.json files, and is sentencepiece's here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from relight.errors import ModelFileError
from relight.models import charsmap as charsmaps

SPECIALS = ("<pad>", "</s>", "<unk>")  # ids 0, 1, 2
UNKNOWN = 2
SPACE = "▁"  # sentencepiece's
NORMAL, UNUSED = 1, 5  # kinds of pieces in a GGUF; unknown, control and user-defined ones lie between
MAX_JSON_BYTES = 32 << 20  # T5's has 1.4 MB to 2.4 MB
SOURCE = "T5's tokenizer.json (of google/t5-v1_1-xxl, or tokenizer_2/ of black-forest-labs/FLUX.1-schnell)"


def from_content(path: Path, content: Mapping[str, Any]) -> Tokenizer:
    """From what a tokenizer.json holds. Raises ModelFileError, naming `path`, for another tokenizer or a broken one."""
    if not is_unigram(content):
        raise ModelFileError(f"{path}: not a unigram tokenizer, which T5 needs; take {SOURCE}")
    try:
        vocabulary = [(str(piece), float(score)) for piece, score in content["model"]["vocab"]]
        specials = [str(token["content"]) for token in content.get("added_tokens", ())]
        charsmap = base64.b64decode(charsmap_of(content.get("normalizer") or {}), validate=True)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelFileError(f"{path}: not a tokenizer.json ({type(error).__name__}: {error})") from error
    return unigram(str(path), vocabulary, specials, charsmap)


def from_metadata(metadata: Mapping[str, Any]) -> Tokenizer:
    """From the `tokenizer.ggml.*` of a GGUF. Raises ModelFileError for another tokenizer or a broken one."""
    where, keys = "tokenizer in the GGUF's metadata", "tokenizer.ggml."
    kind = metadata.get(keys + "model")
    if kind != "t5":
        raise ModelFileError(f"{where}: is of kind {kind!r}, not 't5'; put {SOURCE} beside the file")
    try:
        pieces = [str(piece) for piece in metadata[keys + "tokens"]]
        scores = np.asarray(metadata[keys + "scores"], np.float32)
        kinds = np.asarray(metadata.get(keys + "token_type", [NORMAL] * len(pieces)), np.int64)
        charsmap = np.asarray(metadata.get(keys + "precompiled_charsmap", ()), np.int64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelFileError(f"{where}: {type(error).__name__}: {error}") from error
    if not scores.shape == kinds.shape == (len(pieces),):
        raise ModelFileError(f"{where}: {len(pieces)} tokens, {scores.size} scores, {kinds.size} types")

    used = int(np.flatnonzero(kinds != UNUSED).max(initial=-1)) + 1  # converters fill up to the embedding's size
    vocabulary = [
        (piece, float(score) if kind == NORMAL else 0.0)  # 0 for the others, as in T5's tokenizer.json
        for piece, score, kind in zip(pieces[:used], scores, kinds, strict=False)
    ]
    specials = [pieces[i] for i in np.flatnonzero((kinds > NORMAL) & (kinds < UNUSED))]
    return unigram(
        where,
        vocabulary,
        specials,
        (charsmap & 0xFF).astype(np.uint8).tobytes(),  # stored as signed bytes by some, as 32-bit numbers by others
        add_space=bool(metadata.get(keys + "add_space_prefix", True)),
        trim=bool(metadata.get(keys + "remove_extra_whitespaces", True)),
    )


def unigram(
    where: str,
    vocabulary: Sequence[tuple[str, float]],
    specials: Sequence[str],
    charsmap: bytes,
    *,
    add_space: bool = True,
    trim: bool = True,
) -> Tokenizer:
    """T5's tokenizer of (piece, log probability); `specials` are found in a text as they stand, before anything else.

    Raises ModelFileError, naming `where` it came from, for a vocabulary that is not T5's or a broken one.
    """
    first = tuple(piece for piece, _ in vocabulary[: len(SPECIALS)])
    if first != SPECIALS:
        raise ModelFileError(f"{where}: begins with {', '.join(first)}, and T5's with {', '.join(SPECIALS)}")
    known = {piece for piece, _ in vocabulary}
    if "" in known or not np.isfinite([score for _, score in vocabulary]).all():
        raise ModelFileError(f"{where}: has an empty piece, or a score that is not a number")
    if charsmap and (reason := charsmaps.why_not(charsmap)):
        raise ModelFileError(f"{where}: broken character map: {reason}")

    steps: list[Any] = [normalizers.Precompiled(charsmap)] if charsmap else []
    if trim:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    try:
        pieces = Tokenizer(models.Unigram([*vocabulary], UNKNOWN, False))
    except (TypeError, UnicodeError) as error:
        raise ModelFileError(f"{where}: has a piece that is not valid Unicode") from error
    pieces.normalizer = normalizers.Sequence(steps)
    pieces.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always" if add_space else "never")
    pieces.add_special_tokens(
        [AddedToken(piece, normalized=False, special=True) for piece in specials if piece in known]
    )
    return pieces


def is_unigram(content: Mapping[str, Any]) -> bool:
    """CLIP's tokenizer.json, in a folder beside it, holds a BPE; old files name no type, but their vocab is a list."""
    model = content.get("model")
    return (
        isinstance(model, dict) and model.get("type", "Unigram") == "Unigram" and isinstance(model.get("vocab"), list)
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ModelFileError for a file that is none, or larger than any tokenizer."""
    try:
        if (size := path.stat().st_size) > MAX_JSON_BYTES:
            raise ModelFileError(f"{path}: {size:,} bytes; a T5 tokenizer has at most {MAX_JSON_BYTES:,}")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelFileError(f"{path}: not a tokenizer.json: holds a {type(content).__name__}")
    return content


def charsmap_of(normalizer: Mapping[str, Any]) -> str:
    """The character map of a normalizer or of a sequence of them, in base64; "" where there is none."""
    for part in normalizer.get("normalizers", [normalizer]):
        if part.get("type") == "Precompiled":
            return str(part["precompiled_charsmap"])
    return ""
