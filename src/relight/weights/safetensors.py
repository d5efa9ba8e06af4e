"""Bounded reader of safetensors headers: it works on the mapped bytes and allocates only for what it keeps."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from relight.weights.mapped import MAX_NAME_BYTES, MAX_TENSORS, Entry, Header, MappedFile, check_layout, entry

MAX_HEADER_BYTES = 100_000_000
MAX_METADATA_BYTES = 1 << 20
MAX_DIMENSIONS = 8

DTYPES = {
    "F32": "F32",
    "F16": "F16",
    "BF16": "BF16",
    "F8_E4M3": "F8_E4M3",
    "F8_E5M2": "F8_E5M2",
    "F64": "F64",
    "I64": "I64",
    "I32": "I32",
    "I16": "I16",
    "I8": "I8",
    "U64": "U64",
    "U32": "U32",
    "U16": "U16",
    "U8": "U8",
    "BOOL": "BOOL",
}

# Possessive repeats: no backtracking, so a long or unclosed string costs one pass and no memory.
STRING = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL)
OPEN = re.compile(rb"\{[ \t\r\n]*+")
COLON = re.compile(rb"[ \t\r\n]*+:[ \t\r\n]*+")
NEXT = re.compile(rb"[ \t\r\n]*+([,}])[ \t\r\n]*+")
SPACE = re.compile(rb"[ \t\r\n]*+")
TENSOR = re.compile(rb"\{[^{}]{0,1024}+\}")


def looks_like_safetensors(file: MappedFile) -> bool:
    return file.size > 8 and file.map[8:9] == b"{"


def read_safetensors(file: MappedFile) -> Header:
    """Names, shapes, formats and places of all tensors. Raises ModelFileError for anything out of order."""
    length = int.from_bytes(file.map[:8], "little")
    if length > MAX_HEADER_BYTES:
        file.fail(f"states a header of {length} bytes, and {MAX_HEADER_BYTES} are allowed")
    if length > file.size - 8:
        file.fail(f"states a header of {length} bytes, and {file.size - 8} follow")
    return _HeaderText(file, 8 + length).parse()


class _HeaderText:
    """The JSON object between byte 8 and `end`, read front to back."""

    def __init__(self, file: MappedFile, end: int) -> None:
        self.file, self.end, self.at = file, end, 8
        self.entries: dict[str, Entry] = {}
        self.metadata: dict[str, Any] = {}

    def parse(self) -> Header:
        seen_metadata = False
        for key in self.keys(MAX_TENSORS):
            if key != "__metadata__":
                self.tensor(key)
            elif seen_metadata:
                self.fail("has __metadata__ twice")
            else:
                self.read_metadata()
                seen_metadata = True
        self.at = self.expect(SPACE).end()
        if self.at != self.end:
            self.fail(f"goes on after its last brace at byte {self.at}")
        self.check_no_holes()
        return Header("safetensors", self.entries, self.metadata)

    def keys(self, limit: int) -> Iterator[str]:
        """Keys of the object at the cursor; the caller reads each value before asking for the next key."""
        self.expect(OPEN)
        if self.file.map[self.at : self.at + 1] == b"}" and self.at < self.end:
            self.at += 1
            return
        for _ in range(limit):
            yield self.name()
            if self.expect(NEXT)[1] == b"}":
                return
        self.fail(f"has more than {limit} entries")

    def tensor(self, name: str) -> None:
        if name in self.entries:
            self.fail(f"names tensor {name!r} twice")
        try:
            pairs = json.loads(self.expect(TENSOR)[0], object_pairs_hook=list)
            fields = dict(pairs)
        except (ValueError, TypeError, RecursionError):
            self.fail(f"describes tensor {name!r} with broken JSON")
        if len(pairs) != 3 or fields.keys() != {"dtype", "shape", "data_offsets"}:
            self.fail(f"describes tensor {name!r} by {sorted(fields)} instead of dtype, shape and data_offsets")
        dtype, shape, span = fields["dtype"], fields["shape"], fields["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPES:
            self.fail(f"gives tensor {name!r} the dtype {str(dtype)[:40]!r}, which relight does not read")
        if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS or not _are_sizes(span) or len(span) != 2:
            self.fail(f"gives tensor {name!r} a shape or offsets that are not lists of whole numbers")
        found = entry(self.file, name, tuple(shape), DTYPES[dtype], self.end + span[0])
        if span[1] - span[0] != found.nbytes:
            self.fail(
                f"gives {dtype} {shape} of tensor {name!r} {span[1] - span[0]} bytes, and it takes {found.nbytes}"
            )
        self.entries[name] = found

    def read_metadata(self) -> None:
        """Strings by name. What is longer than a mebibyte (training logs) is stepped over."""
        for key in self.keys(MAX_TENSORS):
            start = self.at
            match = self.expect(STRING)
            if self.at - start <= MAX_METADATA_BYTES:
                self.metadata[key] = self.decode(match[0])

    def name(self) -> str:
        match = STRING.match(self.file.map, self.at, min(self.end, self.at + MAX_NAME_BYTES + 2))
        if match is None:
            self.fail(f"has no name of at most {MAX_NAME_BYTES} bytes at byte {self.at}")
        self.at = match.end()
        text = self.decode(match[0])
        if not text.isprintable():
            self.fail(f"has control characters in the name {text!r}")
        self.expect(COLON)
        return text

    def decode(self, quoted: bytes) -> str:
        try:
            return str(json.loads(quoted))
        except ValueError:
            self.fail(f"has a broken string before byte {self.at}")

    def expect(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        match = pattern.match(self.file.map, self.at, self.end)
        if match is None:
            self.fail(f"is not the JSON of a safetensors file at byte {self.at}")
        self.at = match.end()
        return match

    def check_no_holes(self) -> None:
        """The format wants tensors end to end, from the header to the end of the file."""
        check_layout(self.file, self.entries)
        used = sum(item.nbytes for item in self.entries.values())
        if self.end + used != self.file.size:
            self.fail(f"describes {used} bytes of tensors, and {self.file.size - self.end} follow it")

    def fail(self, what: str) -> NoReturn:
        self.file.fail(f"the header {what}")


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
