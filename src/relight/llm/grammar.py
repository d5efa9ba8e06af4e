"""JSON schemas as llama.cpp's grammars (GBNF), so that an answer cannot be anything else."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from cyllama.llama import llama_cpp

from relight.errors import RequestError
from relight.llm.asks import Json

MAX_SCHEMA_BYTES = 64 << 10
MAX_DEPTH = 32
MAX_PATTERN = 512
MAX_REPEAT = 4096
MAX_GRAMMAR = 512 << 10
ROOT = re.compile(r"^root\b", re.MULTILINE)


def response_grammar(response_format: Json | None) -> str | None:
    """Of OpenAI's `response_format`. Raises RequestError for one that is no such thing."""
    if response_format is None:
        return None
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return schema_grammar(response_format.get("schema") or {"type": "object"})
    if kind == "json_schema":
        named = response_format.get("json_schema")
        schema = named.get("schema") if isinstance(named, dict) else None
        if not isinstance(schema, dict):
            raise RequestError("response_format: json_schema needs an object `schema` in `json_schema`")
        return schema_grammar(schema)
    raise RequestError(f"response_format {kind!r}: text, json_object or json_schema")


def schema_grammar(schema: Json) -> str:
    """Raises RequestError for schemas that are too large, loop, or say what no grammar can."""
    check(schema)
    try:
        grammar = str(llama_cpp.json_schema_to_grammar(schema))
    except Exception as error:  # its converter raises of every kind
        raise RequestError(f"the JSON schema cannot be made a grammar: {str(error)[:300]}") from error
    return bounded(grammar)


def bounded(grammar: str) -> str:
    if len(grammar) > MAX_GRAMMAR:
        raise RequestError(f"the grammar has {len(grammar)} characters, and {MAX_GRAMMAR} are allowed")
    return grammar


def called(grammar: str, name: str) -> str:
    """A grammar whose `root` has another name, to be used within a larger one."""
    return ROOT.sub(name, grammar)


def tool_schema(tools: Sequence[Json], arguments: str) -> Json:
    """Of one call of any of the tools, as `{"name": ..., ARGUMENTS: {...}}`."""
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["function"]["name"]},
                arguments: tool["function"].get("parameters") or {"type": "object"},
            },
            "required": ["name", arguments],
        }
        for tool in tools
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def quoted(text: str) -> str:
    """A literal of GBNF; its escapes are those of JSON, for what is not controlled here there are none."""
    return json.dumps(text, ensure_ascii=False)


def check(schema: Any, depth: int = 0) -> None:
    """Raises RequestError where a schema asks for more than a grammar should grow to."""
    if depth == 0 and len(json.dumps(schema)) > MAX_SCHEMA_BYTES:
        raise RequestError(f"the JSON schema has more than {MAX_SCHEMA_BYTES} bytes")
    if depth > MAX_DEPTH:
        raise RequestError(f"the JSON schema is nested more than {MAX_DEPTH} deep")
    if isinstance(schema, dict):
        for key, value in schema.items():
            _check_entry(key, value)
            check(value, depth + 1)
    elif isinstance(schema, list):
        for value in schema:
            check(value, depth + 1)


def _check_entry(key: str, value: Any) -> None:
    if key == "$ref" and isinstance(value, str) and not value.startswith("#/"):
        raise RequestError(f"the JSON schema refers to {value[:100]!r}; only references within it (#/...) are followed")
    if key == "pattern" and isinstance(value, str) and len(value) > MAX_PATTERN:
        raise RequestError(f"a pattern of the JSON schema has {len(value)} characters, and {MAX_PATTERN} are allowed")
    if key in ("maxLength", "minLength", "maxItems", "minItems") and isinstance(value, int) and value > MAX_REPEAT:
        raise RequestError(f"{key} {value} of the JSON schema: at most {MAX_REPEAT}")
