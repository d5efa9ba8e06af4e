"""The pages and the file that `config init` writes have every setting, with the default that is in force."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from configuration.tables import tables
from relight.configuration.document import read
from relight.configuration.fitted import HEADING
from relight.configuration.load import load
from relight.configuration.schema import Settings, build, entries, value_at
from relight.configuration.show import explained

PAGE = Path(__file__).parent.parent.parent.joinpath("docs/configuration.md").read_text()
OPTION = re.compile(r" \| [^|]*\|$")
KEYS = "|".join(sorted({entry.key for entry in entries().values()}))
COMMENTED = re.compile(rf"^( *)# ((?:{KEYS}): )", re.MULTILINE)


@pytest.mark.parametrize("section", tables())
def test_the_page_has_every_setting_with_its_default_values_and_option(section: str) -> None:
    rows = tables()[section]
    if section.startswith("model_routing."):  # one table for the four, without the option of each path
        rows = [OPTION.sub(" |  |", row) for row in rows]
    assert [row for row in rows if row not in PAGE] == []


def test_the_page_has_no_setting_that_is_none() -> None:
    keys = {row.split("`")[1] for row in PAGE.splitlines() if row.startswith("| `")}
    assert keys == {entry.key for entry in entries().values()}


def test_the_written_file_says_each_default_as_it_is() -> None:
    """With all that is commented out put in, nothing is other than without a file."""
    text = COMMENTED.sub(r"\1\2", explained({}, {}, HEADING))
    document = read(text)
    assert document.problems == []
    plain = yaml.safe_load(text)
    for place, entry in entries().items():
        value = plain
        for name in place.split("."):
            value = value[name]
        assert value == entry.plain_default, place
    assert set(document.found) == {place for place, entry in entries().items() if entry.default is not None}


def test_the_written_file_as_it_is_sets_nothing(tmp_path: Path) -> None:
    file = tmp_path / "relight.yaml"
    file.write_text(explained({}, {}, HEADING))
    loaded = load(file, environ={})
    assert loaded.settings == Settings() == build({})
    assert loaded.origins == {}


def test_every_default_is_within_its_own_limits(tmp_path: Path) -> None:
    for place, entry in entries().items():
        if entry.default is not None:
            assert entry.kind.parse(entry.plain_default, tmp_path) == value_at(Settings(), place), place
