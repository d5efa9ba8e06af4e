"""Which files make up one component: a file, a file in numbered shards, an index of shards, or a folder of those."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from relight.errors import ModelFileError

ENDINGS = (".safetensors", ".gguf")
INDEX_ENDING = ".safetensors.index.json"
MAX_INDEX_BYTES = 16 << 20
MAX_SHARDS = 1000
SHARD = re.compile(r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})(?P<ending>\.safetensors|\.gguf)")


def weight_files(paths: Path | Sequence[Path]) -> tuple[Path, ...]:
    """The files behind the paths given, shards complete and in order. Raises ModelFileError for what is not there."""
    files: dict[Path, None] = {}
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        files.update(dict.fromkeys(_files_of(Path(path))))
    if not files:
        raise ModelFileError("no weights file is given")
    return tuple(files)


def _files_of(path: Path) -> tuple[Path, ...]:
    if path.is_dir():
        return _files_in(path)
    if not path.exists():
        near = _neighbours(path)
        raise ModelFileError(f"{path}: no such file" + (f"; beside it are {', '.join(near)}" if near else ""))
    if path.name.endswith(INDEX_ENDING):
        return _indexed(path)
    return _with_siblings(path)


def _files_in(folder: Path) -> tuple[Path, ...]:
    """The one component of a folder: by its index, else its only file; of variants the one without a variant's name."""
    if indices := sorted(folder.glob("*" + INDEX_ENDING), key=_plainness):
        return _indexed(indices[0])
    found = sorted((p for p in folder.iterdir() if p.suffix.lower() in ENDINGS and p.is_file()), key=_plainness)
    if not found:
        raise ModelFileError(f"{folder}: no .safetensors or .gguf file in this folder; name the file")
    firsts = dict.fromkeys(_with_siblings(path) for path in found)
    if len(firsts) > 1 and not found[0].name.startswith(("model.", "diffusion_pytorch_model.", "model-", "diffusion_")):
        names = ", ".join(path.name for path in found[:8])
        raise ModelFileError(f"{folder}: {len(firsts)} weights files in this folder ({names}); name one")
    return next(iter(firsts))


def _plainness(path: Path) -> tuple[int, str]:
    """`model.safetensors` before `model.fp16.safetensors`."""
    return path.name.count("."), path.name


def _indexed(index: Path) -> tuple[Path, ...]:
    if index.stat().st_size > MAX_INDEX_BYTES:
        raise ModelFileError(f"{index}: an index of {index.stat().st_size} bytes; {MAX_INDEX_BYTES} are allowed")
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{index}: is not an index of shards (no weight_map); download it again") from error
    for name in names:
        # A shard map decides which files are opened: it may name files beside it and nothing else.
        if not isinstance(name, str) or Path(name).name != name or not name.lower().endswith(ENDINGS) or "\\" in name:
            raise ModelFileError(
                f"{index}: names the shard {str(name)[:80]!r}, and only files beside the index are allowed"
            )
    if not names or len(names) > MAX_SHARDS:
        raise ModelFileError(f"{index}: names {len(names)} shards; 1 to {MAX_SHARDS} are allowed")
    return _all_present([index.parent / name for name in names], f"{index}: names")


def _with_siblings(path: Path) -> tuple[Path, ...]:
    """All shards when the file is one of them: `x-00001-of-00003.safetensors`."""
    match = SHARD.fullmatch(path.name)
    if match is None:
        return (path,)
    count = int(match["count"])
    if not 1 <= int(match["index"]) <= count <= MAX_SHARDS:
        raise ModelFileError(f"{path}: is shard {int(match['index'])} of {count}; 1 to {MAX_SHARDS} are allowed")
    names = (f"{match['stem']}-{i:05}-of-{count:05}{match['ending']}" for i in range(1, count + 1))
    return _all_present([path.parent / name for name in names], f"{path}: is one of")


def _all_present(files: list[Path], what: str) -> tuple[Path, ...]:
    absent = [path.name for path in files if not path.is_file()]
    if absent:
        listed = ", ".join(absent[:3]) + (" ..." if len(absent) > 3 else "")
        raise ModelFileError(
            f"{what} {len(files)} shards, and {len(absent)} are not there ({listed}): download them too"
        )
    return tuple(files)


def _neighbours(path: Path) -> list[str]:
    if not path.parent.is_dir():
        return []
    return sorted(p.name for p in path.parent.iterdir() if p.suffix.lower() in ENDINGS)[:5]
