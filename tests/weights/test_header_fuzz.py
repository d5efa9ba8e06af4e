"""Both header readers under hostile input: refused or read, within 50 ms and 64 MiB, never anything else.

Time is the processor's, so that a busy machine fails nothing; memory is what Python allocates at the peak.
"""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile import gguf, key, safetensors, tensor, text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import checkpoints as made
from relight.errors import ModelFileError
from relight.weights.checkpoint import open_component
from relight.weights.container import open_container
from relight.weights.identify import as_dict, describe, identify
from relight.weights.stored import gather

SECONDS, BYTES = 0.5, 64 << 20
BOUNDED = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_all(path: Path) -> bool:
    """Open, check that every tensor lies in the file, and decode all metadata. False when refused."""
    try:
        container = open_container(path)
    except ModelFileError as error:
        assert path.name in str(error)
        assert "\n" not in str(error)
        return False
    for entry in container.entries.values():
        assert 0 < entry.offset <= entry.offset + entry.nbytes <= container.file.size
        assert container.bytes_of(entry).size == entry.nbytes
    for value in container.metadata.values():
        if hasattr(value, "__len__"):
            assert len(list(value)) == len(value)
    gather([container])
    container.close()
    return True


def within_bounds(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    start = time.process_time()
    accepted = read_all(path)
    assert time.process_time() - start < SECONDS
    return accepted


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hostile"


NUMBERS = st.one_of(
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, 1, 31, 32, 255, 2**16, 2**26, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63, 2**64 - 1]),
)
NAMES = st.one_of(st.text(max_size=8), st.binary(max_size=8))


@st.composite
def gguf_tensors(draw: st.DrawFn) -> bytes:
    sizes = draw(st.lists(NUMBERS, max_size=5))
    kind = draw(st.one_of(st.integers(0, 45), st.integers(0, 2**32 - 1)))
    return tensor(draw(names()), tuple(sizes), kind, draw(NUMBERS))


@st.composite
def names(draw: st.DrawFn) -> bytes:
    name = draw(NAMES)
    return name if isinstance(name, bytes) else name.encode(errors="replace")


@st.composite
def gguf_keys(draw: st.DrawFn) -> bytes:
    """A key with a plain value, or with an array whose count and bytes need not agree."""
    name = draw(st.sampled_from(["general.alignment", "general.architecture", "k", "comfy.gguf.orig_shape.t"]))
    kind = draw(st.integers(0, 13))
    if kind == 9:
        count = draw(st.one_of(st.integers(0, 4), NUMBERS))
        value = struct.pack("<IQ", draw(st.integers(0, 13)), count) + draw(st.binary(max_size=40))
    elif kind == 8:
        value = draw(st.one_of(names().map(text), NUMBERS.map(lambda n: struct.pack("<Q", n))))
    else:
        value = draw(st.binary(max_size=8))
    return key(name, kind, value)


@BOUNDED
@given(st.lists(gguf_tensors(), max_size=4), st.lists(gguf_keys(), max_size=4), st.sampled_from([1, 2, 3, 4]))
def test_gguf_of_any_numbers_is_read_or_refused(
    path: Path, tensors: list[bytes], keys: list[bytes], version: int
) -> None:
    within_bounds(path, gguf(tensors, keys, version=version))


@BOUNDED
@given(NUMBERS, NUMBERS, st.binary(max_size=200))
def test_gguf_of_any_counts_is_read_or_refused(path: Path, tensors: int, keys: int, rest: bytes) -> None:
    within_bounds(path, b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + rest)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
DTYPES = st.sampled_from(["F32", "F16", "BF16", "F8_E4M3", "I64", "BOOL", "F4", ""])
SIZES = st.lists(st.integers(0, 9) | NUMBERS, max_size=9)
STATED = st.fixed_dictionaries({"dtype": DTYPES | JSON, "shape": SIZES | JSON, "data_offsets": SIZES | JSON})
HEADERS = st.dictionaries(st.text(max_size=6) | st.just("__metadata__"), STATED | JSON, max_size=4)


@BOUNDED
@given(
    st.dictionaries(st.text(max_size=6) | st.just("__metadata__"), STATED | JSON, max_size=4), st.binary(max_size=64)
)
def test_safetensors_of_any_json_is_read_or_refused(path: Path, header: dict[str, object], body: bytes) -> None:
    within_bounds(path, safetensors(header, body))


@BOUNDED
@given(NUMBERS, st.binary(max_size=200))
def test_safetensors_of_any_bytes_is_read_or_refused(path: Path, length: int, rest: bytes) -> None:
    within_bounds(path, struct.pack("<Q", length) + b"{" + rest)


