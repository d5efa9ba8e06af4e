"""What a model file says of itself, read by relight's own bounded reader before llama.cpp sees the file."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from relight.errors import ModelFileError
from relight.weights.container import open_container
from relight.weights.shards import weight_files

HASHED_BYTES = 4 << 20
MAX_TEMPLATE = 256 << 10
MAX_TOKEN_TEXT = 1024


@dataclass(frozen=True)
class Header:
    """`identity` differs between files whose weights or vocabularies do; `pooled`: made for embeddings."""

    path: Path
    name: str
    architecture: str
    identity: str
    template: str | None
    tool_template: str | None
    bos: str
    eos: str
    pooled: bool
    trained_context: int


def read_header(path: Path) -> Header:
    """Raises ModelFileError for what is no GGUF language model, and for headers that lie about the file."""
    files = weight_files(path)
    return _read(files, tuple((status.st_size, status.st_mtime_ns) for status in (file.stat() for file in files)))


@lru_cache(4)
def _read(files: tuple[Path, ...], versions: tuple[tuple[int, int], ...]) -> Header:
    """A vocabulary takes a tenth of a second to read; a model that comes back has the one it had."""
    metadata: dict[str, Any] = {}
    with ExitStack() as stack:
        for file in files:
            container = stack.enter_context(closing(open_container(file)))
            if not container.container.startswith("GGUF"):
                raise ModelFileError(f"{file}: is {container.container}; a language model has to be a GGUF file")
            metadata = dict(container.metadata) | metadata
        return _described(files[0], files, metadata)


def _described(path: Path, files: tuple[Path, ...], metadata: dict[str, Any]) -> Header:
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise ModelFileError(f"{path}: states no architecture (general.architecture); take another conversion of it")
    if "tokenizer.ggml.model" not in metadata:
        raise ModelFileError(f"{path}: is {architecture} without a vocabulary; it is no language model")
    context = metadata.get(f"{architecture}.context_length", 0)
    if type(context) is not int or not 0 <= context <= 1 << 31:
        raise ModelFileError(f"{path}: states a context of {context!r} tokens")
    return Header(
        path=path,
        name=_text(path, metadata, "general.name", 4096) or path.stem,
        architecture=architecture,
        identity=_identity(files),
        template=_text(path, metadata, "tokenizer.chat_template", MAX_TEMPLATE),
        tool_template=_text(path, metadata, "tokenizer.chat_template.tool_use", MAX_TEMPLATE),
        bos=_token(path, metadata, "bos"),
        eos=_token(path, metadata, "eos"),
        pooled=metadata.get(f"{architecture}.pooling_type", 0) in (1, 2, 3),
        trained_context=context,
    )


def _text(path: Path, metadata: dict[str, Any], key: str, limit: int) -> str | None:
    value = metadata.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ModelFileError(f"{path}: {key} is no text")
    if len(value) > limit:
        raise ModelFileError(f"{path}: {key} has {len(value)} characters, and {limit} are allowed")
    return value


def _token(path: Path, metadata: dict[str, Any], which: str) -> str:
    """The text of the token that begins or ends a text; empty where the file names none."""
    number, tokens = metadata.get(f"tokenizer.ggml.{which}_token_id"), metadata.get("tokenizer.ggml.tokens", ())
    if number is None:
        return ""
    if type(number) is not int or not 0 <= number < len(tokens):
        raise ModelFileError(f"{path}: its {which} token is number {number!r} of {len(tokens)}")
    text = str(tokens[number])
    if len(text) > MAX_TOKEN_TEXT:
        raise ModelFileError(f"{path}: its {which} token has {len(text)} characters")
    return text


def _identity(files: tuple[Path, ...]) -> str:
    """Sizes, times and first bytes: enough to tell files apart without reading gigabytes."""
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        status = file.stat()
        digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(HASHED_BYTES))
    return digest.hexdigest()
