"""A program that keeps jobs in a ledger and is killed again and again, for test_storage_kills.py.

`python storage_client.py FOLDER LIVES`. Each life is a forked process: it opens the ledger, four threads submit and one
works, and what was acknowledged goes to stdout, a line with one write each: `born PID`, `accepted ID NAME`, `done ID`.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import numpy as np

from relight.ledger import Attempt, Ledger, Limits, NewJob, NewResult

CLIENTS = 4


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def submit(ledger: Ledger, name: str) -> str:
    inputs = {"image": name.encode() * 200} if name[-1] in "02468" else {}
    return ledger.submit(NewJob(kind="image", model="m", request={"name": name}, inputs=inputs, key=name)).id


def clients(ledger: Ledger, life: int, thread: int) -> None:
    """Each job is asked for twice, as a client does that got no answer."""
    number = 0
    while True:
        name = f"{life}/{thread}/{number}"
        job_id = submit(ledger, name)
        say("accepted", job_id, name)
        if submit(ledger, name) != job_id:
            say("doubled", job_id, name)
        number += 1


def work(ledger: Ledger) -> None:
    while True:
        if attempt := ledger.claim(["image"], "w"):
            finish(ledger, attempt)


def finish(ledger: Ledger, attempt: Attempt) -> None:
    ledger.checkpoint(attempt, "base", 1, {"latents": np.ones(100)})
    if ledger.commit(attempt, [NewResult(picture(attempt.job.request["name"]), "image/png")], {}):
        say("done", attempt.job.id)


def picture(name: str) -> bytes:
    return f"picture of {name}".encode() * 50


def live(folder: Path, life: int) -> None:
    ledger = Ledger(folder, Limits(queued=10**6, interruptions=10**6))
    say("born", os.getpid())
    for thread in range(CLIENTS):
        threading.Thread(target=clients, args=(ledger, life, thread)).start()
    work(ledger)


if __name__ == "__main__":
    for number in range(int(sys.argv[2])):
        child = os.fork()
        if child == 0:
            live(Path(sys.argv[1]), number)
        os.waitpid(child, 0)
