"""Bounded reader of GGUF headers (versions 2 and 3, little endian). Every count is checked against the bytes left."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, overload

import numpy as np

from relight.weights.formats import BY_GGML_TYPE, REMOVED_GGML_TYPES
from relight.weights.mapped import MAX_NAME_BYTES, MAX_TENSORS, Entry, Header, MappedFile, check_layout, entry

MAGIC = b"GGUF"
MAX_KEYS = 65_536
MAX_STRING_BYTES = 1 << 20
MAX_ARRAY_ENTRIES = 64 << 20
MAX_STRINGS = 2 << 20  # each is stepped over by itself; the longest vocabularies have half a million pieces and merges
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 16
DEFAULT_ALIGNMENT = 32

U32, U64, TENSOR_TAIL = struct.Struct("<I"), struct.Struct("<Q"), struct.Struct("<IQ")
BOOL, STRING, ARRAY = 7, 8, 9
NUMBERS: dict[int, np.dtype[Any]] = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    BOOL: np.dtype("<u1"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
SMALLEST_KEY = 8 + 4 + 1
SMALLEST_TENSOR = 8 + 4 + 4 + 8


class Strings(Sequence[str]):
    """An array of strings in a mapped header, decoded when first used: vocabularies are long and rarely needed."""

    def __init__(self, file: MappedFile, offset: int, count: int) -> None:
        self._file, self._offset, self._count = file, offset, count
        self._decoded: list[str] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self._strings()[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._strings())

    def _strings(self) -> list[str]:
        if self._decoded is None:
            self._decoded = list(self._decode())
        return self._decoded

    def _decode(self) -> Iterator[str]:
        at, source = self._offset, self._file.map
        for _ in range(self._count):
            (length,) = U64.unpack_from(source, at)
            at += 8 + length
            yield source[at - length : at].decode(errors="replace")


def looks_like_gguf(file: MappedFile) -> bool:
    return file.map[:4] == MAGIC


def read_gguf(file: MappedFile) -> Header:
    """Names, shapes, formats and places of all tensors, and the metadata. Raises ModelFileError for anything wrong.

    Arrays of numbers are views into the map, arrays of strings are decoded when used: both need the file to stay open.
    """
    return _Cursor(file).parse()


class _Cursor:
    def __init__(self, file: MappedFile) -> None:
        self.file, self.at = file, 4

    def parse(self) -> Header:
        version = self.u32("version")
        if version not in (2, 3):
            big_endian = " (big endian)" if version in (2 << 24, 3 << 24) else ""
            self.file.fail(
                f"is GGUF version {version}{big_endian}, and relight reads 2 and 3, little endian", "take a newer file"
            )
        tensors = self.count("tensors", MAX_TENSORS, SMALLEST_TENSOR)
        metadata = self.read_metadata(self.count("metadata keys", MAX_KEYS, SMALLEST_KEY))
        alignment = self.alignment(metadata)
        stated = [self.tensor() for _ in range(tensors)]
        start = self.at + -self.at % alignment
        entries: dict[str, Entry] = {}
        for name, shape, format_name, offset in stated:
            if name in entries:
                self.file.fail(f"names tensor {name!r} twice")
            if offset % alignment:
                self.file.fail(f"tensor {name!r} starts at {offset}, which is no multiple of the alignment {alignment}")
            entries[name] = entry(self.file, name, shape, format_name, start + offset)
        check_layout(self.file, entries)
        return Header(f"GGUF v{version}", entries, metadata)

    def read_metadata(self, keys: int) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self.name("metadata key")
            if key in metadata:
                self.file.fail(f"has metadata key {key!r} twice")
            metadata[key] = self.value(self.u32(f"type of {key}"), key)
        return metadata

    def value(self, kind: int, key: str) -> Any:
        if kind == STRING:
            return self.string(f"metadata {key}", MAX_STRING_BYTES).decode(errors="replace")
        if kind == ARRAY:
            return self.array(key)
        number = self.numbers(kind, 1, key)[0].item()
        return bool(number) if kind == BOOL else number

    def array(self, key: str) -> Any:
        kind = self.u32(f"array type of {key}")
        smallest = 8 if kind == STRING else self.dtype(kind, key).itemsize
        limit = MAX_STRINGS if kind == STRING else MAX_ARRAY_ENTRIES
        count = self.count(f"entries of {key}", limit, smallest)
        if kind != STRING:
            numbers = self.numbers(kind, count, key)
            return numbers != 0 if kind == BOOL else numbers
        start = self.at
        self.skip_strings(count, key)
        return Strings(self.file, start, count)

    def skip_strings(self, count: int, key: str) -> None:
        at, source, size, unpack = self.at, self.file.map, self.file.size, U64.unpack_from
        for index in range(count):
            if at + 8 > size:
                self.at = at
                self.end(f"entry {index} of {key}", 8)
            (length,) = unpack(source, at)
            at += 8 + length
            if length > MAX_STRING_BYTES or at > size:
                self.at = at - length
                self.too_long(f"entry {index} of {key}", length, MAX_STRING_BYTES)
        self.at = at

    def tensor(self) -> tuple[str, tuple[int, ...], str, int]:
        name = self.name("tensor name")
        dimensions = self.u32(f"dimensions of {name}")
        if dimensions > MAX_DIMENSIONS:
            self.file.fail(f"gives tensor {name!r} {dimensions} dimensions, and {MAX_DIMENSIONS} are allowed")
        sizes = struct.unpack(f"<{dimensions}Q", self.take(8 * dimensions, f"shape of {name}"))
        if 0 in sizes:
            self.file.fail(f"gives tensor {name!r} a dimension of 0 in {list(sizes)}")
        kind, offset = TENSOR_TAIL.unpack(self.take(TENSOR_TAIL.size, f"type and offset of {name}"))
        if kind in REMOVED_GGML_TYPES:
            removed = REMOVED_GGML_TYPES[kind]
            self.file.fail(
                f"stores tensor {name!r} as {removed} (type {kind}), which ggml gave up", "take a Q4_0 or Q4_K file"
            )
        if kind not in BY_GGML_TYPE:
            self.file.fail(
                f"stores tensor {name!r} as type {kind}, which relight does not know", "take a Q4_K or Q8_0 file"
            )
        return name, sizes[::-1], BY_GGML_TYPE[kind].name, offset

    def alignment(self, metadata: dict[str, Any]) -> int:
        value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if type(value) is not int or not 8 <= value <= MAX_ALIGNMENT or value & (value - 1):
            self.file.fail(f"states an alignment of {value!r}, and powers of two from 8 to {MAX_ALIGNMENT} are allowed")
        return value

    def dtype(self, kind: int, key: str) -> np.dtype[Any]:
        if kind not in NUMBERS:
            what = "an array of arrays" if kind == ARRAY else f"type {kind}"
            self.file.fail(f"metadata {key!r} is {what}, which relight does not read")
        return NUMBERS[kind]

    def numbers(self, kind: int, count: int, key: str) -> np.ndarray:
        dtype = self.dtype(kind, key)
        size = count * dtype.itemsize
        if size > self.file.size - self.at:
            self.end(f"metadata {key}", size)
        self.at += size
        return self.file.view(self.at - size, size).view(dtype)

    def count(self, what: str, limit: int, smallest: int) -> int:
        """A count of things of at least `smallest` bytes each, which must fit into the rest of the file."""
        (count,) = U64.unpack(self.take(8, f"number of {what}"))
        if count > limit:
            self.file.fail(f"states {count} {what}, and {limit} are allowed")
        if count * smallest > self.file.size - self.at:
            self.file.fail(
                f"states {count} {what} of {smallest} bytes or more, and {self.file.size - self.at} bytes follow"
            )
        return int(count)

    def name(self, what: str) -> str:
        raw = self.string(what, MAX_NAME_BYTES)
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            self.file.fail(f"has a {what} that is not UTF-8 before byte {self.at}")
        if not text.isprintable():
            self.file.fail(f"has control characters in the {what} {text!r}")
        return text

    def string(self, what: str, limit: int) -> bytes:
        (length,) = U64.unpack(self.take(8, f"length of {what}"))
        if length > limit or length > self.file.size - self.at:
            self.too_long(what, length, limit)
        return self.take(length, what)

    def u32(self, what: str) -> int:
        return int(U32.unpack(self.take(4, what))[0])

    def take(self, size: int, what: str) -> bytes:
        if size > self.file.size - self.at:
            self.end(what, size)
        self.at += size
        return self.file.map[self.at - size : self.at]

    def end(self, what: str, size: int) -> NoReturn:
        left = max(self.file.size - self.at, 0)
        self.file.fail(f"is cut short: {what} needs {size} bytes, and {left} are left at byte {self.at}")

    def too_long(self, what: str, length: int, limit: int) -> NoReturn:
        left = self.file.size - self.at
        self.file.fail(f"states {length} bytes for {what}, and {limit} are allowed and {left} left in the file")
