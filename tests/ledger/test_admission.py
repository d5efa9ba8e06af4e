"""How much may wait, and when a refused client gets its turn."""

from __future__ import annotations

import errno
import random
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ledgers import HandClock, claim, new_job
from relight.errors import DiskFull, QueueFull
from relight.ledger import Ledger, Limits
from relight.ledger.admission import LONGEST_S, Admission, Asked, Load
from relight.ledger.disk import Disk

DEAF = -1


def open_ledger(folder: Path, clock: HandClock, limits: Limits) -> Ledger:
    return Ledger(folder, limits, clock=clock)


def refused(ledger: Ledger, prompt: str, seconds: float = 10.0) -> int:
    with pytest.raises(QueueFull) as error:
        ledger.submit(new_job(prompt, predicted_seconds=seconds))
    return error.value.retry_after_s


def test_a_full_queue_says_when_the_running_job_makes_room(tmp_path: Path, clock: HandClock) -> None:
    with open_ledger(tmp_path, clock, Limits(queued=2)) as ledger:
        ledger.submit(new_job("running", predicted_seconds=30))
        claim(ledger)
        for i in range(2):
            ledger.submit(new_job(str(i), predicted_seconds=30))
        clock.advance(12)
        with pytest.raises(QueueFull, match=r"2 jobs wait .*, and 2 may; come again in 18 s") as error:
            ledger.submit(new_job("more"))
        assert error.value.retry_after_s == 18
        assert len(ledger.jobs()) == 3


def test_room_is_made_by_the_job_begun_last_and_not_sooner_than_in_a_part_of_its_time(
    tmp_path: Path, clock: HandClock
) -> None:
    with open_ledger(tmp_path, clock, Limits(queued=1)) as ledger:
        for i in range(2):
            ledger.submit(new_job(str(i), predicted_seconds=30))
            claim(ledger)
            clock.advance(10)
        ledger.submit(new_job("waits", predicted_seconds=30))
        assert refused(ledger, "a") == 20
        clock.advance(60)
        assert refused(ledger, "b") == 6


def test_what_waits_can_be_predicted_anew(tmp_path: Path, clock: HandClock) -> None:
    with open_ledger(tmp_path, clock, Limits(queued=3)) as ledger:
        jobs = [ledger.submit(new_job(str(i), predicted_seconds=30)) for i in range(3)]
        ledger.predict(lambda job: 2.0)
        assert [ledger.get(job.id).predicted_seconds for job in jobs] == [2.0] * 3
        assert ledger.usage().queued_seconds == 6.0
        assert [refused(ledger, f"client {i}") for i in range(4)] == [1, 3, 5, 8]


def test_predicted_seconds_are_a_limit_of_their_own(tmp_path: Path, clock: HandClock) -> None:
    with open_ledger(tmp_path, clock, Limits(queued_seconds=100)) as ledger:
        ledger.submit(new_job("a", predicted_seconds=90))
        ledger.submit(new_job("b", predicted_seconds=10))
        assert refused(ledger, "c", 25) == 25


def test_a_job_beyond_the_limit_is_accepted_where_nothing_waits(tmp_path: Path, clock: HandClock) -> None:
    with open_ledger(tmp_path, clock, Limits(queued_seconds=100, input_bytes=10)) as ledger:
        ledger.submit(new_job(predicted_seconds=5000, inputs={"image": bytes(50)}))
        assert refused(ledger, "more") == LONGEST_S


def test_bytes_of_inputs_are_a_limit(tmp_path: Path, clock: HandClock) -> None:
    with open_ledger(tmp_path, clock, Limits(input_bytes=100)) as ledger:
        ledger.submit(new_job("a", inputs={"image": bytes(60)}))
        with pytest.raises(QueueFull, match="120 bytes of inputs would wait with this one, and 100 may"):
            ledger.submit(new_job("b", inputs={"image": bytes(60)}))
        assert ledger.verify().orphans == 0


@pytest.mark.parametrize("seconds", [0.0, 0.01, 1e9])
def test_the_time_to_come_again_is_1_to_120_s(tmp_path: Path, clock: HandClock, seconds: float) -> None:
    with open_ledger(tmp_path, clock, Limits(queued=1)) as ledger:
        ledger.submit(new_job("running", predicted_seconds=seconds))
        claim(ledger)
        ledger.submit(new_job("waits", predicted_seconds=seconds))
        assert 1 <= refused(ledger, "more") <= LONGEST_S


def test_refused_clients_are_told_times_after_one_another_and_get_in(tmp_path: Path, clock: HandClock) -> None:
    """While newcomers knock all the time; the card does what was predicted."""
    with open_ledger(tmp_path, clock, Limits(queued=3)) as ledger:
        for i in range(4):
            ledger.submit(new_job(f"first {i}", predicted_seconds=10))
            if not i:
                attempt = claim(ledger)
        due = {refused(ledger, f"client {i}"): f"client {i}" for i in range(5)}
        assert list(due) == [10, 22, 34, 46, 58], "a little further apart than jobs are begun"
        for second in range(1, 59):
            clock.advance(1)
            if second % 10 == 0:
                ledger.commit(attempt, [], {})
                attempt = claim(ledger)
            refused(ledger, f"newcomer {second}")
            if second in due:
                assert ledger.submit(new_job(due[second], predicted_seconds=10)).state == "queued"


def test_a_promise_not_taken_up_is_forgotten(tmp_path: Path, clock: HandClock) -> None:
    with open_ledger(tmp_path, clock, Limits(queued=1)) as ledger:
        job = ledger.submit(new_job("waits", predicted_seconds=10))
        refused(ledger, "gone for ever")
        ledger.cancel(job.id)
        refused(ledger, "newcomer")
        clock.advance(10)
        assert ledger.submit(new_job("later")).state == "queued"


