"""A model that is quick to time."""

from __future__ import annotations

import pytest

import tiny_sd
from relight.jobs.request import ModelFiles


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return tiny_sd.sd1(tmp_path_factory.mktemp("model") / "tiny.safetensors")
