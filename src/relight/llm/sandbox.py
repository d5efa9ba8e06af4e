"""Where chat templates run: Jinja's sandbox, and bounds on the memory a template can ask for.

Every way to make a longer text out of shorter ones is counted: operators, joins, replacements, macros and blocks.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TEXT = 8 << 20
MAX_WRITTEN = 1 << 30
"""Characters of all texts of one rendering, those between included: what memory it may take at most."""
PADDING = frozenset(("format", "format_map", "ljust", "rjust", "center", "zfill", "expandtabs", "translate"))
FILTERS = ("center", "format", "xmlattr", "urlize", "wordwrap")
_written = threading.local()


class Generator(CodeGenerator):
    """`a ~ b` is joined by the environment, which counts."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.concat((")
        for part in node.nodes:
            self.write("str(")
            self.visit(part, frame)
            self.write("), ")
        self.write("))")


class Sandbox(ImmutableSandboxedEnvironment):
    """Autoescape is off: what templates make is text for a model."""

    code_generator_class = Generator
    intercepted_binops = frozenset(["*", "**", "%", "+"])

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        self.concat: Callable[[Iterable[str]], str] = joined
        for name in FILTERS:
            self.filters.pop(name)
        self.filters.update(tojson=to_json, indent=indent, replace=replace, join=join)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or isinstance(left, str) and operator == "%":
            raise jinja2.TemplateError(f"the operator {operator} is not for templates")
        for one, other in ((left, right), (right, left)):
            if operator == "*" and isinstance(one, (str, list, tuple)) and isinstance(other, int):
                count(len(one) * max(other, 0))
        if operator == "+" and isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
            count(len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        owner, name = getattr(called, "__self__", None), getattr(called, "__name__", "")
        if isinstance(owner, str):
            if name == "replace" and len(args) in (2, 3):
                return replace(owner, *args)
            if name == "join" and len(args) == 1:
                return join(args[0], owner)
            count(len(owner))
        return super().call(context, called, *args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return not (isinstance(obj, str) and attr in PADDING) and super().is_safe_attribute(obj, attr, value)


def begin() -> None:
    """A rendering begins on this thread."""
    _written.characters = 0


def count(characters: int) -> None:
    """Raises TemplateError for a text that is too long, and for too much text in all."""
    _written.characters = getattr(_written, "characters", 0) + characters
    if characters > MAX_TEXT or _written.characters > MAX_WRITTEN:
        raise jinja2.TemplateError(f"more than {min(MAX_TEXT, MAX_WRITTEN)} characters")


def joined(parts: Iterable[str]) -> str:
    texts, length = [], 0
    for part in parts:
        length += len(part)
        if length > MAX_TEXT:
            break
        texts.append(part)
    count(length)
    return "".join(texts)


def to_json(value: Any, indent: int | None = None, ensure_ascii: bool = False, **_: Any) -> str:
    """Without the escapes for HTML that Jinja's own has."""
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=None if indent is None else min(int(indent), 16))
    count(len(text))
    return text


def indent(text: str, width: int = 4, first: bool = False, blank: bool = False) -> str:
    margin = " " * min(int(width), 64)
    count(len(text) + len(margin) * text.count("\n"))
    head, *rest = str(text).split("\n")
    lines = [margin + line if line or blank else line for line in rest]
    return "\n".join([margin + head if first else head, *lines])


def replace(text: Any, old: str, new: str, times: int | None = None) -> str:
    whole = str(text)
    found = whole.count(old) if times is None or times < 0 else min(whole.count(old), times)
    count(len(whole) + found * len(new))
    return whole.replace(old, new, -1 if times is None else times)


def join(values: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    texts: list[str] = [str(value if attribute is None else value[attribute]) for value in values]
    count(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)
