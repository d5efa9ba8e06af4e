"""Every network on every executor, against outputs of the published implementation."""

from __future__ import annotations

import pytest

from executors_present import EXECUTORS
from relight.executors.base import Executor


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Executor:
    return EXECUTORS[request.param]()
