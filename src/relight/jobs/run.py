"""One request on its way through the workers: prompt -> conditioning -> latents -> pictures.

Every stage is a task in the lane of the worker that does it. Tasks are given to the lanes in the order of the stages,
so none waits for one behind it in its own lane, and what different workers do runs side by side where nothing waits for
it: the GPU takes its weights while the CPU encodes the text, one picture is decoded while the next is denoised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import Any

import numpy as np

from relight.jobs.clock import Clock
from relight.jobs.events import Advanced, Checkpointed, Listener
from relight.jobs.fleet import Fleet, worker_name
from relight.jobs.settle import Pass, Settled
from relight.planner.placement import Placement
from relight.workers.process import Event

WAIT_S = 0.2


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
        self.checkpoint_s: float | None = None
        self.fleet, self.settled, self.request = fleet, settled, settled.request
        self.placement, self.text_tokens, self.clock, self.tell = placement, text_tokens, clock, tell
        self.tasks: list[Future[Any]] = []
        self.components: dict[str, dict[str, Any]] = {}
        self.devices: dict[str, dict[str, int]] = {}
        self.preview: Future[None] | None = None

    @property
    def done(self) -> bool:
        """Whether nothing of it is under way or to come."""
        return all(task.done() for task in self.tasks)

    @property
    def can_decode_previews(self) -> bool:
        """Whether the tiny autoencoder is on another worker than the backbone."""
        where = self.placement.device
        return "taesd" in where and worker_name(where["taesd"]) != worker_name(where["diffusion"])

    def submit[T](self, component: str, task: Callable[[], T]) -> Future[T]:
        future = self.fleet.submit(component, task)
        self.tasks.append(future)
        return future

    def sizes(self, which: Pass) -> dict[str, int]:
        """Of a pass, as components take them."""
        return sizes_of(self.settled, which, self.text_tokens) | {
            "tile": self.placement.tile,
            "batch": self.placement.batch,
        }

    def load(self, component: str, sizes: Mapping[str, int]) -> None:
        """Weights, and the program for these sizes: nothing where both are there."""
        with self.clock.measure("load", component):
            self.fleet.call(component, "load", sizes, on_event=self.advanced(), owner=self)
        with self.clock.measure("compile", component):
            self.fleet.call(component, "compile", sizes, owner=self)

    def call(
        self,
        stage: str,
        component: str,
        sizes: Mapping[str, int],
        arrays: Mapping[str, np.ndarray],
        on_event: Event | None = None,
        **values: Any,
    ) -> dict[str, np.ndarray]:
        """Run a component, its seconds added to a stage; events are progress unless `on_event` takes them."""
        with self.clock.measure(stage, component if stage == "encode" else ""):
            answer = self.fleet.call(component, "run", sizes, arrays, on_event or self.advanced(), self, **values)
        self._note(component, answer.values)
        return answer.arrays

    def _note(self, component: str, values: Mapping[str, Any]) -> None:
        """Bytes after a call; of its device the highest peak."""
        self.components[component] = values["component"]
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
