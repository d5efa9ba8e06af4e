"""A hard limit on what relight allocates on a device."""

from __future__ import annotations

from dataclasses import dataclass

from relight.errors import OutOfDeviceMemory

GIB = 1 << 30


@dataclass
class MemoryLimit:
    """Counts what relight holds on a device against a limit in bytes; None: the device's own refusal decides."""

    device: str
    limit: int | None = None
    used: int = 0
    peak: int = 0

    def take(self, nbytes: int, what: str) -> None:
        """Raises OutOfDeviceMemory, with nothing taken, if the limit would be passed."""
        if self.limit is not None and self.used + nbytes > self.limit:
            raise OutOfDeviceMemory(
                f"{what} needs {nbytes / GIB:.2f} GiB on {self.device}, where {self.used / GIB:.2f} GiB of "
                f"{self.limit / GIB:.2f} GiB allowed are in use"
            )
        self.used += nbytes
        self.peak = max(self.peak, self.used)

    def give_back(self, nbytes: int) -> None:
        self.used -= nbytes
