"""What a folder, or a checkpoint and its surroundings, gives as a model: for people and for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relight.weights.families import TITLES
from relight.weights.folder import Components, Files, find_components
from relight.weights.identify import PREDICTIONS, gib


def describe_folder(path: Path) -> list[str]:
    """Lines for the terminal. Raises ModelFileError as find_components does."""
    found = find_components(path)
    state = f"lacks {', '.join(found.missing)}" if found.missing else "complete"
    said = f"; {PREDICTIONS[found.prediction]}" if found.prediction else ""
    nothing = not found.files and not found.extras
    lines = [f"{path}: " + ("no model" if nothing else f"{TITLES[found.family]} model, {state}{said}")]
    lines += [f"  {kind}: {_file(found, files)}" for kind, files in found.files.items()]
    lines += [f"  {kind} is missing: add {what}" for kind, what in found.missing.items() if not nothing]
    lines += [f"  T5 tokenizer: {tokenizer}" for tokenizer in found.tokenizers[:1]]
    for kind, several in found.others.items():
        lines += [f"  not chosen as {kind}: {_file(found, files)}" for files in several]
    for kind, several in found.extras.items():
        lines += [f"  also {kind}: {_file(found, files)}" for files in several]
    return lines + [f"  passed over: {reason}" for reason in found.unreadable.values()]


def folder_as_dict(path: Path) -> dict[str, Any]:
    """The same in JSON's types; each file with its paths, what it holds and its bytes."""
    found = find_components(path)
    return {
        "path": str(path),
        "model": found.family,
        "complete": not found.missing,
        "prediction": found.prediction,
        "files": {kind: _plain(found, files) for kind, files in found.files.items()},
        "missing": found.missing,
        "tokenizer": str(found.tokenizer) if found.tokenizer else None,
        "others": {kind: [_plain(found, files) for files in several] for kind, several in found.others.items()},
        "extras": {kind: [_plain(found, files) for files in several] for kind, several in found.extras.items()},
        "unreadable": {str(file): reason for file, reason in found.unreadable.items()},
    }


def _file(found: Components, files: Files) -> str:
    shards = f" and {len(files) - 1} more shards" if len(files) > 1 else ""
    return f"{files[0]}{shards}: {found.titles[files]}, {gib(_size(files))}"


def _plain(found: Components, files: Files) -> dict[str, Any]:
    return {"paths": [str(file) for file in files], "holds": found.titles[files], "bytes": _size(files)}


def _size(files: Files) -> int:
    return sum(file.stat().st_size for file in files)