@dataclass
class Line:
    """A queue of jobs of a second each, by simulated time: `enter` gives 0 or the seconds after which to come again."""

    clock: HandClock
    limit: int
    waiting: int = 0
    idle: int = 0
    begun: float = 0.0

    def __post_init__(self) -> None:
        self.admission = Admission(Limits(queued=self.limit), self.clock)

    def enter(self, name: str) -> int:
        left = max(0.2, 1.0 - (self.clock.monotonic() - self.begun))
        asked = Asked(("", name), 1.0, 0)
        try:
            self.admission.admit(asked, Load(self.waiting, float(self.waiting), 0, left))
        except QueueFull as error:
            return error.retry_after_s
        self.admission.arrived(asked)
        self.waiting += 1
        return 0

    def second(self) -> int:
        """Pass one, in which a job is begun if there is one; the time."""
        self.clock.advance(1)
        self.begun = self.clock.monotonic()
        self.idle += not self.waiting
        self.waiting -= min(1, self.waiting)
        return int(self.begun)


def test_obedient_clients_get_in_while_many_strangers_knock_once(clock: HandClock) -> None:
    """Nine strangers a second who never come again, and a client every other second who does as it is told."""
    line, due = Line(clock, limit=64), dict[int, list[str]]()
    tried = failed = 0
    for _ in range(600):
        now = line.second()
        for name in due.pop(now, ()):
            tried, failed = tried + 1, failed + (line.enter(name) > 0)
        for stranger in range(9):
            line.enter(f"stranger {now} {stranger}")
        if now % 2 and (wait := line.enter(f"client {now}")):
            due.setdefault(now + wait, []).append(f"client {now}")
    assert tried > 200 and failed <= tried / 10
    assert line.idle <= 1


@pytest.mark.parametrize("deaf", [False, True], ids=["all obey", "one knocks"])
def test_a_hundred_clients_at_ten_places_get_in_when_they_were_told(clock: HandClock, deaf: bool) -> None:
    """Each with one job after another, of about half a second; what is predicted of one is the mean of the last eight,
    as the node does it. One that is deaf asks for another job four times a second, whatever it is told."""
    lot, admission = random.Random(1), Admission(Limits(queued=10), clock)
    coming = [(clock.monotonic() + lot.random(), client, 0, 0) for client in range(100)]
    took, waiting, begun, ends = [0.5] * 8, list[tuple[int, int]](), 0.0, 0.0
    tried = failed = idle = 0
    running: tuple[int, int] | None = None
    for tick in range(6000):
        clock.advance(0.05)
        now, mean = clock.monotonic(), sum(took) / len(took)
        if now >= ends:
            if running is not None:
                took = [*took[1:], now - begun]
                coming += [(now, running[0], running[1] + 1, 0)] if running[0] != DEAF else []
            running, idle = (waiting.pop(0), idle) if waiting else (None, idle + 1)
            begun, ends = now, now + max(0.2, lot.gauss(0.5, 0.1))
        load = Load(len(waiting), len(waiting) * mean, 0, max(0.2 * mean, mean - (now - begun)))
        there = sorted(each for each in coming if each[0] <= now)
        there += [(now, DEAF, tick, 0)] if deaf and tick % 5 == 0 else []
        coming = [each for each in coming if each[0] > now]
        for _, client, number, tries in there:
            asked = Asked(("", f"{client} {number}"), mean, 0)
            tried += tries == 1
            load = replace(load, queued=len(waiting), seconds=len(waiting) * mean)
            try:
                admission.admit(asked, load)
            except QueueFull as error:
                failed += tries == 1
                coming += [(now + error.retry_after_s, client, number, tries + 1)] if client != DEAF else []
            else:
                admission.arrived(asked)
                waiting.append((client, number))
    assert tried > 250 and failed <= tried / (10 if deaf else 50)
    assert idle <= 5


def test_a_short_queue_does_not_run_dry_for_promises_that_nobody_takes_up(clock: HandClock) -> None:
    line = Line(clock, limit=5)
    for _ in range(300):
        now = line.second()
        for stranger in range(5):
            line.enter(f"stranger {now} {stranger}")
    assert line.idle <= 1


def test_a_job_that_is_there_already_is_found_in_a_full_queue(tmp_path: Path, clock: HandClock) -> None:
    with open_ledger(tmp_path, clock, Limits(queued=1)) as ledger:
        job = ledger.submit(new_job(key="k"))
        assert ledger.submit(new_job(key="k")).id == job.id
        assert ledger.submit(new_job(), join=True).id == job.id


class SmallDisk(Disk):
    """`free` bytes are left, and none of them once `full`."""

    free, full = 1000, False

    def free_bytes(self, folder: Path) -> int:
        return self.free

    def write(self, descriptor: int, content: bytes) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(descriptor, content)


def test_nothing_is_accepted_on_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    with Ledger(tmp_path, Limits(free_bytes=1001), disk=SmallDisk()) as ledger:
        with pytest.raises(DiskFull, match="the disk is full"):
            ledger.submit(new_job())


def test_a_result_for_which_there_is_no_room_can_be_committed_later(tmp_path: Path) -> None:
    from relight.ledger import NewResult

    disk = SmallDisk()
    with Ledger(tmp_path, Limits(free_bytes=0), disk=disk) as ledger:
        job = ledger.submit(new_job())
        attempt = claim(ledger)
        disk.full = True
        with pytest.raises(DiskFull):
            ledger.commit(attempt, [NewResult(b"picture", "image/png")], {})
        assert ledger.get(job.id).state == "running"
        disk.full = False
        assert ledger.commit(attempt, [NewResult(b"picture", "image/png")], {})
        assert ledger.verify().orphans == 0
