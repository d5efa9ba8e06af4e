"""docs/api.md and the routes say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from relight.gateway.openapi import ERRORS, described
from relight.gateway.own.shapes import RequestBody
from relight.gateway.routes import ROUTES
from relight.jobs import asked

PAGE = (Path(__file__).parents[2] / "docs/api.md").read_text()
FIELDS = PAGE.partition("<!-- fields")[2]


def test_the_page_lists_every_route_and_no_other() -> None:
    listed = set(re.findall(r"^\| `((?:GET|POST|DELETE) /\S*)` \|", PAGE, re.MULTILINE))
    assert listed == {f"{route.method} {re.sub(r':[a-z]+}', '}', route.path)}" for route in ROUTES}


def names(kind: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in kind.model_fields.items()}


BODIES = list(dict.fromkeys(route.body for route in ROUTES if route.body))


@pytest.mark.parametrize("body", [*BODIES, RequestBody], ids=lambda body: body.__name__)
def test_the_page_has_every_field(body: type[BaseModel]) -> None:
    rows = "\n".join(re.findall(r"^\| (.*?) \|", FIELDS, re.MULTILINE))
    assert names(body) - set(re.findall(r"`(\w+)`", rows)) == set()


def test_the_page_names_no_field_that_is_not_there() -> None:
    there = set().union(*(names(body) for body in [*BODIES, RequestBody]))
    rows = [row for row in re.findall(r"^\| (`.*?`) \|", FIELDS, re.MULTILINE) if "/" not in row]
    assert set(re.findall(r"`(\w+)`", "\n".join(rows))) - there == set()


def test_the_page_has_every_status() -> None:
    rows = re.findall(r"^\| ([0-9, ]+) \|", PAGE, re.MULTILINE)
    assert {int(status) for row in rows for status in row.split(",")} == set(ERRORS)


def test_a_job_takes_every_field_that_the_queue_knows() -> None:
    assert names(RequestBody) == set(asked.FIELDS)
    shapes = described(ROUTES)["components"]["schemas"]
    assert set(shapes["RedrawBody"]["properties"]) == set(asked.REDRAW)
    assert set(shapes["HiresBody"]["properties"]) == set(asked.HIRES)
    assert set(shapes["LoraBody"]["properties"]) == set(asked.LORA)
    assert set(shapes["ControlBody"]["properties"]) == set(asked.CONTROL)
