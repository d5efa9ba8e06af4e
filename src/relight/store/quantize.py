"""A checkpoint in smaller formats as GGUF: read, decoded, quantised and written a few million values at a time."""

from __future__ import annotations

import mmap
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from relight.errors import ModelFileError, RequestError
from relight.executors.ggml.library import load
from relight.executors.ggml.quantize import quantize as encode
from relight.store.pull import check_room
from relight.store.rules import FILE_TYPES, Rule, choose
from relight.weights.assembly import place_names, take
from relight.weights.container import Container, open_container
from relight.weights.formats import FORMATS, nbytes
from relight.weights.gguf import Strings
from relight.weights.mapped import MappedFile
from relight.weights.names import AVERAGES, OPENCLIP
from relight.weights.quants import row_bytes, to_float32
from relight.weights.recognise import Found, recognise
from relight.weights.shards import weight_files
from relight.weights.stored import Stored, StoredTensor, gather
from relight.weights.write import TensorSource, write_gguf

CHUNK_ELEMENTS = 1 << 21
ARCHITECTURES = {"t5xxl": "t5encoder", "clip_l": "clip", "clip_g": "clip", "clip_h": "clip", "vae": "vae"}
"""What GGUF calls a file by; one with a transformer or UNet is called by its family of models."""
BACKBONES = ("diffusion", "unet", "controlnet")
"""Written under our names, which are those other programs read, whatever their publisher called them."""
KEPT_METADATA = ("general.name", "tokenizer.")


@dataclass(frozen=True)
class Item:
    """A tensor of the input, the name it is written under, and the component and name that rules are matched with."""

    name: str
    kind: str
    rule_name: str
    tensor: StoredTensor


@dataclass(frozen=True)
class Result:
    """What was written: bytes before and after, tensors by format."""

    read_bytes: int
    written_bytes: int
    formats: Mapping[str, int]


def quantize_file(
    source: Path,
    out: Path,
    wanted: str,
    rules: Sequence[Rule] = (),
    *,
    threads: int,
    force: bool = False,
    started: Callable[[int], None] = lambda total: None,
    advance: Callable[[int], None] = lambda count: None,
) -> Result:
    """Write `source` (a file, its shards, or a folder of them) to `out` with most matrices in `wanted`.

    `started` gets the bytes that will be read, `advance` those read since its last call. Raises RequestError when `out`
    is there and not to be replaced, ModelFileError for what cannot be read or written, StoreError for want of room.
    """
    if out.exists() and not force:
        raise RequestError(f"{out}: is there already; --force replaces it")
    if out.suffix.lower() != ".gguf":
        raise RequestError(f"{out}: the result is GGUF; give a name that ends with .gguf")
    if not out.parent.is_dir():
        raise RequestError(f"{out.parent}: no such folder")
    paths = weight_files(source)
    containers = [open_container(path) for path in paths]
    try:
        items, metadata = contents(containers)
        formats = {item.name: choose(item.kind, item.rule_name, item.tensor.shape, wanted, rules) for item in items}
        check_room(out.parent.absolute(), sum(nbytes(formats[item.name], item.tensor.shape) for item in items))
        started(sum(item.tensor.nbytes for item in items))
        load()  # ggml's tables, before threads share them
        with ThreadPoolExecutor(threads, "quantize") as pool:
            reader = Reader([container.file for container in containers], pool, threads, advance)
            sources = [
                TensorSource(
                    item.name,
                    item.tensor.shape,
                    formats[item.name],
                    partial(reader.pieces, item.tensor, formats[item.name]),
                )
                for item in items
            ]
            written = write_gguf(out, sources, metadata | {"general.file_type": np.uint32(FILE_TYPES[wanted])})
        read = sum(item.tensor.nbytes for item in items)
        return Result(read, written, Counter(formats.values()))
    finally:
        items = []
        for container in containers:
            container.close()


def contents(containers: Sequence[Container]) -> tuple[list[Item], dict[str, Any]]:
    """Every tensor to be written, and the metadata. Raises ModelFileError for files relight has no use for."""
    stored = gather(containers)
    found = recognise({name: item.entry.shape for name, item in stored.items()})
    where = containers[0].path
    if any(each.kind in ("language model", "lora", "embedding") for each in found):
        raise ModelFileError(f"{where}: holds a {found[0].family}; relight quantises the networks of image models")
    items = _items(found, stored)
    unread = next((item for item in items if item.tensor.format not in FORMATS), None)
    if unread is not None:
        raise ModelFileError(f"{where}: {unread.name} is {unread.tensor.format}, which relight does not decode")
    if not any(len(item.tensor.shape) > 1 for item in items):
        raise ModelFileError(f"{where}: holds no matrices to quantise")
    return items, _metadata(found, containers)


