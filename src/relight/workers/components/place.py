"""An executor and what is compiled on it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from relight.errors import OutOfDeviceMemory
from relight.executors.base import Executor, Program


@dataclass
class Place:
    """An executor and the programs compiled on it, one for each component: that of the last sizes asked for. With
    `keep_programs` off, one program's buffers exist at a time."""

    executor: Executor
    keep_programs: bool = True
    programs: dict[str, tuple[Hashable, Program]] = field(default_factory=dict)

    def program(self, name: str, shape: Hashable, compile_it: Callable[[], Program]) -> Program:
        """The program of component `name` for a shape, compiled by `compile_it` if it is not there yet."""
        known = self.programs.get(name)
        if known and known[0] == shape:
            return known[1]
        if not self.keep_programs:
            self.release()
        elif known:
            self.programs.pop(name)[1].close()
        try:
            program = compile_it()
        except OutOfDeviceMemory:
            if not self.programs:
                raise
            self.release()
            program = compile_it()
        self.programs[name] = (shape, program)
        return program

    def drop(self, name: str) -> None:
        """Give back the buffers of one component's program, if it has one."""
        if name in self.programs:
            self.programs.pop(name)[1].close()

    def release(self) -> None:
        """Give back the buffers of every program; weights stay."""
        while self.programs:
            _, (_, program) = self.programs.popitem()
            program.close()
