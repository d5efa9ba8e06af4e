"""Measurements and winners of one device with one driver and engine, in a file of the user's cache folder.

A table is found by its identity, so that one of another driver, engine or card is never used.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from relight.executors.base import CompileOptions
from relight.tuning.identity import Identity
from relight.tuning.pipelines import cache_home

log = logging.getLogger("relight.tuning")
FORMAT = 2


@dataclass(frozen=True)
class Timed:
    """One run of a component's graph: `seconds` warm, `first_s` with the driver's pipelines to build."""

    component: str
    signature: str
    executor: str
    sizes: Mapping[str, int]
    options: CompileOptions
    seconds: float
    first_s: float = 0.0


@dataclass
class Table:
    """`submit` gives by a network's signature the best number of operations a submission, `threads` is that of each CPU
    executor; what is lacking was not timed."""

    identity: Identity
    timed: list[Timed] = field(default_factory=list)
    submit: dict[str, int] = field(default_factory=dict)
    threads: int | None = None
    made: str = ""

    def add(self, new: Sequence[Timed]) -> None:
        """Over what is known of the same graph computed the same way."""
        replaced = {_key(each) for each in new}
        self.timed = [each for each in self.timed if _key(each) not in replaced] + list(new)

    def of(self, signature: str, executor: str, options: CompileOptions | None = None) -> Iterator[Timed]:
        """What was timed of one network on one executor."""
        for each in self.timed:
            same = each.signature == signature and each.executor == executor
            if same and (options is None or ways(each.options) == ways(options)):
                yield each

    def winner(self, signature: str, executor: str, base: CompileOptions) -> CompileOptions | None:
        """The quickest way to compute a network there, over all sizes it was timed at; what `base` fixes stays.

        None where nothing was timed.
        """
        totals: dict[CompileOptions, list[float]] = {}
        for each in self.of(signature, executor):
            if _agrees(each.options, base):
                totals.setdefault(each.options, []).append(each.seconds / self._best(each))
        if not totals:
            return None
        most = max(map(len, totals.values()))
        best = min((o for o in totals if len(totals[o]) == most), key=lambda o: sum(totals[o]))
        return replace(best, scores_bytes=base.scores_bytes)

    def _best(self, like: Timed) -> float:
        """Seconds of the quickest way at these sizes."""
        same = (e.seconds for e in self.of(like.signature, like.executor) if e.sizes == like.sizes)
        return max(min(same), 1e-9)


def ways(options: CompileOptions) -> tuple[str, ...]:
    """What of the options decides on speed."""
    return options.attention, options.convolution, options.precision


def _agrees(options: CompileOptions, base: CompileOptions) -> bool:
    return all(said in ("auto", mine) for mine, said in zip(ways(options), ways(base), strict=True))


def _key(each: Timed) -> tuple[object, ...]:
    return each.signature, each.executor, tuple(sorted(each.sizes.items())), ways(each.options)


def folder(environ: Mapping[str, str] = os.environ) -> Path:
    return cache_home(environ) / "tuning"


def exists(where: Path | None = None) -> bool:
    """Whether this machine was ever warmed up."""
    where = where or folder()
    return where.is_dir() and any(where.glob("*.json"))


def load(identity: Identity, where: Path | None = None) -> Table:
    """An empty one where there is none, or none that can be read."""
    path = (where or folder()) / f"{identity.name}.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT or Identity(**values["identity"]) != identity:
            return Table(identity)
        timed = [_timed(each) for each in values["timed"]]
        return Table(identity, timed, dict(values["submit"]), values["threads"], values["made"])
    except FileNotFoundError:
        return Table(identity)
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s: measurements cannot be read (%s); relight warm makes them again", path, error)
        return Table(identity)


def save(table: Table, where: Path | None = None) -> Path:
    """Whole or not at all. Raises OSError."""
    path = (where or folder()) / f"{table.identity.name}.json"
    values = {
        "format": FORMAT,
        "identity": asdict(table.identity),
        "made": table.made,
        "submit": table.submit,
        "threads": table.threads,
        "timed": [asdict(each) for each in table.timed],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(json.dumps(values, indent=1), encoding="utf-8")
        partial.replace(path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
    return path


def _timed(values: Mapping[str, Any]) -> Timed:
    return Timed(**{**values, "options": CompileOptions(**values["options"])})
