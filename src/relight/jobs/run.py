"""One request on its way through the workers: prompt -> conditioning -> latents -> pictures.

Every stage is a task in the lane of the worker that does it. Tasks are given to the lanes in the order of the stages,
so none waits for one behind it in its own lane, and what different workers do runs side by side where nothing waits for
it: the GPU takes its weights while the CPU encodes the text, one picture is decoded while the next is denoised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import numpy as np

from relight.errors import WorkerError
from relight.jobs.clock import Clock
from relight.jobs.events import Advanced, Checkpointed, Listener
from relight.jobs.fleet import Fleet
from relight.jobs.lanes import worker_name
from relight.jobs.settle import Pass, Settled
from relight.planner.placement import Placement
from relight.workers.process import Event

WAIT_S = 0.2


class Aside(Protocol):
    """What a run asks when a component's turn comes: whether to leave the backbone's device to other pictures."""

    def now(self, run: Run, component: str) -> bool: ...

    def pays(self, run: Run, component: str) -> bool:
        """Whether the answer may be yes."""
        ...


class Never:
    def now(self, run: Run, component: str) -> bool:
        return False

    def pays(self, run: Run, component: str) -> bool:
        return False


NEVER_ASIDE = Never()


class Run:
    """What the stages of one request share: how to reach components, what is asked, who listens."""

    def __init__(
        self,
        fleet: Fleet,
        settled: Settled,
        placement: Placement,
        text_tokens: int,
        clock: Clock,
        tell: Listener,
    ) -> None:
        self.resume: Mapping[str, Checkpointed] = {}
        self.checkpoints = False
        self.fleet, self.settled, self.request = fleet, settled, settled.request
        self.placement, self.text_tokens, self.clock, self.tell = placement, text_tokens, clock, tell
        self.tasks: list[Future[Any]] = []
        self.components: dict[str, dict[str, Any]] = {}
        self.seconds: dict[tuple[str, str], float] = {}
        self.devices: dict[str, dict[str, int]] = {}
        self.preview: Future[None] | None = None
        self.device = dict(placement.device)
        self.denoising: list[Future[Any]] = []
        self.aside: Aside = NEVER_ASIDE

    @property
    def done(self) -> bool:
        """Whether nothing of it is under way or to come."""
        return all(task.done() for task in self.tasks)

    @property
    def can_decode_previews(self) -> bool:
        """Whether the tiny autoencoder is on another worker than the backbone."""
        return "taesd" in self.device and not self._with_backbone("taesd")

    @property
    def wants_backbone(self) -> bool:
        """Whether there is still something to denoise."""
        return not self.done and not (self.denoising and all(task.done() for task in self.denoising))

    def _with_backbone(self, component: str) -> bool:
        return worker_name(self.device[component]) == worker_name(self.device["diffusion"])

    def submit[T](self, component: str, task: Callable[[], T], *, late: bool = False) -> Future[T]:
        """`late`: it waits for latents, and so goes into a lane where nothing is behind it that they wait for."""
        late = late and not self._with_backbone(component)
        future = self.fleet.submit(self.device[component], task, late=late)
        self.tasks.append(future)
        return future

    def submit_aside[T](self, component: str, task: Callable[[str], T]) -> Future[T]:
        """A task that is told its device when its turn comes in the backbone's lane: the CPU, in a lane there, where
        other pictures wait for the backbone's device by then; else the one planned."""
        found: Future[T] = Future()
        planned = self.device[component]

        def begin() -> None:
            if self.aside.now(self, component):
                with suppress(KeyError, RuntimeError):  # the lane went with its worker
                    later = self.fleet.submit("cpu", partial(_settle, found, partial(task, "cpu")), late=True)
                    later.add_done_callback(lambda done: found.cancel() if done.cancelled() else None)
                    return
            _settle(found, partial(task, planned))

        self.tasks += [self.fleet.submit(planned, begin), found]
        return found

    def sizes(self, which: Pass) -> dict[str, int]:
        """Of a pass, as components take them."""
        return sizes_of(self.settled, which, self.text_tokens) | {
            "tile": self.placement.tile,
            "batch": self.placement.batch,
        }

    def load(self, component: str, sizes: Mapping[str, int], device: str | None = None) -> None:
        """Weights, and the program for these sizes: nothing where both are there."""
        where = device or self.device[component]
        with self.clock.measure("load", component):
            self.fleet.call(component, "load", sizes, on_event=self.advanced(), owner=self, device=where)
        with self.clock.measure("compile", component):
            self.fleet.call(component, "compile", sizes, owner=self, device=where)

    def call(
        self,
        stage: str,
        component: str,
        sizes: Mapping[str, int],
        arrays: Mapping[str, np.ndarray],
        on_event: Event | None = None,
        device: str | None = None,
        **values: Any,
    ) -> dict[str, np.ndarray]:
        """Run a component, its seconds added to a stage; events are progress unless `on_event` takes them."""
        where, told = device or self.device[component], on_event or self.advanced()
        with self.clock.measure(stage, component if stage == "encode" else ""):
            answer = self.fleet.call(component, "run", sizes, arrays, told, self, device=where, **values)
        self._note(component, answer.values)
        return answer.arrays

    def _note(self, component: str, values: Mapping[str, Any]) -> None:
        """Bytes and seconds after a call; of its device the highest peak."""
        self.components[component] = values["component"]
        at = component, worker_name(values["component"]["executor"])
        self.seconds[at] = self.seconds.get(at, 0.0) + values["seconds"]
        if used := values["device"]:
            name = values["component"]["executor"]
            peak = max(used["peak_bytes"], self.devices.get(name, used)["peak_bytes"])
            self.devices[name] = used | {"peak_bytes": peak}

    def advanced(self, picture: int = 0) -> Callable[[dict[str, Any]], None]:
        def on_event(values: dict[str, Any]) -> None:
            self.tell(Advanced(values["stage"], values["done"], values["total"], values["seconds"], picture))

        return on_event

    def finish(self) -> None:
        """Wait for every task. Raises the first failure, and tells what has begun to stop."""
        try:
            all_done(self.tasks)
        except BaseException:
            self.fleet.cancel(self)
            raise
        finally:
            if self.preview is not None and not self.preview.cancel():
                wait([self.preview])  # nothing is told after the end


def _settle[T](found: Future[T], task: Callable[[], T]) -> None:
    """Give a future what a task gives, or raises."""
    if not found.set_running_or_notify_cancel():
        return
    try:
        found.set_result(task())
    except BaseException as error:
        found.set_exception(error)


def shaped(array: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    """What a worker gave, if it is what it should be. Raises WorkerError: it is asked again, nothing of it is kept."""
    if array.shape != shape:
        raise WorkerError(f"{what} came back as {list(array.shape)} instead of {list(shape)}")
    return array


def sizes_of(settled: Settled, which: Pass, text_tokens: int) -> dict[str, int]:
    height, width = which.latent_size
    return {
        "text_tokens": text_tokens,
        "latent_height": height,
        "latent_width": width,
        "levels": len(settled.evaluated(which)),
    }


def all_done(tasks: Sequence[Future[Any]]) -> None:
    """Wait for tasks given in the order in which they need one another; raise the first failure as soon as it is there,
    with those that have not begun cancelled."""
    pending: set[Future[Any]] = set(tasks)
    try:
        while pending:
            # In short waits: on Windows, Ctrl-C does not end a long one.
            done, pending = wait(pending, WAIT_S, return_when=FIRST_EXCEPTION)
            for task in tasks:
                if task in done:
                    task.result()
    except BaseException:
        for task in pending:
            task.cancel()
        raise
