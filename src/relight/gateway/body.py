"""Bodies of requests, within limits: read, unpacked, and given the types that a route asks for."""

from __future__ import annotations

import asyncio
import difflib
import math
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json
from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from relight.gateway.problem import Problem, invalid
from relight.gateway.reply import ClientGone
from relight.gateway.settings import Limits
from relight.gateway.state import Call

LARGEST_INT = 2**64


class Body(BaseModel):
    """What others send: keys that are not known here are left alone."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, frozen=True)


@dataclass(frozen=True)
class File:
    """A file of a form. Its name is never used as a name here."""

    field: str
    content: bytes


async def json_body[M: BaseModel](call: Call, kind: type[M]) -> M:
    """Raises Problem: 400, 408, 413 or 415."""
    check_media_type(call.request, "application/json")
    limits = call.gateway.settings.limits
    raw = await whole(call.request, limits.json_bytes, limits.body_s)
    call.identify(raw)
    return checked(kind, unpacked(raw, limits))


async def form_body[M: BaseModel](call: Call, kind: type[M]) -> tuple[M, list[File]]:
    """The fields of a form, and its files. Raises Problem as `json_body` does."""
    check_media_type(call.request, "multipart/form-data")
    limits = call.gateway.settings.limits
    raw = await whole(call.request, limits.form_bytes, limits.body_s)
    texts, files = await parts(call.request, raw, limits)
    names = [f"{name}={value}".encode() for name, value in sorted(texts.items())]
    call.identify(*names, *(each.field.encode() + b"=" + each.content for each in files))
    return checked(kind, texts), files


def check_media_type(request: Request, expected: str) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != expected:
        raise Problem(415, f"Content-Type: send {expected}", code="unsupported_media_type")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "Content-Encoding: send the body as it is", code="unsupported_encoding")


async def whole(request: Request, most: int, seconds: float) -> bytes:
    """The body, broken off as soon as it is too long or takes too long."""
    too_long = Problem(413, f"the body is larger than {most} bytes", code="body_too_large")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length[:20]) > most:
        raise too_long
    chunks, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > most:
                    raise too_long
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        raise Problem(408, f"the body did not come within {seconds:g} s", code="body_timeout") from None


def unpacked(raw: bytes, limits: Limits) -> dict[str, Any]:
    """The JSON object of a body, counted before and after it is unpacked."""
    marks = sum(raw.count(mark) for mark in (b",", b":", b"[", b"{"))
    if marks > limits.json_values:
        raise Problem(413, f"the body has more than {limits.json_values} values", code="body_too_complex")
    try:
        value = from_json(raw, allow_inf_nan=False)
    except (ValueError, RecursionError):
        raise invalid(None, "the body is no valid JSON", "invalid_json") from None
    if not isinstance(value, dict):
        raise invalid(None, "the body is no JSON object", "invalid_json")
    check_values(value, limits.json_depth)
    return value


def check_values(value: object, deepest: int) -> int:
    """How many values there are. Raises Problem for nesting that is too deep, and numbers beyond all use."""
    level, depth, count = [value], 0, 0
    while level:
        count += len(level)
        depth += 1
        if depth > deepest:
            raise invalid(None, f"the body is nested more than {deepest} deep", "body_too_deep")
        following: list[object] = []
        for each in level:
            if isinstance(each, dict):
                following.extend(each.values())
            elif isinstance(each, list):
                following.extend(each)
            elif isinstance(each, float) and not math.isfinite(each):
                raise invalid(None, "a number of the body is too large", "invalid_json")
            elif isinstance(each, int) and abs(each) > LARGEST_INT:
                raise invalid(None, "a number of the body is too large", "invalid_json")
        level = following
    return count


def checked[M: BaseModel](kind: type[M], value: dict[str, Any]) -> M:
    """Raises Problem that names the first field that is wrong, without its value."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = place(first["loc"], kind) or None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(first["loc"][-1])[:64], words(kind), 1)
            message = "has a field that is not known" + (f"; did you mean {near[0]}?" if near else "")
        raise invalid(param, message) from None


def place(where: tuple[int | str, ...], kind: type[BaseModel]) -> str:
    """`messages[0].content`: names of ours and numbers; a name that only the client knows is left out."""
    text = ""
    for part in where:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier() and part.islower() and part in words(kind):
            text += f".{part}" if text else part
    return text


def words(kind: type[BaseModel], _known: dict[type[BaseModel], frozenset[str]] = {}) -> frozenset[str]:  # noqa: B006
    """Every field name of the model and those inside it."""
    if kind not in _known:
        schemas = [kind.model_json_schema(), *kind.model_json_schema().get("$defs", {}).values()]
        _known[kind] = frozenset(name for schema in schemas for name in schema.get("properties", {}))
    return _known[kind]


async def parts(request: Request, raw: bytes, limits: Limits) -> tuple[dict[str, str], list[File]]:
    async def stream() -> Any:
        yield raw
        yield b""

    parser = MultiPartParser(
        request.headers,
        stream(),
        max_files=limits.pictures + 1,
        max_fields=limits.form_parts,
        max_part_size=limits.form_text_bytes,
    )
    parser.spool_max_size = limits.form_bytes + 1  # what is in memory already needs no file
    try:
        return await sorted_out(await parser.parse(), limits)
    except (MultiPartException, FormParserError, KeyError, ValueError, LookupError):
        raise invalid(None, "the body is no valid form, or has too many or too large parts", "invalid_form") from None
    finally:
        for file in parser._files_to_close_on_error:  # also those of parts that never ended
            file.close()


async def sorted_out(form: FormData, limits: Limits) -> tuple[dict[str, str], list[File]]:
    """Texts by name, the last of each, and files in their order. An empty text is none."""
    texts: dict[str, str] = {}
    files = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if (value.size or 0) > limits.picture_bytes:
                raise Problem(413, f"a file is larger than {limits.picture_bytes} bytes", code="picture_too_large")
            files.append(File(name, await value.read()))
        elif value:
            texts[name] = value
    return texts, files
