"""Workers as real processes, with a child that dies, hangs and floods on command."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from relight.errors import DoesNotFit, JobCancelled, WorkerError, WorkerLost
from relight.workers.child import Child
from relight.workers.link import child_environment
from relight.workers.process import Worker

FAKE = (sys.executable, "-u", "-P", str(Path(__file__).with_name("fake_worker.py")))
posix_only = pytest.mark.skipif(os.name != "posix", reason="signals that end a process are POSIX")


@pytest.fixture
def worker() -> Iterator[Worker]:
    started = Worker("fake", command=FAKE)
    yield started
    started.close()


def gone_within(pid: int, seconds: float) -> bool:
    """Ended, also where whoever inherited it has not asked for its exit status yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        if time.monotonic() > deadline:
            return False


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8])
@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (1, 300, 400)])
def test_arrays_come_back_as_they_were_sent(worker: Worker, dtype: type, shape: tuple[int, ...]) -> None:
    sent = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    came = worker.call("echo", arrays={"a": sent, "b": sent.T}).arrays
    np.testing.assert_array_equal(came["a"], sent)
    np.testing.assert_array_equal(came["b"], sent.T)
    assert came["a"].dtype == sent.dtype


def test_a_refusal_comes_as_the_class_the_worker_raised(worker: Worker) -> None:
    with pytest.raises(DoesNotFit, match=r"^5\.00 GiB are needed and 4\.00 GiB are allowed$"):
        worker.call("refuse")
    assert worker.call("echo").values["pid"] == worker.pid


def test_an_unforeseen_error_is_one_line_with_its_traceback_in_the_log(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "relight.workers")
    with pytest.raises(WorkerError, match=r"^worker fake failed in blunder: ZeroDivisionError: by accident \(--debug"):
        worker.call("blunder")
    assert "on_blunder" in caplog.text and "Traceback" in caplog.text


def test_an_unknown_method_is_an_error_and_not_the_end(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="AttributeError"):
        worker.call("no_such_method")
    assert worker.alive


@posix_only
@pytest.mark.parametrize(
    ("ended_by", "cause"),
    [
        (signal.SIGABRT, "the engine gave up"),
        (signal.SIGSEGV, "the engine gave up"),
        (signal.SIGBUS, "cut short"),
        (signal.SIGILL, "instructions this processor does not have"),
        (signal.SIGKILL, "for want of memory"),
    ],
)
def test_a_worker_ended_by_a_signal_says_which_and_why(worker: Worker, ended_by: signal.Signals, cause: str) -> None:
    with pytest.raises(WorkerLost) as caught:
        worker.call("end", {"signal": int(ended_by), "says": ["ggml.c:12: GGML_ASSERT(buffer) failed"]})
    message = str(caught.value)
    assert message.startswith(f"worker fake ended during end ({ended_by.name}): ") and cause in message
    assert message.endswith("[last words: ggml.c:12: GGML_ASSERT(buffer) failed]")
    assert not worker.alive


def test_an_exit_amid_a_call_is_told_with_its_status_and_last_telling_line(worker: Worker) -> None:
    with pytest.raises(WorkerLost) as caught:
        worker.call("end", {"status": 7, "says": ["out of luck", "", "DEBUG x: noise", "INFO y: noise"]})
    assert str(caught.value) == "worker fake ended during end (exit status 7) [last words: out of luck]"


def test_last_words_are_kept_to_a_line_that_can_be_read(worker: Worker) -> None:
    with pytest.raises(WorkerLost) as caught:
        worker.call("end", {"status": 1, "says": ["word " * 10_000]})
    assert len(str(caught.value)) < 500


def test_calls_after_the_end_are_worker_lost_again(worker: Worker) -> None:
    for _ in range(2):
        with pytest.raises(WorkerLost, match="exit status 5"):
            worker.call("end", {"status": 5})
    worker.cancel()


def test_a_flood_on_stderr_blocks_nothing(worker: Worker) -> None:
    worker.call("flood")
    assert worker.call("echo").values["pid"] == worker.pid


def test_what_libraries_print_does_not_reach_the_protocol(worker: Worker) -> None:
    worker.call("print")
    assert worker.call("echo").values["pid"] == worker.pid


def test_a_cancelled_call_ends_at_its_next_step(worker: Worker) -> None:
    seen: list[int] = []

    def on_event(values: dict[str, Any]) -> None:
        seen.append(values["done"])
        worker.cancel()

    with pytest.raises(JobCancelled, match="of 100000"):
        worker.call("steps", {"total": 100_000}, on_event=on_event)
    assert seen[0] == 1 and len(seen) < 50_000
    assert worker.call("steps", {"total": 3}).values == {"done": 3}


