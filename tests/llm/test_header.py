"""What a model file says of itself, and what it must not get away with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tiny_model import CHATML, write_model

from relight.errors import ModelFileError
from relight.llm.header import read_header


def written(path: Path, **metadata: Any) -> Path:
    """A file of one tensor with this metadata; keys have __ for dots."""
    w = gguf.GGUFWriter(path, "llama")
    for key, value in metadata.items():
        name = key.replace("__", ".")
        if isinstance(value, str):
            w.add_string(name, value)
        elif isinstance(value, list):
            w.add_array(name, value)
        elif isinstance(value, float):
            w.add_float32(name, value)
        else:
            w.add_uint32(name, value)
    w.add_tensor("token_embd.weight", np.zeros((2, 4), np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def test_a_models_header_is_read(model: Path) -> None:
    header = read_header(model)
    assert (header.name, header.architecture, header.template, header.eos) == ("tiny", "llama", CHATML, "<|im_end|>")
    assert (header.pooled, header.trained_context) == (False, 2048)


def test_another_vocabulary_is_another_identity(tmp_path: Path) -> None:
    one = write_model(tmp_path / "one.gguf")
    two = write_model(tmp_path / "two.gguf", seed=8)
    assert read_header(one).identity != read_header(two).identity
    assert read_header(one).identity == read_header(one).identity


WORDS: dict[str, Any] = {"tokenizer__ggml__model": "gpt2", "tokenizer__ggml__tokens": ["a", "b"]}


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({}, "without a vocabulary"),
        (WORDS | {"tokenizer__chat_template": "x" * 300_000}, "300000 characters, and 262144 are allowed"),
        (WORDS | {"tokenizer__chat_template": 7}, "is no text"),
        (WORDS | {"tokenizer__ggml__bos_token_id": 9}, "bos token is number 9 of 2"),
        (WORDS | {"tokenizer__ggml__eos_token_id": 0.5}, r"eos token is number 0\.5"),
        (WORDS | {"tokenizer__ggml__tokens": ["a" * 2000], "tokenizer__ggml__bos_token_id": 0}, "has 2000 characters"),
        (WORDS | {"llama__context_length": "many"}, "a context of 'many' tokens"),
    ],
)
def test_metadata_that_lies_is_named(tmp_path: Path, metadata: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        read_header(written(tmp_path / "x.gguf", **metadata))


@pytest.mark.parametrize("raw", [b"", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 16, b"text" * 10])
def test_what_is_no_gguf_is_refused_before_llama_cpp_sees_it(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(raw)
    with pytest.raises(ModelFileError, match=r"x\.gguf"):
        read_header(file)


def test_a_picture_models_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes((8).to_bytes(8, "little") + b'{"a":{}}')
    with pytest.raises(ModelFileError):
        read_header(file)
