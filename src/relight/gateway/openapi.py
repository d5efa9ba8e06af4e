"""The routes described in OpenAPI 3.1, for programs that make clients and tests of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic.json_schema import models_json_schema

from relight.gateway.routes import JSON, Route

ERRORS = {
    400: "the request cannot be done as asked; `param` names the field",
    401: "no valid API key",
    403: "a web page that is not named",
    404: "no such route, model or job",
    405: "the route takes other methods",
    408: "the body did not come in time",
    409: "the model is in use",
    410: "the job was cancelled",
    413: "the body, or something in it, is too large",
    415: "the body is of another type",
    421: "the host's name is not one of the server's",
    422: "the idempotency key was used for another request",
    429: "the queue is full: see Retry-After",
    431: "the headers are too large",
    500: "failed here",
    503: "not ready, stopping, or too many requests at once: see Retry-After",
    507: "the disk is full",
}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}


def described(routes: Sequence[Route]) -> dict[str, Any]:
    bodies = list(dict.fromkeys(route.body for route in routes if route.body))
    _, schemas = models_json_schema(
        [(body, "validation") for body in bodies], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = re.sub(r"{(\w+):\w+}", r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "relight", "version": "1"},
        "paths": paths,
        "components": {
            "schemas": {**schemas.get("$defs", {}), "Error": ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def operation(route: Route) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.method.lower()}_{route.handler.__name__}_{len(route.path)}",
        "security": [] if route.access == "open" else [{"key": []}],
        "responses": responses(route),
    }
    names = re.findall(r"{(\w+)(?::(\w+))?}", route.path)
    shape["parameters"] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "integer" if kind == "int" else "string"}}
        for name, kind in names
    ] + [{"name": name, "in": "query", "schema": {"type": "string"}} for name in route.query]
    if route.body is not None:
        shape["requestBody"] = {"required": True, "content": content(route)}
    return shape


def content(route: Route) -> dict[str, Any]:
    assert route.body is not None
    of = {"$ref": f"#/components/schemas/{route.body.__name__}"}
    if not route.form:
        return {JSON: {"schema": of}}
    files = {name: {"type": "string", "contentMediaType": "image/png"} for name in route.form}
    return {"multipart/form-data": {"schema": {"allOf": [of, {"type": "object", "properties": files}]}}}


def responses(route: Route) -> dict[str, Any]:
    error = {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    answers: dict[str, Any] = {
        str(route.status): {"description": route.summary, "content": {t: {} for t in route.gives}}
    }
    for status, text in ERRORS.items():
        answers[str(status)] = {"description": text, "content": error}
    return answers