def valid_files(folder: Path) -> dict[str, bytes]:
    clip = made.arrays("clip_l", layers=1, hidden=8)
    return {
        "gguf": made.leejet(folder / "clip.gguf", clip, "F32").read_bytes(),
        "gguf with metadata": made.llama_cpp_t5(folder / "t5", made.arrays("t5xxl", layers=1, hidden=32)).read_bytes(),
        "safetensors": made.safetensors(folder / "clip", clip).read_bytes(),
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("case", ["gguf", "gguf with metadata", "safetensors"])
def test_mutated_valid_file_is_read_or_refused(case: str, seed: int, path: Path, tmp_path: Path) -> None:
    """500 mutations of a header: bytes changed, numbers made huge, pieces cut out or doubled, the end cut off."""
    valid = valid_files(tmp_path)[case]
    header = 4096 if case != "safetensors" else 8 + int.from_bytes(valid[:8], "little")
    rng = np.random.default_rng(seed)
    assert within_bounds(path, valid)
    accepted = sum(within_bounds(path, mutated(valid, header, rng)) for _ in range(500))
    assert accepted < 500


def mutated(valid: bytes, header: int, rng: np.random.Generator) -> bytes:
    content = bytearray(valid)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, min(header, len(content))))
        match rng.integers(0, 5):
            case 0:
                content[at] ^= 1 << int(rng.integers(0, 8))
            case 1:
                content[at] = int(rng.integers(0, 256))
            case 2:
                content[at : at + 8] = struct.pack("<Q", int(rng.choice([2**63, 2**40, 2**32, 2**20, 0])))
            case 3:
                del content[at : at + int(rng.integers(1, 16))]
            case 4:
                content[at:at] = content[at : at + int(rng.integers(1, 16))]
    return bytes(content[: rng.integers(1, len(content))] if rng.random() < 0.1 else content)


@pytest.mark.parametrize("case", ["gguf", "safetensors"])
def test_what_is_read_after_a_mutation_can_be_identified_and_opened(case: str, path: Path, tmp_path: Path) -> None:
    valid = valid_files(tmp_path)[case]
    rng = np.random.default_rng(9)
    opened = 0
    for _ in range(200):
        path.write_bytes(mutated(valid, 4096, rng))
        try:
            identity = identify(path)
            assert as_dict(identity)["tensors"] == identity.tensors
            assert all(line.isprintable() for line in describe(identity))
            open_component("clip_l", path)
            opened += 1
        except ModelFileError as error:
            assert "\n" not in str(error)
    assert opened > 0


LARGE = {
    "84 bytes that ask for 6 GiB": gguf([], [key("k", 9, struct.pack("<IQ", 8, 2**31))], body=b""),
    "an array of 2^40": gguf([], [key("k", 9, struct.pack("<IQ", 4, 2**40))], body=b""),
    "8 MiB of opening braces": struct.pack("<Q", 8 << 20) + b"{" * (8 << 20),
    "8 MiB of spaces": struct.pack("<Q", 8 << 20) + b"{" + b" " * (8 << 20),
    "an unclosed name of 8 MiB": struct.pack("<Q", 8 << 20) + b'{"' + b"a" * (8 << 20),
    "an unclosed name of escapes": struct.pack("<Q", 8 << 20) + b'{"' + b"\\n" * (4 << 20),
    "metadata of 2 MiB of escapes": safetensors(b'{"__metadata__":{"a":"' + b"\\n" * (1 << 20) + b'"}}'),
    "a tensor of 8 MiB of text": safetensors(b'{"a":{"dtype":"' + b"F" * (8 << 20) + b'"}}'),
    "nested 1000 deep": safetensors(b'{"a":{"shape":' + b"[" * 1000 + b"]" * 1000 + b"}}"),
}


@pytest.mark.parametrize("case", LARGE)
def test_large_claims_cost_little(case: str, path: Path) -> None:
    within_bounds(path, LARGE[case])
    assert peak_bytes(lambda: read_all(path)) < BYTES


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_vocabulary_that_is_not_used_takes_no_memory(path: Path) -> None:
    path.write_bytes(gguf([], [key("k", 9, struct.pack("<IQ", 8, 2**16))], body=bytes(8 << 16)))
    assert peak_bytes(lambda: open_container(path)) < 1 << 16


@pytest.mark.parametrize("case", ["gguf", "gguf with metadata", "safetensors"])
def test_every_length_of_a_valid_file_is_read_or_refused(case: str, path: Path, tmp_path: Path) -> None:
    valid = valid_files(tmp_path)[case]
    lengths = [*range(1, 400), *range(400, len(valid), max(1, len(valid) // 100))]
    assert not any(within_bounds(path, valid[:length]) for length in lengths)
