"""Requests made from the server's own description: mostly as it says, now and then otherwise."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from hypothesis import strategies as st

from gateway.fake_node import MODELS, picture

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
FILES = st.just(picture(64, 64)) | st.binary(max_size=40)
MADE: dict[tuple[int, bool], st.SearchStrategy[Any]] = {}
"""Strategies by the schema they are of, which the description keeps alive."""
NAMES = st.sampled_from([each.id for each in MODELS])


@dataclass(frozen=True)
class Described:
    """A route as the description has it."""

    method: str
    path: str
    success: int
    gives: tuple[str, ...]
    parameters: tuple[dict[str, Any], ...]
    media_type: str | None
    schema: dict[str, Any]
    schemas: dict[str, Any]


def described_operations(description: dict[str, Any]) -> list[Described]:
    found = []
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            (status,) = [status for status in operation["responses"] if int(status) < 300]
            content = operation.get("requestBody", {}).get("content", {})
            media_type = next(iter(content), None)
            found.append(
                Described(
                    method.upper(),
                    path,
                    int(status),
                    tuple(operation["responses"][status]["content"]),
                    tuple(operation["parameters"]),
                    media_type,
                    content[media_type]["schema"] if media_type else {},
                    description["components"]["schemas"],
                )
            )
    return found


def request_of(operation: Described, data: st.DataObject) -> dict[str, Any]:
    """The arguments of a client's request."""
    path, query = operation.path, {}
    for parameter in operation.parameters:
        value = data.draw(st.just("job-0") | st.just("0") | NAMES | TEXTS)
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", quote(value, safe=""))
        elif data.draw(st.booleans()):
            query[parameter["name"]] = value
    made: dict[str, Any] = {"method": operation.method, "url": path + (f"?{urlencode(query)}" if query else "")}
    if operation.media_type == "application/json":
        value = data.draw(valued(operation.schema, operation.schemas))
        made |= {"content": json.dumps(value).encode(), "headers": {"Content-Type": "application/json"}}
    elif operation.media_type:
        fields = data.draw(valued(operation.schema["allOf"][0], operation.schemas))
        names = data.draw(st.lists(st.sampled_from(["image", "image[]", "mask", "other"]), max_size=2)) or ["image"]
        made["data"] = {name: str(value) for name, value in fields.items()} if isinstance(fields, dict) else {}
        made["files"] = [
            (name, ("a.png", data.draw(st.just(picture(64, 64)) | st.binary(max_size=40)))) for name in names
        ]
    return made


def valued(schema: dict[str, Any], schemas: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
    """A value that the schema allows; one time in twenty any other."""
    key = id(schema), bool(depth)
    if key not in MADE:
        right = st.deferred(lambda: allowed(schema, schemas, depth))
        MADE[key] = st.integers(0, 19).flatmap(lambda lot: ANYTHING if lot == 0 and depth else right)
    return MADE[key]


def allowed(schema: dict[str, Any], schemas: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return allowed(schemas[schema["$ref"].rpartition("/")[2]], schemas, depth)
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return st.one_of([valued(each, schemas, depth + 1) for each in schema[several]])
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        return objects(schema, schemas, depth)
    if kind == "array":
        most = min(schema.get("maxItems", 3), schema.get("minItems", 0) + 2)
        items = valued(schema.get("items", {}), schemas, depth + 1)
        return st.lists(items, min_size=schema.get("minItems", 0), max_size=most)
    if kind == "integer":
        least = schema.get("minimum", schema.get("exclusiveMinimum", -5))
        return st.integers(least, min(schema.get("maximum", least + 50), least + 50))
    if kind == "number":
        return st.floats(schema.get("minimum", -5), schema.get("maximum", 5))
    return {"boolean": st.booleans(), "null": st.none(), "string": texts(schema)}.get(str(kind), ANYTHING)


def texts(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    if "pattern" in schema:
        ascii_only = st.from_regex(re.compile(schema["pattern"], re.ASCII), fullmatch=False)
        return ascii_only.map(lambda text: text.rstrip("\n"))
    return TEXTS.filter(lambda text: len(text) >= schema.get("minLength", 0))


def objects(schema: dict[str, Any], schemas: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    known = schema.get("properties", {})
    required = {name: each for name, each in known.items() if name in schema.get("required", [])}
    optional = {name: each for name, each in known.items() if name not in required}

    def strategy(name: str, each: dict[str, Any]) -> st.SearchStrategy[Any]:
        return (NAMES | st.none()) if name == "model" else valued(each, schemas, depth + 1)

    if not known:
        return st.dictionaries(TEXTS, ANYTHING, max_size=2)
    few = st.lists(st.sampled_from(sorted(optional)), max_size=4, unique=True) if optional else st.just([])
    return few.flatmap(
        lambda chosen: st.fixed_dictionaries(
            {name: strategy(name, known[name]) for name in (*required, *chosen)},
        )
    )
