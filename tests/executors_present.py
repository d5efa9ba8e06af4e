"""Executors to test with. One that is not there is skipped by name, with the reason, so that no gap is silent."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module

import pytest

from relight.errors import RelightError
from relight.executors.base import Executor
from relight.executors.reference import ReferenceExecutor

Factory = Callable[[], Executor]


def optional(module: str, class_name: str, *arguments: str) -> Factory:
    """Makes the executor once; skips the test that calls where it is not there."""

    @cache
    def make() -> Executor | str:
        try:
            executor: Executor = getattr(import_module(module), class_name)(*arguments)
        except (ImportError, RelightError) as error:
            return str(error)
        return executor

    def factory() -> Executor:
        executor = make()
        if isinstance(executor, str):
            pytest.skip(f"no executor {' '.join((class_name, *arguments))}: {executor}")
        return executor

    return factory


EXECUTORS: dict[str, Factory] = {
    "reference": ReferenceExecutor,
    "ggml-cpu": optional("relight.executors.ggml", "GgmlExecutor", "ggml-cpu"),
    "vulkan0": optional("relight.executors.ggml", "GgmlExecutor", "vulkan0"),
    "openvino": optional("relight.executors.openvino", "OpenvinoExecutor"),
}


def executors_present() -> list[tuple[str, Factory]]:
    return list(EXECUTORS.items())
