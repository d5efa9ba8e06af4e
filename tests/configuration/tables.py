"""The tables of docs/configuration.md as the schema gives them."""

from __future__ import annotations

from relight.configuration.schema import Entry, entries, sections
from relight.configuration.show import scalar

HEAD = "| key | default | values | what it does | option |\n|---|---|---|---|---|"


def tables() -> dict[str, list[str]]:
    """Rows by section that has settings of its own."""
    found: dict[str, list[str]] = {}
    for entry in entries().values():
        found.setdefault(entry.section, []).append(row(entry))
    return {name: found[name] for name in sections() if name in found}


def row(entry: Entry) -> str:
    default = "" if entry.default is None else f"`{scalar(entry.plain_default)}`"
    named = "" if entry.variable == "RELIGHT_" + entry.place.replace(".", "_").upper() else f" `{entry.variable}`"
    option = f"`{entry.flag}`" if entry.flag else ""
    cells = (f"`{entry.key}`", default, entry.kind.words, entry.words, f"{option}{named}".strip())
    return "| " + " | ".join(cells) + " |"
