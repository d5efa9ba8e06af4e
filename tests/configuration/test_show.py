"""Settings written out: in force with where each came from, and explained."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from relight.configuration.load import load
from relight.configuration.schema import entries
from relight.configuration.show import as_dict, effective, explained, scalar


def test_each_setting_is_shown_with_its_value_and_where_it_came_from(tmp_path: Path) -> None:
    (tmp_path / "relight.yaml").write_text("runtime:\n  resolution: 1024x768\n")
    environ = {"RELIGHT_SERVER_PORT": "9000"}
    text = effective(load(environ=environ, flags={"picture.negative": "a: b"}, folder=tmp_path))
    lines = {line.split(":")[0].strip(): line for line in text.splitlines()}
    assert lines["resolution"].split() == ["resolution:", "1024x768", "#", "relight.yaml:2"]
    assert lines["port"].split() == ["port:", "9000", "#", "RELIGHT_SERVER_PORT"]
    assert lines["negative"].split() == ["negative:", '"a:', 'b"', "#", "--negative"]
    assert lines["threads"].split() == ["threads:", "null", "#", "default"]
    assert len([line for line in text.splitlines() if "#" in line]) == len(entries())


def test_json_has_values_by_section_and_origins_by_place(tmp_path: Path) -> None:
    (tmp_path / "relight.yaml").write_text("runtime:\n  io_scheduler: bfq\n")
    found = as_dict(load(environ={}, folder=tmp_path))
    assert found["file"] == str(tmp_path / "relight.yaml")
    assert found["settings"]["runtime"]["io_scheduler"] == "bfq"
    assert found["origins"]["runtime.io_scheduler"] == {"kind": "file", "where": "relight.yaml:2"}
    assert found["origins"]["engine.threads"] is None
    assert len(found["notes"]) == 1 and set(found["origins"]) == set(entries())


def test_what_was_chosen_is_not_commented_out_and_says_why() -> None:
    text = explained({"engine.threads": 4}, {"engine.threads": "four cores"}, ["First line"])
    assert text.startswith("# First line\n")
    assert "  # four cores\n  threads: 4\n" in text
    assert "\n  # attention: auto\n" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    "text",
    ["no", "1.0", "null", "a: b", "a #b", "- a", "", " a", "${A}", "'", '"', "a\nb", "[a]", "a, b", "*a", "é"],
)
def test_text_is_written_so_that_it_is_read_back(text: str) -> None:
    assert yaml.safe_load(f"a: {scalar(text)}") == {"a": text.replace("${", "$${")}


@given(st.lists(st.text(max_size=10), max_size=4))
def test_lists_are_written_so_that_they_are_read_back(values: list[str]) -> None:
    assert yaml.safe_load(f"a: {scalar(values)}") == {"a": [value.replace("${", "$${") for value in values]}
