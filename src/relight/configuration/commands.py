"""The commands of the settings: relight config show, init and check."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from relight.errors import ConfigError


def add_commands(commands: argparse._SubParsersAction[Any], common: argparse.ArgumentParser) -> None:
    """Add `config` to the program's commands."""
    p = commands.add_parser("config", help="show, make and check the file of settings")
    does = p.add_subparsers(required=True, metavar="ACTION")
    show = does.add_parser("show", parents=[common], help="settings in force, and where each came from")
    _add_flags(show.add_argument_group("settings, as options of other commands give them"))
    show.add_argument("--json", action="store_true", help="print one JSON object")
    show.set_defaults(run=show_settings)
    init = does.add_parser("init", parents=[common], help="a commented file fitted to this machine")
    init.add_argument("--write", type=Path, metavar="FILE", help="write it here; otherwise it is printed")
    init.add_argument("--device-profile", metavar="CARD", help="for a card that need not be here, such as rx580-8g")
    init.add_argument("--force", action="store_true", help="replace FILE where it is there")
    init.set_defaults(run=init_file)
    check = does.add_parser("check", parents=[common], help="say what is wrong with a file")
    check.add_argument("file", type=Path, nargs="?", metavar="FILE", help="default: the one that is used")
    check.set_defaults(run=check_file)


def _add_flags(g: Any) -> None:
    from relight.configuration.kinds import Many, Switch
    from relight.configuration.schema import entries

    for entry in entries().values():
        if not entry.flag:
            continue
        if isinstance(entry.kind, Switch):
            g.add_argument(entry.flag, dest=entry.place, action="store_const", const=False, help=entry.words)
        else:
            action = "append" if isinstance(entry.kind, Many) else "store"
            g.add_argument(entry.flag, dest=entry.place, action=action, metavar="VALUE", help=entry.words)


def show_settings(a: argparse.Namespace) -> None:
    from relight.configuration.load import load, shown
    from relight.configuration.schema import entries
    from relight.configuration.show import as_dict, effective

    flags = {place: value for place in entries() if (value := getattr(a, place, None)) is not None}
    loaded = load(getattr(a, "config", None), flags=flags)
    _print_notes(loaded.notes)
    if a.json:
        print(json.dumps(as_dict(loaded)))
        return
    print(f"# {shown(loaded.file, Path.cwd())}" if loaded.file else "# no relight.yaml was found: defaults")
    print(effective(loaded), end="")


def init_file(a: argparse.Namespace) -> None:
    """Ask what the machine has, and write or print a file for it."""
    from relight.configuration.fitted import fitted
    from relight.configuration.load import load
    from relight.planner.outlook import machine_for
    from relight.store.places import Places
    from relight.store.written import write_whole

    if a.write is not None and a.write.exists() and not a.force:
        raise ConfigError(f"{a.write}: is there already; --force replaces it")
    machine, timings = machine_for(a.device_profile, None, None, None)
    text = fitted(machine, Places.of(), timings).text()
    if a.write is None:
        print(text, end="")
        return
    write_whole(a.write, text)
    load(a.write, environ={})
    print(f"{a.write}: written for this machine; relight config show --config {a.write} explains it")


def check_file(a: argparse.Namespace) -> None:
    """Raises ConfigError with everything that is wrong; files that are not there are noted."""
    from relight.configuration.files import NAMED, find
    from relight.configuration.load import load
    from relight.configuration.schema import value_at
    from relight.store.places import Places

    loaded = load(a.file or getattr(a, "config", None))
    if loaded.file is None:
        raise ConfigError("no relight.yaml was found: relight config init --write relight.yaml makes one")
    notes = list(loaded.notes)
    places = Places.of(_with_folders(loaded))
    for place in NAMED.values():
        path = value_at(loaded.settings, place)
        if path is not None:
            try:
                find(path, places, loaded.said(place))
            except ConfigError as error:
                notes.append(str(error))
    _print_notes(notes)
    print(f"{loaded.file}: right; {sum(origin.kind == 'file' for origin in loaded.origins.values())} settings")


def _with_folders(loaded: Any) -> dict[str, str]:
    from relight.configuration.engine import environment

    return environment(loaded.settings) | dict(os.environ)


def _print_notes(notes: Any) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
