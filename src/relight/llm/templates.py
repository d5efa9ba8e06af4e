"""Chat templates: a conversation as the text a model was trained on. They come with model files: nobody trusts them.

They run in Jinja's sandbox, without files or attributes of Python, for a limited time and to a limited length.
"""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2

from relight.errors import ModelFileError, RequestError
from relight.llm import reasoning
from relight.llm.asks import Json
from relight.llm.sandbox import Sandbox, begin, joined

DEADLINE_S = 5.0
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""For models that have ChatML's tokens and no template of their own."""


class Refused(jinja2.TemplateError):
    """The template itself says that it cannot take this conversation."""


class ChatTemplate:
    """A template of a model file. Raises ModelFileError when it cannot be compiled."""

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        self.source, self.bos, self.eos = source, bos, eos
        try:
            self._template = Sandbox().from_string(source)
        except (jinja2.TemplateError, RecursionError, MemoryError, SyntaxError, ValueError) as error:
            raise ModelFileError(f"the model's chat template cannot be read: {_first_line(error)}") from error

    @property
    def knows_tools(self) -> bool:
        return "tools" in self.source

    def render(self, messages: Sequence[Json], tools: Sequence[Json] = (), values: Mapping[str, Any] = {}) -> str:
        """The text up to where the answer begins. Raises RequestError when the template does not take it.

        A template that refuses system messages gets them within the first message of the user.
        """
        plain = [
            reasoning.plain(message, self.source) if message["role"] == "assistant" else message
            for message in plain_messages(messages)
        ]
        try:
            return self._render(plain, tools, values)
        except Refused as error:
            merged = without_system(plain)
            if merged == plain:
                raise RequestError(f"messages: the model's chat template says: {error}") from error
        try:
            return self._render(merged, tools, values)
        except Refused as error:
            raise RequestError(f"messages: the model's chat template says: {error}") from error

    def _render(self, messages: Sequence[Json], tools: Sequence[Json], values: Mapping[str, Any]) -> str:
        names = {
            **values,
            "messages": list(messages),
            "tools": list(tools) or None,
            "add_generation_prompt": True,
            "bos_token": self.bos,
            "eos_token": self.eos,
            "raise_exception": _refuse,
            "strftime_now": lambda form: datetime.now().astimezone().strftime(form),
        }
        try:
            return within(DEADLINE_S, lambda: _rendered(self._template.generate(names)))
        except Refused:
            raise
        except TimeoutError as error:
            raise RequestError(f"the model's chat template ran for {DEADLINE_S:g} s without an end") from error
        except Exception as error:  # what a template does wrong, Python raises in its own ways
            raise RequestError(
                f"the model's chat template failed on these messages: {type(error).__name__}: {_first_line(error)}"
            ) from error


def plain_messages(messages: Sequence[Json]) -> list[Json]:
    """Content as text, and arguments of tool calls as objects, as templates expect them. Raises RequestError."""
    if not messages:
        raise RequestError("messages: there is none")
    return [_plain(index, message) for index, message in enumerate(messages)]


def without_system(messages: Sequence[Json]) -> list[Json]:
    """What system messages say is put before the first message of the user."""
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system" and m["content"])
    rest = [dict(m) for m in messages if m["role"] != "system"]
    first = next((m for m in rest if m["role"] == "user"), None)
    if not system or first is None:
        return list(messages)
    first["content"] = f"{system}\n\n{first['content']}"
    return rest


def _plain(index: int, message: Json) -> Json:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ROLES:
        raise RequestError(f"messages[{index}]: role {role!r} is none of {', '.join(ROLES)}")
    plain = {**message, "role": "system" if role == "developer" else role, "content": _text(index, message)}
    if message.get("tool_calls"):
        plain["tool_calls"] = [_with_object(index, call) for call in message["tool_calls"]]
    return plain


def _text(index: int, message: Json) -> str:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, (list, tuple)):
        raise RequestError(f"messages[{index}]: content is neither text nor a list of parts")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise RequestError(f"messages[{index}]: this model reads text, and a part is {kind!r}")
    return "".join(part["text"] for part in content)


def _with_object(index: int, call: Json) -> Json:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise RequestError(f"messages[{index}]: a tool call without `function`")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            pass  # the model wrote what is no JSON, and is shown it as it was
    return {**call, "function": {**function, "arguments": arguments}}


def _refuse(message: str = "") -> None:
    raise Refused(str(message)[:500])


def _rendered(chunks: Iterator[str]) -> str:
    begin()
    return joined(chunks)


def within(seconds: float, work: Callable[[], str]) -> str:
    """Run `work` on a thread of its own; raises TimeoutError, and stops it, when it takes longer."""
    result: list[str] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TimeoutError))
        thread.join(1)
        raise TimeoutError
    if errors:
        raise errors[0]
    return result[0]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:300]
