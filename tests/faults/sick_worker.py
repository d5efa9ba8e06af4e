"""A worker whose device fails as it is told: started in place of the real one, it is that with faults around its
executors. `$SICK_WORKER` names a JSON file, read anew at every call.

`where`: start, open, load, compile, or the stage of a run (encode, denoise, decode) of `component`; `at`: its how
manieth computation, from 1, with those before the checkpoint that it goes on from; `how`: one of HOW; `width`: only of
pictures so many latent pixels wide. It happens as often as there are marks beside the file, over all processes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from relight.errors import DeviceLost, OutOfDeviceMemory
from relight.workers import child, protocol
from relight.workers.child import Answer, Child
from relight.workers.protocol import Message

VARIABLE = "SICK_WORKER"
ENDS = ("abort", "killed", "exit")
"""The process ends by itself: a driver that gives up, the system for want of memory, a library that calls exit."""
HOW = (*ENDS, "lost", "memory", "hang", "stopped", "error", "nan", "shape", "answer nan", "answer shape")
WORTH_SHARING = 16 << 10
"""Some arrays of small pictures then go through shared memory, others through the pipe."""
make_executor = child.make_executor


class Sick(Child):
    def on_open(self, call: Message) -> Answer:
        FAULTS.begin("open", call.values["component"])
        FAULTS.computed()
        return super().on_open(call)

    def on_load(self, call: Message) -> Answer:
        return self._within("load", call)

    def on_compile(self, call: Message) -> Answer:
        return self._within("compile", call)

    def on_run(self, call: Message) -> Answer:
        stage = self.components[call.values["component"]].stage
        values, arrays = self._within(stage, call)
        return values, FAULTS.answered(arrays)

    def _within(self, where: str, call: Message) -> Answer:
        before = call.values.get("denoising", {}).get("first_step", 0)
        FAULTS.begin(where, call.values["component"], call.values["sizes"], before)
        try:
            answer: Answer = getattr(Child, "on_" + call.values["method"])(self, call)
        finally:
            FAULTS.where = ""
        return answer


class Faults:
    """What is to go wrong in the call of the moment."""

    def __init__(self) -> None:
        self.where, self.count = "", 0
        self.told: dict[str, Any] = {}

    def begin(self, where: str, component: str, sizes: Mapping[str, int] | None = None, before: int = 0) -> None:
        told = json.loads(Path(os.environ[VARIABLE]).read_text(encoding="utf-8"))
        here = told and (told["where"], told["component"]) == (where, component)
        here = here and told.get("width") in (None, (sizes or {}).get("latent_width"))
        self.where, self.count, self.told = where, before, told if here else {}

    def computed(self, outputs: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """In the place of every computation, and of what starts, opens, loads and compiles."""
        self.count += 1
        if not self.told or self.count != self.told["at"] or self.told["how"].startswith("answer") or not self._due():
            return outputs or {}
        return strike(self.told["how"], outputs or {})

    def answered(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if not self.told or not self.told["how"].startswith("answer") or not self._due():
            return arrays
        return strike(self.told["how"].removeprefix("answer "), arrays)

    def _due(self) -> bool:
        """One of the marks beside the file is taken away each time."""
        marks = Path(os.environ[VARIABLE]).parent.glob("due-*")
        for mark in marks:
            try:
                mark.unlink()
            except FileNotFoundError:
                continue
            return True
        return False


FAULTS = Faults()


def strike(how: str, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if how == "nan":
        return {
            name: np.full_like(array, np.nan) if array.dtype.kind == "f" else array for name, array in outputs.items()
        }
    if how == "shape":
        return {name: np.ascontiguousarray(array[..., :-1]) for name, array in outputs.items()}
    if how == "lost":
        raise DeviceLost("ggml-cpu: computing failed (failed)")
    if how == "memory":
        raise OutOfDeviceMemory("ggml-cpu refused 3.00 GiB (2.00 GiB of 8.00 GiB free)")
    if how == "error":
        raise ZeroDivisionError("of a library")
    if how == "exit":
        os._exit(3)
    if how == "hang":
        threading.Event().wait()
    os.kill(os.getpid(), {"abort": signal.SIGABRT, "killed": signal.SIGKILL, "stopped": signal.SIGSTOP}[how])
    return outputs


class SickExecutor:
    """An executor with faults in it."""

    def __init__(self, whole: Any) -> None:
        self._whole = whole

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def load(self, *arguments: Any) -> Any:
        if FAULTS.where == "load":
            FAULTS.computed()
        return self._whole.load(*arguments)

    def compile(self, *arguments: Any) -> Any:
        if FAULTS.where == "compile":
            FAULTS.computed()
        return SickProgram(self._whole.compile(*arguments))


class SickProgram:
    def __init__(self, whole: Any) -> None:
        self._whole = whole

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        return FAULTS.computed(self._whole.run(inputs))


def command() -> tuple[str, ...]:
    return (sys.executable, "-u", "-P", __file__)


def main() -> None:
    protocol.WORTH_SHARING = WORTH_SHARING
    FAULTS.begin("start", "")
    FAULTS.computed()
    child.Child = Sick  # type: ignore[misc]
    child.make_executor = lambda *arguments: SickExecutor(make_executor(*arguments))  # type: ignore[assignment]
    child.main()


if __name__ == "__main__":
    main()
