"""Textual inversion: the learned vectors that stand for a word, in the files people share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from relight.errors import ModelFileError
from relight.weights.container import Container, open_container
from relight.weights.formats import FORMATS
from relight.weights.mapped import Entry
from relight.weights.quants import to_float32

WIDTHS = {768: "clip_l", 1024: "clip_h", 1280: "clip_g"}
PICKLES = (".pt", ".bin")
ENDINGS = (".safetensors", *PICKLES)
CONVERT = (
    "relight reads .safetensors only, because loading a pickle runs whatever code is in it: take the .safetensors "
    "version, or convert it yourself, in a sandbox unless you trust it: python -c "
    "\"import torch, safetensors.torch as s; d = torch.load('IN', map_location='cpu', weights_only=True); "
    "d = d.get('string_to_param', d); s.save_file({k: v.detach().clone().contiguous() for k, v in d.items() "
    "if torch.is_tensor(v)}, 'OUT.safetensors')\""
)
MAX_VECTORS = 75  # a chunk of a prompt has no room for more


def find_embeddings(folder: Path) -> dict[str, Path]:
    """Files of embeddings in a folder and below, by the name a prompt calls them: that of the file.

    Of two with one name the one nearer to the top counts, and a .safetensors before a pickle. Pickles are listed, so
    that `load_embedding` can say what to do when one is called. A folder that is not there has none.
    """
    files = [path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file()]
    files.sort(key=lambda path: (ENDINGS.index(path.suffix.lower()), len(path.parts), path))
    found: dict[str, Path] = {}
    for path in files:
        found.setdefault(path.stem, path)
    return found


def load_embedding(path: Path) -> dict[str, np.ndarray]:
    """The vectors [n D] f32 for each text encoder: `clip_l` (768 wide), `clip_h` (1024) or `clip_g` (1280).

    Whatever the publisher calls the tensors (`emb_params`, `clip_l` and `clip_g`, `<word>`), their widths tell them
    apart. Raises ModelFileError for pickles, with the way to convert them, and for what is no embedding.
    """
    if path.suffix.lower() in PICKLES:
        raise ModelFileError(f"{path}: is a PyTorch pickle; {CONVERT}")
    container = open_container(path)
    try:
        vectors: dict[str, np.ndarray] = {}
        for entry in container.entries.values():
            kind, rows = encoder(container, entry), read(container, entry)
            if kind in vectors:
                container.file.fail(f"has two tensors for {kind}", "take a file with one embedding")
            vectors[kind] = rows
        if len({len(rows) for rows in vectors.values()}) != 1:
            counts = ", ".join(f"{len(rows)} for {kind}" for kind, rows in vectors.items()) or "none"
            container.file.fail(f"has different numbers of vectors ({counts})", "take another copy of the embedding")
        return vectors
    finally:
        container.close()


def encoder(container: Container, entry: Entry) -> str:
    width = entry.shape[-1] if entry.shape else 0
    count = entry.shape[0] if len(entry.shape) == 2 else 1
    if width not in WIDTHS or len(entry.shape) > 2 or not 1 <= count <= MAX_VECTORS:
        widths = ", ".join(f"{width} ({kind})" for width, kind in WIDTHS.items())
        container.file.fail(
            f"tensor {entry.name!r} of shape {list(entry.shape)} is no textual inversion",
            f"one has 1 to {MAX_VECTORS} vectors of {widths} values",
        )
    return WIDTHS[width]


def read(container: Container, entry: Entry) -> np.ndarray:
    if entry.format not in FORMATS:
        container.file.fail(f"tensor {entry.name!r} has the format {entry.format}", "take a copy in F32, F16 or BF16")
    values = to_float32(entry.format, container.bytes_of(entry), entry.shape).reshape(-1, entry.shape[-1])
    if not np.isfinite(values).all():
        container.file.fail(f"tensor {entry.name!r} has {np.sum(~np.isfinite(values))} values that are not numbers")
    return values
