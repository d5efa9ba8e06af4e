"""A YAML file as settings by place, each with its line; what is wrong with it as problems, all of them at once."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from relight.configuration.schema import entries, sections

LARGEST_BYTES = 1 << 20
NULL = "tag:yaml.org,2002:null"
BARE = (bool, int, float, str)


@dataclass(frozen=True)
class Found:
    """A value as YAML has it, and the line it stands in."""

    value: Any
    line: int


@dataclass
class Document:
    """`found` by place; `problems` are `(line, what)`."""

    found: dict[str, Found] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)


def read(text: str) -> Document:
    """What is unknown, double or of a wrong form is a problem; keys without a value are as good as not there."""
    document = Document()
    if len(text) > LARGEST_BYTES:
        document.problems.append((1, f"has {len(text)} characters, and settings take {LARGEST_BYTES} at most"))
        return document
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is not None and root.tag != NULL:
            _section(document, loader, root, "")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        document.problems.append((mark.line + 1 if mark else 1, f"is no YAML: {error.problem or error.context}"))
    except (yaml.YAMLError, RecursionError) as error:
        document.problems.append((1, f"is no YAML: {error}"))
    finally:
        loader.dispose()
    return document


def _section(document: Document, loader: yaml.SafeLoader, node: Any, prefix: str) -> None:
    where = prefix.rstrip(".") or "the file"
    if not isinstance(node, yaml.MappingNode):
        document.problems.append((line_of(node), f"{where} should hold `name: value` lines"))
        return
    _doubles(document, node, prefix)
    loader.flatten_mapping(node)  # what <<: brings stands before the section's own
    for key, value in {_name(key): (key, value) for key, value in node.value}.values():
        place, line = prefix + _name(key), line_of(key)
        if place in sections():
            if value.tag != NULL:
                _section(document, loader, value, f"{place}.")
        elif place not in entries():
            document.problems.append((line, unknown(place)))
        elif value.tag != NULL:
            _setting(document, loader, value, place)


def _doubles(document: Document, node: Any, prefix: str) -> None:
    seen: dict[str, int] = {}
    for key, _ in node.value:
        name, line = _name(key), line_of(key)
        if name in seen:
            document.problems.append((line, f"{prefix}{name} is there twice, in line {seen[name]} too"))
        seen.setdefault(name, line)


def _name(key: Any) -> str:
    return key.value if isinstance(key, yaml.ScalarNode) else "?"


def _setting(document: Document, loader: yaml.SafeLoader, node: Any, place: str) -> None:
    textual = entries()[place].kind.textual
    try:
        document.found[place] = Found(list(_values(loader, node, textual)), line_of(node))
    except ValueError as error:
        document.problems.append((line_of(node), f"{place} {error}"))
        return
    if not isinstance(node, yaml.SequenceNode):
        document.found[place] = Found(document.found[place].value[0], line_of(node))


def _values(loader: yaml.SafeLoader, node: Any, textual: bool) -> Iterator[Any]:
    """Of a plain value or a list of them."""
    for each in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        if not isinstance(each, yaml.ScalarNode):
            raise ValueError("should be one value, or a list of values")
        try:
            value = each.value if textual else loader.construct_object(each)
        except (yaml.YAMLError, ValueError) as error:
            raise ValueError(f"cannot be read: {each.value!r}") from error
        yield value if isinstance(value, BARE) else each.value


def line_of(node: Any) -> int:
    return int(node.start_mark.line) + 1


def unknown(place: str) -> str:
    """What to say of a name that is no setting: the nearest in its section, or where else it belongs."""
    section, _, key = place.rpartition(".")
    siblings = [name.rpartition(".")[2] for name in (*sections(), *entries()) if name.rpartition(".")[0] == section]
    near = difflib.get_close_matches(key, siblings, n=1, cutoff=0.6)
    if near:
        return f"{place} is no setting; did you mean {near[0]}?"
    elsewhere = _elsewhere(key, entries())
    if elsewhere:
        return f"{place} is no setting; did you mean {elsewhere}?"
    return f"{place} is no setting; {section or 'the file'} has {', '.join(siblings)}"


def _elsewhere(key: str, places: Collection[str]) -> str | None:
    """A setting of another section by this name, or whose flag has it."""
    flags = {entry.flag.removeprefix("--").replace("-", "_"): place for place, entry in entries().items() if entry.flag}
    by_key = flags | {place.rpartition(".")[2]: place for place in reversed(list(places))}
    near = difflib.get_close_matches(key, by_key, n=1, cutoff=0.75)
    return by_key[near[0]] if near else None
