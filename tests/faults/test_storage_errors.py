"""R5: every operation on the disk fails once, and for a while, with an I/O error and with no room left; in the end the
power goes too."""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from storage_history import LIMITS

from ledgers import claim, new_job
from relight.errors import DiskFull, LedgerError
from relight.ledger import Keep, Ledger, NewResult
from simulated_disk import READING, ROOT, SimulatedDisk

ERRORS = [errno.EIO, errno.ENOSPC]


def open_ledger(disk: SimulatedDisk) -> Ledger:
    return Ledger(ROOT / "jobs", LIMITS, Keep(jobs=1), disk=disk)


@dataclass
class Client:
    """Does everything a ledger is for, each thing again until it is done: that is what its users do on an error.

    `refusals` are the errors it met; all of them must be named ones.
    """

    disk: SimulatedDisk
    refusals: list[LedgerError] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)

    def until_done[T](self, task: Callable[[], T]) -> T:
        for _ in range(self.disk.heals_after + 3):
            try:
                return task()
            except LedgerError as error:
                self.refusals.append(error)
        raise AssertionError("the disk has healed, and still refuses")

    def submit(self, ledger: Ledger, prompt: str) -> str:
        new = new_job(prompt, inputs={"image": prompt.encode() * 100}, key=prompt)
        self.accepted.append(self.until_done(lambda: ledger.submit(new)).id)
        return self.accepted[-1]

    def live(self) -> None:
        self.disk.autocheckpoint = 5
        with self.until_done(lambda: open_ledger(self.disk)) as ledger:
            first, second, third = (self.submit(ledger, name) for name in ("first", "second", "third"))
            self.until_done(lambda: ledger.cancel(second))
            attempt = self.until_done(lambda: claim(ledger))
            assert self.until_done(lambda: ledger.heartbeat(attempt, {"step": 1}))
            for step in (1, 2):
                arrays = {"latents": np.full(50, step)}
                assert self.until_done(lambda: ledger.checkpoint(attempt, "base", step, arrays))  # noqa: B023
            kept = self.until_done(lambda: ledger.checkpoints(first))  # one that cannot be read costs only time
            assert kept["base"].step == 2 if kept else "read" in self.disk.failed
            result = NewResult(b"picture" * 99, "image/png")
            assert self.until_done(lambda: ledger.commit(attempt, [result], {}))
            assert self.until_done(lambda: ledger.get(first)).state == "finished"
            assert self.until_done(lambda: ledger.result(first, 0)) == (b"picture" * 99, "image/png")
            self.until_done(lambda: ledger.sweep())
            assert self.until_done(lambda: ledger.position(third)) == 0
        with self.until_done(lambda: open_ledger(self.disk)) as ledger:
            attempt = self.until_done(lambda: claim(ledger))
            assert attempt.job.id == third
            self.until_done(lambda: ledger.release(attempt))


def check(client: Client, disk: SimulatedDisk) -> None:
    """Of what is there afterwards: the job that was cancelled may have gone, nothing else."""
    first, second, third = client.accepted
    with open_ledger(disk) as ledger:
        assert ledger.get(first).state == "finished"
        assert ledger.result(first, 0)[0] == b"picture" * 99
        assert (ledger.get(third).state, ledger.input(third, "image")) == ("queued", b"third" * 100)
        assert {job.id for job in ledger.jobs()} - {second} == {first, third}
        verified = ledger.verify()
        assert verified.whole and verified.orphans == 0


@pytest.mark.timeout(0)
@pytest.mark.parametrize("heals_after", [1, 4])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: errno.errorcode[error])
def test_every_operation_may_fail(error: int, heals_after: int, figure: Callable[[str], None]) -> None:
    begun, refusals, kinds = time.monotonic(), 0, set[str]()
    number = 0
    while True:
        number += 1
        disk = SimulatedDisk()
        disk.fail_at, disk.heals_after, disk.error = number, heals_after, error
        client = Client(disk)
        try:
            client.live()
            if disk.operations < number:
                break
            if error == errno.ENOSPC:
                assert all(isinstance(refusal, DiskFull) for refusal in client.refusals), client.refusals
            check(client, disk.after_cut(random.Random(number)))
        except BaseException as wrong:
            raise AssertionError(f"operation {number} ({disk.failed}): {wrong!r}") from wrong
        refusals += len(client.refusals)
        kinds.update(disk.failed)
    figure(
        f"R5: each of {number - 1} operations ({len(kinds)} kinds) failed {heals_after} times with "
        f"{errno.errorcode[error]} ({os.strerror(error)}): {refusals} named errors, 0 lost, 0 damaged, "
        f"{time.monotonic() - begun:.1f} s"
    )
    assert kinds >= {"create", "write", "sync", "rename", "sync folder", "open database", "open log"}
    assert kinds >= {"write database", "sync database", "remove", *(READING if error == errno.EIO else ())}
