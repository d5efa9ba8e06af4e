"""One small model and its process, shared by the tests that only ask it things."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import SETTINGS
from tiny_model import write_model

from relight.llm.client import Llm


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llm") / "tiny.gguf")


@pytest.fixture(scope="session")
def shared(model: Path) -> Iterator[Llm]:
    with Llm() as llm:
        llm.load(model, SETTINGS)
        yield llm


@pytest.fixture
def own(model: Path) -> Iterator[Llm]:
    """A process of the test's own, with the model loaded."""
    with Llm() as llm:
        llm.load(model, SETTINGS)
        yield llm