def test_a_cancel_between_calls_does_not_stop_the_next(worker: Worker) -> None:
    worker.cancel()
    assert worker.call("steps", {"total": 3}).values == {"done": 3}


def test_a_listener_that_raises_stops_the_call_and_leaves_the_worker_usable(worker: Worker) -> None:
    def on_event(values: dict[str, Any]) -> None:
        raise BrokenPipeError("nobody reads")

    with pytest.raises(BrokenPipeError):
        worker.call("steps", {"total": 100_000}, on_event=on_event)
    assert worker.call("echo").values["pid"] == worker.pid


def test_calls_from_several_threads_get_their_own_answers(worker: Worker) -> None:
    answers: dict[int, np.ndarray] = {}

    def ask(number: int) -> None:
        answers[number] = worker.call("echo", arrays={"n": np.array([number], np.int32)}).arrays["n"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: int(array[0]) for number, array in answers.items()} == {n: n for n in range(20)}


def test_killing_a_worker_wakes_the_call_that_waits_for_it(worker: Worker) -> None:
    caught: list[Exception] = []
    called = threading.Event()

    def wait() -> None:
        called.set()
        try:
            worker.call("hang")
        except WorkerLost as error:
            caught.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    called.wait()
    worker.kill()
    waiting.join(10)
    assert len(caught) == 1


def test_a_worker_that_is_not_ready_in_time_is_ended() -> None:
    with pytest.raises(WorkerError, match=r"^worker slow was not ready after \d+\.\d s \(its process was sleeping\)"):
        Worker("slow", command=(*FAKE, "hang"), start_deadline_s=0.2)


def test_a_worker_that_fails_at_its_start_says_why() -> None:
    with pytest.raises(WorkerLost, match=r"ended during start \(exit status 1\).*libwanted.so.1"):
        Worker("broken", command=(*FAKE, "raise"))


def test_chatter_on_the_pipe_is_an_error_and_not_a_hang() -> None:
    with pytest.raises(WorkerLost, match="sent what is no message during start"):
        Worker("chatty", command=(*FAKE, "chatter"))


def test_a_closed_worker_is_gone_even_if_it_hangs() -> None:
    worker = Worker("fake", command=FAKE)
    thread = threading.Thread(target=lambda: ended_quietly(lambda: worker.call("hang")))
    thread.start()
    worker.close()
    thread.join(10)
    assert gone_within(worker.pid, 0)


def ended_quietly(call: Callable[[], object]) -> None:
    with suppress(WorkerLost):
        call()


PARENT_THAT_DIES = """
import os, sys
from relight.workers.process import Worker
worker = Worker("orphan", command=sys.argv[1:])
print(worker.pid, flush=True)
sys.stdin.readline()
os._exit(1)
"""


@pytest.mark.parametrize("amid", [b"", b"\x10\0\0\0\0\0\0\0{half"])
def test_a_child_whose_parent_dies_goes_too(amid: bytes) -> None:
    """Also where the parent died amid a message."""
    script = PARENT_THAT_DIES.replace("os._exit", f"os.write(worker._link._process.stdin.fileno(), {amid!r}); os._exit")
    environment = child_environment(os.environ, {})
    with subprocess.Popen(
        [sys.executable, "-c", script, *FAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        orphan = int(parent.stdout.readline())
        parent.stdin.close()
        parent.wait(10)
        assert gone_within(orphan, 2)


def test_the_users_environment_wins_over_the_defaults() -> None:
    with_defaults = child_environment({"A": "user", "PYTHONPATH": "mine"}, {"A": "default", "B": "default"})
    assert with_defaults["A"] == "user" and with_defaults["B"] == "default"
    assert with_defaults["GGML_NO_BACKTRACE"] == "1"
    assert with_defaults["PYTHONPATH"].endswith(os.pathsep + "mine")


def test_the_environment_reaches_the_child() -> None:
    worker = Worker("fake", {"RELIGHT_TEST_VARIABLE": "given"}, command=FAKE)
    try:
        assert worker.call("echo", {"variable": "RELIGHT_TEST_VARIABLE"}).values["variable"] == "given"
    finally:
        worker.close()


def test_a_cancel_of_a_waiting_call_leaves_that_of_the_running_one_in_force() -> None:
    child = Child(io.BytesIO(), io.BytesIO())
    child.current = 1
    child.cancel(1)
    child.cancel(2)
    with pytest.raises(JobCancelled, match="stopped at 3 of 900"):
        child.progress("denoise")(3, 900)
    child.current = 2
    with pytest.raises(JobCancelled):
        child.progress("load")(0, 1)
    child.current = 3
    child.cancel(2)
    child.progress("load")(0, 1)
