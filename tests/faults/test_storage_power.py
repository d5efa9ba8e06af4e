"""R4: the power goes at any moment of a ledger's life, and comes back."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable

import pytest
from storage_history import KEEP, LIMITS, History

from ledgers import new_job
from relight.ledger import Ledger, schema
from relight.ledger.database import DATABASE_NAME
from simulated_disk import ROOT, PowerCut, SimulatedDisk

SEED = 20261122
CUTS_OF_A_DISK = 20
"""Then a new one begins, so that its making is cut as well."""


def open_ledger(disk: SimulatedDisk) -> Ledger:
    return Ledger(ROOT / "jobs", LIMITS, KEEP, disk=disk)


@pytest.mark.timeout(0)
def test_no_power_cut_loses_what_was_acknowledged(
    count: Callable[[str, int], int], figure: Callable[[str], None]
) -> None:
    cuts, begun, acknowledged = count("POWER_CUTS", 2000), time.monotonic(), 0
    for number in range(cuts):
        lot = random.Random(f"{SEED}/{number}")
        if number % CUTS_OF_A_DISK == 0:
            disk, history = SimulatedDisk(), History(lot)
        history.lot = lot
        disk.autocheckpoint = lot.choice((3, 20, 1000))
        disk.cut_at = int(10 ** lot.uniform(0.5, 2.7))
        known = history.number
        try:
            live(disk, history)
        except PowerCut:
            pass
        acknowledged += history.number - known
        disk = disk.after_cut(lot)
        with open_ledger(disk) as ledger:
            try:
                history.check(ledger)
                history.check_keys(ledger)
            except AssertionError as error:
                raise AssertionError(f"power cut {number} of seed {SEED}: {error}") from error
        disk = disk.copy() if lot.random() < 0.5 else disk.after_cut(lot)
    seconds = time.monotonic() - begun
    figure(f"R4: {cuts} power cuts, {acknowledged} jobs submitted meanwhile, 0 lost, 0 damaged, {seconds:.1f} s")


def live(disk: SimulatedDisk, history: History) -> None:
    """Until the power goes; now and then the ledger is closed and opened again."""
    while True:
        with open_ledger(disk) as ledger:
            history.check(ledger)
            for _ in range(history.lot.randrange(60)):
                history.act(ledger)


def test_without_syncs_power_cuts_lose_jobs() -> None:
    """The test can fail: the same lives on a disk that only says it has synced."""

    class Liar(SimulatedDisk):
        def sync_inode(self, inode: object, operation: str) -> None:
            self.step(operation)

    lost = 0
    for number in range(30):
        lot = random.Random(number)
        disk, history = Liar(), History(lot)
        disk.cut_at = 400
        with pytest.raises(PowerCut):
            live(disk, history)
        try:
            with open_ledger(disk.after_cut(lot)) as ledger:
                history.check(ledger)
        except Exception:
            lost += 1
    assert lost > 20


def test_a_power_cut_anywhere_in_a_migration_leaves_the_old_schema_or_the_new(monkeypatch: pytest.MonkeyPatch) -> None:
    old = SimulatedDisk()
    with open_ledger(old) as ledger:
        job = ledger.submit(new_job(inputs={"image": b"x" * 100}))
    later = tuple(f"ALTER TABLE jobs ADD COLUMN note{i} TEXT NOT NULL DEFAULT 'x'" for i in range(5))
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, later))
    schemas = []
    for cut_at in itertools.count(1):
        disk = old.copy()
        disk.cut_at, disk.autocheckpoint = cut_at, 3
        try:
            open_ledger(disk).close()
        except PowerCut:
            pass
        else:
            break
        disk = disk.after_cut(random.Random(cut_at))
        connection = disk.copy().connect(ROOT / "jobs" / DATABASE_NAME, read_only=True)
        schemas.append(connection.execute("PRAGMA user_version").fetchone()[0])
        connection.close()
        with open_ledger(disk) as ledger:
            assert ledger.get(job.id) == job and ledger.verify().whole
            assert ledger._database.rows("SELECT note0, note4 FROM jobs") == [{"note0": "x", "note4": "x"}]
    assert set(schemas) == {1, 2} and len(schemas) > 20
