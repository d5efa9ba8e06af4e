"""Workers of a server give way to it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from relight.workers.priority import SERVED, VARIABLE

PROGRAM = "import os; from relight.workers.priority import give_way; give_way(); print(os.nice(0))"


@pytest.mark.skipif(not hasattr(os, "nice"), reason="priorities of POSIX")
@pytest.mark.parametrize(("stated", "lower"), [(None, 0), (SERVED, int(SERVED))])
def test_a_worker_is_as_much_lower_as_its_server_says(stated: str | None, lower: int) -> None:
    surroundings = {name: value for name, value in os.environ.items() if name != VARIABLE}
    surroundings |= {"PYTHONPATH": os.pathsep.join(sys.path)} | ({} if stated is None else {VARIABLE: stated})
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=surroundings
    ).stdout
    assert int(said) == min(19, os.nice(0) + lower)
