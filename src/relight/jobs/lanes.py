"""The worker of each device, and the lanes in which calls wait for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from relight.errors import WorkerError
from relight.workers.process import Worker


class Lanes:
    """Each worker has a lane: tasks given to it run in order, beside those of other lanes. What waits for a picture
    that another worker denoises has a lane of its own, so that it keeps nothing of later pictures from that worker."""

    def __init__(self, environment: Callable[[], Mapping[str, str]], hang_s: float) -> None:
        """`environment` of a worker is asked when it is started."""
        self.workers: dict[str, Worker] = {}
        self.lanes: dict[str, ThreadPoolExecutor] = {}
        self.late_lanes: dict[str, ThreadPoolExecutor] = {}
        self.closed = False
        self._environment, self._hang_s = environment, hang_s
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="beside")

    def worker(self, device: str) -> Worker:
        """The worker that owns a device; all CPU executors share one."""
        name = worker_name(device)
        self._check_open()
        if name not in self.workers:
            self.workers[name] = Worker(name, self._environment(), hang_s=self._hang_s)
            self.lanes[name] = ThreadPoolExecutor(1, thread_name_prefix=name)
            self.late_lanes[name] = ThreadPoolExecutor(1, thread_name_prefix=f"{name} late")
        return self.workers[name]

    def submit[T](self, device: str, task: Callable[[], T], *, late: bool = False) -> Future[T]:
        """Run a task in the lane of the device's worker, after what was given to it before; `late`: in the lane of what
        waits for other workers."""
        lanes = self.late_lanes if late else self.lanes
        return lanes[worker_name(device)].submit(task)

    def submit_beside[T](self, task: Callable[[], T]) -> Future[T]:
        """Run a task in a lane of its own: between the calls of a worker whose own lane waits for something."""
        return self._beside.submit(task)

    @property
    def any_lost(self) -> bool:
        """Whether a worker ended by itself. Raises WorkerError when all were closed."""
        self._check_open()
        return not all(worker.alive for worker in list(self.workers.values()))

    def forget(self, worker: str) -> None:
        """End it, with what waits for it."""
        self.workers.pop(worker).close()
        for lanes in (self.lanes, self.late_lanes):
            lanes.pop(worker).shutdown(wait=False, cancel_futures=True)

    def cancel(self, owner: object = None) -> None:
        """Ask whatever runs (for `owner`) to stop at its next step."""
        for worker in list(self.workers.values()):
            worker.cancel(owner)

    def close(self, *, at_once: bool = False) -> None:
        """End the workers; `at_once` without waiting for what they do."""
        self.closed = True
        for lane in (*self.lanes.values(), *self.late_lanes.values(), self._beside):
            lane.shutdown(wait=False, cancel_futures=True)
        for worker in self.workers.values():
            worker.kill() if at_once else worker.close()
        self.workers.clear()

    def _check_open(self) -> None:
        if self.closed:
            raise WorkerError("the workers were ended with their pipeline; make a new one")


def worker_name(device: str) -> str:
    """All CPU executors share one worker."""
    return device if device.startswith("vulkan") else "cpu"
