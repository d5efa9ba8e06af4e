"""Kinds of values a setting can have: how each is read from YAML, a variable or a flag, and how it is written again.

`parse` takes what YAML gives (text, numbers, booleans, lists) or the text of a variable; it raises ValueError that says
what would be right. `folder` is what relative paths begin from. `plain` gives what YAML and JSON can hold.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from relight.errors import RelightError

GIB = 1 << 30
UNITS = {"": GIB, "k": 1 << 10, "m": 1 << 20, "g": GIB, "t": 1 << 40}
SIZE = re.compile(r"([0-9]*\.?[0-9]+) *(|[kmgt]i?b?)", re.IGNORECASE)
PIXELS = re.compile(r"(\d+) *[xX*] *(\d+)")
ELSEWHERE = re.compile(r"[A-Za-z]:[\\/]|\\\\")
"""How a path of Windows begins."""


class Kind(Protocol):
    """`textual`: YAML's plain words stay text, so that `no` or `1.0` can be a name."""

    @property
    def textual(self) -> bool: ...

    @property
    def words(self) -> str: ...

    def parse(self, given: Any, folder: Path) -> Any: ...

    def plain(self, value: Any) -> Any: ...


@dataclass(frozen=True)
class Text:
    """Any text; `check` raises for what is not known, such as a sampler of no such name."""

    what: str = "text"
    check: Callable[[str], object] | None = None
    textual: bool = True

    @property
    def words(self) -> str:
        return self.what

    def parse(self, given: Any, folder: Path) -> str:
        if not isinstance(given, str):
            raise ValueError(f"should be {self.what}")
        if self.check is not None:
            try:
                self.check(given)
            except RelightError as error:
                raise ValueError(str(error)) from error
        return given

    def plain(self, value: str) -> str:
        return value


@dataclass(frozen=True)
class Choice:
    """One of some words; `also` are other spellings of them."""

    names: tuple[str, ...]
    also: tuple[tuple[str, str], ...] = ()
    textual: bool = True

    @property
    def words(self) -> str:
        return ", ".join(f"`{name}`" for name in self.names)

    def parse(self, given: Any, folder: Path) -> str:
        word = dict(self.also).get(str(given).lower(), str(given).lower())
        if not isinstance(given, str) or word not in self.names:
            raise ValueError(f"should be one of {', '.join(self.names)}")
        return word

    def plain(self, value: str) -> str:
        return value


@dataclass(frozen=True)
class Whole:
    """A whole number; `words_too` may stand for one."""

    least: int
    most: int
    words_too: tuple[str, ...] = ()
    textual: bool = False

    @property
    def words(self) -> str:
        also = "".join(f", or `{word}`" for word in self.words_too)
        return f"whole number, {self.least} to {self.most}{also}"

    def parse(self, given: Any, folder: Path) -> int | str:
        if given in self.words_too:
            return str(given)
        try:
            number = int(given) if isinstance(given, str) else given
        except ValueError:
            number = None
        if type(number) is not int or not self.least <= number <= self.most:
            raise ValueError(f"should be a {self.words.replace('`', '')}")
        return number

    def plain(self, value: int | str) -> int | str:
        return value


@dataclass(frozen=True)
class Real:
    least: float
    most: float
    textual: bool = False

    @property
    def words(self) -> str:
        return f"number, {self.least:g} to {self.most:g}"

    def parse(self, given: Any, folder: Path) -> float:
        number = _number(given)
        if number is None or not self.least <= number <= self.most:
            raise ValueError(f"should be a {self.words}")
        return number

    def plain(self, value: float) -> float:
        return value


@dataclass(frozen=True)
class Switch:
    textual: bool = False
    words: str = "`true` or `false`"

    def parse(self, given: Any, folder: Path) -> bool:
        word = str(given).lower()
        if word not in ("true", "yes", "on", "1", "false", "no", "off", "0"):
            raise ValueError("should be true or false")
        return word in ("true", "yes", "on", "1")

    def plain(self, value: bool) -> bool:
        return value


@dataclass(frozen=True)
class Place:
    """A file or a folder; relative ones begin from the folder of the file that names them."""

    what: str = "file"
    textual: bool = True

    @property
    def words(self) -> str:
        return self.what

    def parse(self, given: Any, folder: Path) -> Path:
        if not isinstance(given, str) or not given.strip():
            raise ValueError(f"should be a {self.what}")
        return Path(given) if ELSEWHERE.match(given) else _absolute(given, folder)

    def plain(self, value: Path) -> str:
        return str(value)


@dataclass(frozen=True)
class Model:
    """A name as `relight models` lists it, or a path: what looks like one or is one."""

    textual: bool = True
    words: str = "name of a model, folder or file"

    def parse(self, given: Any, folder: Path) -> str:
        if not isinstance(given, str) or not given.strip():
            raise ValueError(f"should be a {self.words}")
        path = _absolute(given, folder)
        return str(path) if given[0] in "./~" or "\\" in given or path.exists() else given

    def plain(self, value: str) -> str:
        return value


