"""How long the ledger takes to keep what it is told: milliseconds, beside those of one fsync on the same disk.

    python benchmarks/ledger_speed.py FOLDER

The two are measured in turn, since a disk's speed changes with what else uses it. Lines of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from relight.ledger import Ledger, NewJob, NewResult

LATENTS = np.random.default_rng(1).standard_normal((1, 16, 128, 128)).astype(np.float32)
PICTURE = os.urandom(1_500_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="on the disk in question")
    parser.add_argument("--count", type=int, default=200, help="of each operation (default 200)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, Ledger(Path(folder, "jobs")) as ledger:
        with open(Path(folder, "beside"), "wb", buffering=0) as beside:
            for name, operation in operations(ledger).items():
                report(name, operation, lambda: sync(beside.fileno()), arguments.count)


def operations(ledger: Ledger) -> dict[str, Callable[[], object]]:
    ledger.submit(new("first"))
    attempt = ledger.claim(["image"], "worker")
    assert attempt is not None

    def one_job() -> None:
        ledger.submit(new("whole"))
        begun = ledger.claim(["image"], "worker")
        assert begun is not None
        ledger.commit(begun, [NewResult(PICTURE, "image/png")], {})

    submitted: list[str] = []
    return {
        "submit": lambda: submitted.append(ledger.submit(new("alone")).id),
        "cancel": lambda: ledger.cancel(submitted.pop()),
        "heartbeat": lambda: ledger.heartbeat(attempt, {"stage": "denoise", "step": 3, "of": 20}),
        "checkpoint of 1 MiB": lambda: ledger.checkpoint(attempt, "base", 3, {"latents": LATENTS}),
        "submit, claim, commit 1.5 MB": one_job,
    }


def new(prompt: str) -> NewJob:
    return NewJob(kind="image", model="flux", request={"prompt": prompt * 30, "size": "1024x1024", "steps": 4})


def sync(descriptor: int) -> None:
    os.write(descriptor, bytes(4096))
    os.fsync(descriptor)


def report(name: str, operation: Callable[[], object], sync_once: Callable[[], None], count: int) -> None:
    taken: dict[str, list[float]] = {"operation": [], "fsync": []}
    for _ in range(count):
        for which, call in (("operation", operation), ("fsync", sync_once)):
            begun = time.perf_counter()
            call()
            taken[which].append(1e3 * (time.perf_counter() - begun))
    median, fsync = (statistics.median(taken[which]) for which in ("operation", "fsync"))
    line = {"operation": name, "median_ms": median, "p99_ms": statistics.quantiles(taken["operation"], n=100)[-1]}
    rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()}
    print(json.dumps(rounded | {"fsync_ms": round(fsync, 3), "count": count, "sqlite": sqlite3.sqlite_version}))


if __name__ == "__main__":
    main()