def _items(found: Sequence[Found], stored: Mapping[str, Stored]) -> list[Item]:
    """Networks relight runs under names it reads, with their fp8 scales applied; what it takes apart or turns
    (OpenCLIP's) and the rest as they are stored."""
    items: list[Item] = []
    taken: set[str] = set()
    apart = [network for network in found if network.usable and network.names_as != OPENCLIP]
    for network in apart:
        pieces, _ = place_names(network, stored)
        tensors, _ = take(network, stored)
        taken |= {part.entry.name for parts in pieces.values() for _, part in parts.values()}
        prefix = network.prefix if len(found) > 1 else ""
        if network.names_as == AVERAGES:
            prefix = "model.diffusion_model."
        for name, tensor in tensors.items():
            parts = pieces[name]
            plain = network.kind not in BACKBONES and len(parts) == 1
            written = parts[0][1].entry.name if plain else prefix + name
            items.append(Item(written, network.kind, name, tensor))
    others = [network for network in found if network not in apart]
    for name, item in stored.items():
        owner = next((each for each in others if name.startswith(each.prefix)), None)
        if name not in taken and (owner or not found) and item.entry.format not in ("I64", "BOOL", "F64"):
            entry = item.entry
            tensor = StoredTensor(name, entry.shape, entry.format, (item.bytes(),), path=item.path)
            short = name.removeprefix(owner.prefix) if owner else name
            items.append(Item(name, owner.kind if owner else "", short, tensor))
    return items


def _metadata(found: Sequence[Found], containers: Sequence[Container]) -> dict[str, Any]:
    stated = {key: value for container in containers for key, value in container.metadata.items()}
    kept = {key: _plain(value) for key, value in stated.items() if key.startswith(KEPT_METADATA)}
    first = next((each for each in found if each.kind in BACKBONES), found[0] if found else None)
    known = (first.model or ARCHITECTURES.get(first.kind)) if first else None
    architecture = known or stated.get("general.architecture") or "unknown"
    return {"general.architecture": architecture, "general.quantization_version": np.uint32(2)} | kept


def _plain(value: Any) -> Any:
    """A metadata value as the writer takes it: lists of strings are read lazily."""
    return list(value) if isinstance(value, Strings) else value


@dataclass
class Reader:
    """Gives the bytes of tensors in other formats, chunk by chunk in order, a few chunks ahead on other threads."""

    files: Sequence[MappedFile]
    pool: ThreadPoolExecutor
    ahead: int
    advance: Callable[[int], None]

    def pieces(self, tensor: StoredTensor, format_name: str) -> Iterator[np.ndarray]:
        """Consecutive pieces of the tensor's new bytes; memory for a few chunks, whatever its size."""
        waiting: deque[tuple[int, Future[np.ndarray]]] = deque()
        try:
            for size, task in self._tasks(tensor, format_name):
                waiting.append((size, self.pool.submit(task)))
                if len(waiting) > self.ahead:
                    yield self._finish(*waiting.popleft())
            while waiting:
                yield self._finish(*waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()
        self._forget_pages()

    def _finish(self, size: int, future: Future[np.ndarray]) -> np.ndarray:
        piece = future.result()
        self.advance(size)
        return piece

    def _tasks(self, tensor: StoredTensor, format_name: str) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
        if tensor.format == format_name and tensor.scale == 1.0:
            for part in tensor.parts:
                for start in range(0, part.size, 4 * CHUNK_ELEMENTS):
                    piece = part[start : start + 4 * CHUNK_ELEMENTS]
                    yield piece.size, partial(np.array, piece)
        elif len(tensor.shape) < 2:
            yield tensor.nbytes, partial(convert, tensor, np.concatenate(tensor.parts), tensor.shape, format_name)
        else:
            row = nbytes(tensor.format, tensor.shape[1:])
            step = max(1, CHUNK_ELEMENTS // max(1, prod(tensor.shape[1:])))
            for first in range(0, tensor.shape[0], step):
                rows = np.arange(first, min(first + step, tensor.shape[0]))
                yield len(rows) * row, partial(self._rows, tensor, rows, format_name)

    def _rows(self, tensor: StoredTensor, rows: np.ndarray, format_name: str) -> np.ndarray:
        return convert(tensor, row_bytes(tensor, rows), (len(rows), *tensor.shape[1:]), format_name)

    def _forget_pages(self) -> None:
        """Pages that were read count as this process's memory for as long as they are mapped in."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for file in self.files:
                file.map.madvise(mmap.MADV_DONTNEED)


def convert(tensor: StoredTensor, raw: np.ndarray, shape: tuple[int, ...], format_name: str) -> np.ndarray:
    """Rows of a tensor in another format, as bytes. Raises ModelFileError where values are not finite."""
    values = to_float32(tensor.format, raw, shape)
    if tensor.scale != 1.0:
        values *= np.float32(tensor.scale)
    if not np.isfinite(values).all():
        raise ModelFileError(f"{tensor.path}: {tensor.name} has values that are no numbers; download the file again")
    return encode(values, format_name)