@dataclass(frozen=True)
class Many:
    """A list; in a variable, with commas between (paths as in PATH)."""

    of: Kind
    textual: bool = False

    @property
    def words(self) -> str:
        return f"list of {self.of.words}s"

    def parse(self, given: Any, folder: Path) -> tuple[Any, ...]:
        if isinstance(given, str):
            separator = os.pathsep if isinstance(self.of, Place) else ","
            given = [part.strip() for part in given.split(separator) if part.strip()]
        if not isinstance(given, list):
            raise ValueError(f"should be a {self.words}")
        return tuple(self.of.parse(str(each) if self.of.textual else each, folder) for each in given)

    def plain(self, value: tuple[Any, ...]) -> list[Any]:
        return [self.of.plain(each) for each in value]


@dataclass(frozen=True)
class Size:
    """Bytes, as people write them of memory: 235MB is 235 MiB, a bare number is GiB."""

    textual: bool = False
    words: str = "size such as `6.5GB` or `235MB`; a bare number is GB"

    def parse(self, given: Any, folder: Path) -> int:
        match = SIZE.fullmatch(str(given).strip())
        if isinstance(given, bool) or match is None or float(match[1]) <= 0:
            raise ValueError("should be a size above 0, such as 6.5GB or 235MB")
        return round(float(match[1]) * UNITS[match[2].lower().rstrip("ib")])

    def plain(self, value: int) -> str:
        return size_text(value)


@dataclass(frozen=True)
class Share:
    """A share of something, 0.85 or 85%, or a size."""

    textual: bool = False
    words: str = "share such as `0.85` or `85%`, or a size such as `7GB`"

    def parse(self, given: Any, folder: Path) -> float | int:
        text = str(given).strip()
        number = _number(text.removesuffix("%"))
        if number is None and not isinstance(given, bool) and SIZE.fullmatch(text):
            return Size().parse(text, folder)
        share = None if number is None or isinstance(given, bool) else number / 100 if text.endswith("%") else number
        if share is None or not 0 < share <= 1:
            raise ValueError("should be a share above 0 and up to 1 (0.85, 85%), or a size such as 7GB")
        return share

    def plain(self, value: float | int) -> float | str:
        return value if isinstance(value, float) else size_text(value)


@dataclass(frozen=True)
class Resolution:
    """Width and height: `1024x768`, [1024, 768], or one number for both."""

    least: int
    most: int
    textual: bool = False

    @property
    def words(self) -> str:
        return f"`WIDTHxHEIGHT` in pixels, {self.least} to {self.most}"

    def parse(self, given: Any, folder: Path) -> tuple[int, int]:
        match = PIXELS.fullmatch(given.strip()) if isinstance(given, str) else None
        sides: Any = list(match.groups()) if match else given if isinstance(given, list) else [given, given]
        side = Whole(self.least, self.most)
        try:
            width, height = (int(side.parse(each, folder)) for each in sides)
        except ValueError as error:
            raise ValueError(f"should be like 1024x768, {self.least} to {self.most} pixels a side") from error
        return width, height

    def plain(self, value: tuple[int, int]) -> str:
        return f"{value[0]}x{value[1]}"


@dataclass(frozen=True)
class Tiling:
    """How the autoencoder is cut: as it fits, always, never, or in tiles of so many latent pixels."""

    textual: bool = False
    words: str = "`auto`, `true` (never more than 64 at once), `false`, or latent pixels of a tile, 16 to 512"

    def parse(self, given: Any, folder: Path) -> str | bool | int:
        word = str(given).lower()
        if word in ("auto", "true", "false", "on", "off", "yes", "no"):
            return word if word == "auto" else word in ("true", "on", "yes")
        try:
            return int(Whole(16, 512).parse(given, folder))
        except ValueError as error:
            raise ValueError("should be auto, true, false, or the latent pixels of a tile, 16 to 512") from error

    def plain(self, value: str | bool | int) -> str | bool | int:
        return value


def size_text(nbytes: int) -> str:
    """In the largest unit, as short as it reads back as the same bytes."""
    for unit in "tgmk":
        for digits in range(11):
            text = f"{nbytes / UNITS[unit]:.{digits}f}"
            if nbytes >= UNITS[unit] and round(float(text) * UNITS[unit]) == nbytes:
                return f"{text}{unit.upper()}B"
    return f"{nbytes / UNITS['k']!r}KB"


def _absolute(text: str, folder: Path) -> Path:
    return Path(os.path.normpath(folder / Path(text).expanduser()))


def _number(given: Any) -> float | None:
    try:
        number = None if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        return None
    return number if number is not None and math.isfinite(number) else None
