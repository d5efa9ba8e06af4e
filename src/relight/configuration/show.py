"""Settings as YAML again: those in force with where each came from, or all there are, explained."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import yaml

from relight.configuration.load import Loaded
from relight.configuration.schema import Entry, Settings, entries, sections, value_at

INDENT = "  "
PLAIN = re.compile(r"[\w./~](?:[\w./~+=@-]| (?=[\w./~]))*")
WIDTH = 116
LONG = 1 << 30


def effective(loaded: Loaded) -> str:
    """Every setting with its value and, after it, where that came from; it reads back as the same settings."""
    lines = []
    for place, entry in in_order(entries()):
        depth = INDENT * place.count(".")
        if entry is None:
            lines.append(f"{depth}{place.rpartition('.')[2]}:")
            continue
        origin = loaded.origins.get(place)
        line = f"{depth}{entry.key}: {scalar(plain(loaded.settings, entry))}"
        lines.append(f"{line:<44}  # {origin.where if origin else 'default'}")
    return "\n".join(lines) + "\n"


def as_dict(loaded: Loaded) -> dict[str, Any]:
    """For --json: values by section, and origins by place."""
    nested: dict[str, Any] = {}
    for place, entry in entries().items():
        inner = nested
        for name in place.split(".")[:-1]:
            inner = inner.setdefault(name, {})
        inner[entry.key] = plain(loaded.settings, entry)
    origins = {
        place: {"kind": origin.kind, "where": origin.where} if (origin := loaded.origins.get(place)) else None
        for place in entries()
    }
    file = str(loaded.file) if loaded.file else None
    return {"file": file, "settings": nested, "origins": origins, "notes": list(loaded.notes)}


def explained(chosen: Mapping[str, Any], reasons: Mapping[str, str], heading: Collection[str] = ()) -> str:
    """A file of every setting: those chosen as they are, with the reason for them, the rest commented out with their
    defaults. What a setting means is said where it is first met."""
    lines = [f"# {line}".rstrip() for line in heading]
    told: set[str] = set()
    for place, entry in in_order(entries()):
        depth = INDENT * place.count(".")
        if entry is None:
            if not depth:
                lines.append("")
            lines += [f"{depth}# {sections()[place]}", f"{depth}{place.rpartition('.')[2]}:"]
            continue
        value = scalar(chosen[place] if place in chosen else entry.plain_default)
        words = f"{entry.words} ({entry.kind.words})".replace("`", "")
        if words not in told:
            lines += wrapped(words, f"{depth}# ")
        if place in reasons:
            lines += wrapped(reasons[place], f"{depth}# ")
        told.add(words)
        lines.append(f"{depth}{'' if place in chosen else '# '}{entry.key}: {value}")
    return "\n".join(lines) + "\n"


def in_order(places: Mapping[str, Entry]) -> Iterator[tuple[str, Entry | None]]:
    """Settings with the sections they are in before them (None)."""
    told: set[str] = set()
    for place, entry in places.items():
        names = place.split(".")
        for depth in range(1, len(names)):
            if (above := ".".join(names[:depth])) not in told:
                told.add(above)
                yield above, None
        yield place, entry


def plain(settings: Settings, entry: Entry) -> Any:
    value = value_at(settings, entry.place)
    return None if value is None else entry.kind.plain(value)


def scalar(value: Any) -> str:
    """On one line, as YAML and as people write it."""
    if isinstance(value, list):
        return "[" + ", ".join(scalar(each) for each in value) + "]"
    if isinstance(value, str):
        return quoted(value)
    return "null" if value is None else json.dumps(value)


def quoted(text: str) -> str:
    """Text as YAML reads it back: in quotes where it would be something else without."""
    if PLAIN.fullmatch(text) and is_read_back(text):
        return text
    written: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=LONG)
    return written.rstrip("\n").replace("${", "$${")


def is_read_back(text: str) -> bool:
    """Not so words that mean something: no, null, 1.0, 2026-01-01."""
    try:
        return bool(yaml.safe_load(f"a: {text}") == {"a": text})
    except (yaml.YAMLError, ValueError):
        return False


def wrapped(words: str, begin: str) -> list[str]:
    lines, line = [], ""
    for word in words.split():
        if line and len(begin) + len(line) + len(word) + 1 > WIDTH:
            lines.append(begin + line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, begin + line]
