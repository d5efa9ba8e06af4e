"""Findings as people and programs read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from relight.doctor.finding import Finding, Level

INDENT = " " * 6


def lines(finding: Finding, *, with_hints: bool) -> Iterator[str]:
    """One line; with hints also why it matters, what to type, and how to undo that."""
    short = f" [{finding.remedies[0].does}]" if finding.remedies and not with_hints else ""
    yield f"{finding.level:4}  {finding.check:14}  {one_line(finding.seen)}{short}"
    if not with_hints or finding.level is Level.OK:
        return
    yield f"{INDENT}why:   {finding.why}"
    for remedy in finding.remedies:
        yield f"{INDENT}help:  {remedy.does}"
        yield f"{INDENT}  do:   {remedy.do}"
        yield f"{INDENT}  undo: {remedy.undo}"


def one_line(text: str) -> str:
    return " ".join(text.split())


def count(findings: Sequence[Finding], level: Level) -> int:
    return sum(finding.level is level for finding in findings)


def summary(findings: Sequence[Finding], *, with_hints: bool) -> str:
    ok, warn, fail = (count(findings, level) for level in Level)
    text = f"{len(findings)} findings: {ok} ok, {warn} warn, {fail} fail"
    return text if with_hints or not warn + fail else f"{text}; --fix-hints says why and what to type"


def as_dict(findings: Sequence[Finding]) -> dict[str, Any]:
    """What `--json` prints. `status` is the exit status."""
    ok, warn, fail = (count(findings, level) for level in Level)
    return {
        "status": 1 if fail else 0,
        "ok": ok,
        "warn": warn,
        "fail": fail,
        "findings": [finding.as_dict() for finding in findings],
    }
