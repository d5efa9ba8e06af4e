"""P9 on the whole node: a worker that is stopped amid a picture, as a driver that hangs stops it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from served import Served

SEED = 20261123
HANG_S = 1.0
STEPS = 30

pytestmark = [pytest.mark.timeout(0), pytest.mark.skipif(os.name != "posix", reason="SIGSTOP")]
Figure = Callable[[str], None]
Count = Callable[[str, int], int]


def test_a_worker_that_is_stopped_is_ended_and_its_picture_made(tmp_path: Path, count: Count, figure: Figure) -> None:
    stops, lot, begun = count("STOPS_OF_WORKERS", 1), random.Random(SEED), time.monotonic()
    with Served(tmp_path, environment={"RELIGHT_ENGINE_HANG_SECONDS": f"{HANG_S:g}"}) as served:
        usual = served.picture(served.ended(served.submit(1, STEPS)["id"]))
        again, seen = 0, list[float]()
        while again < stops:
            job = served.submit(1, STEPS)
            Event().wait(lot.uniform(0.05, 0.5))
            while not (workers := served.workers()):  # it is being started again
                Event().wait(0.01)
            stopped = time.monotonic()
            os.kill(workers[0].pid, signal.SIGSTOP)
            if (done := served.ended(job["id"]))["attempt"] > 1:
                again += 1
                seen.append(time.monotonic() - stopped)
            assert done["state"] == "finished" and served.picture(done) == usual
        log = served.log()
    assert log.count("its process was stopped") >= stops
    figure(
        f"P9: {stops} workers stopped amid a picture, all ended and every picture made, unchanged; at most "
        f"{max(seen):.1f} s until it was there (engine.hang_seconds {HANG_S:g}), {time.monotonic() - begun:.1f} s"
    )
