"""Every error relight raises on purpose. Each message says what, with which numbers, and the way out.

RelightError
├── ConfigError              a setting or flag is wrong
├── RequestError             the request cannot be done as asked; names the parameter
├── ModelFileError           a checkpoint is broken, of an unknown kind, or not the component asked for
│   └── WeightMissing        full weight name, file, nearest names
├── PlanError
│   └── DoesNotFit           needs, has, and settings that would make it fit
├── ExecutorError
│   ├── UnsupportedOp        op, shapes, executor, reason
│   ├── OutOfDeviceMemory    asked, device, in use, limit
│   ├── DeviceLost           the device computes no more in this process
│   └── EngineMismatch       the ggml libraries are not the ones relight was written for
├── WorkerError
│   └── WorkerLost           exit code or signal, last lines of its log
├── OutputError              a picture cannot be written: path, reason
├── StoreError               files cannot be fetched, verified, kept or converted
├── LedgerError              jobs cannot be kept or read: folder, reason
│   ├── LedgerLocked         another process writes there; its id
│   ├── LedgerDamaged        what was kept is not what was written
│   └── DiskFull             no room for more jobs or results
├── JobError
│   ├── JobNotFound          never accepted, or gone by the rules of keeping
│   ├── KeyConflict          an idempotency key used again for another request
│   └── QueueFull            says when to come again
├── ModelStopped             its workers died again and again; says when it is tried again
├── RuinedPicture            what came out is no picture: what was seen, what may help
└── JobCancelled             not a failure: somebody wanted no more of it
"""

from __future__ import annotations

from pathlib import Path


class RelightError(Exception):
    """Base of all. `str()` is one line for the user."""


class ConfigError(RelightError):
    """A setting or flag is wrong."""


class RequestError(RelightError):
    """The request cannot be done as asked; the message names the parameter."""


class ModelFileError(RelightError):
    """A checkpoint is broken, of an unknown kind, or not the component it was given as."""


class WeightMissing(ModelFileError):
    """A weight the network needs is not in the file."""


class PlanError(RelightError):
    """No placement does what was asked."""


class DoesNotFit(PlanError):
    """More memory is needed than there is; the message has both numbers and what would fit."""


class ExecutorError(RelightError):
    """A device or its library cannot do what was asked."""


class UnsupportedOp(ExecutorError):
    """An op, format or shape this executor has no way to compute."""


class OutOfDeviceMemory(ExecutorError):
    """A device allocation was refused, by the device or by the limit in force."""


class DeviceLost(ExecutorError):
    """The device or its library failed while it computed: what else this process asks of it would fail too."""


class EngineMismatch(ExecutorError):
    """The ggml libraries found are not the version relight was written for."""


class WorkerError(RelightError):
    """A worker process failed."""


class WorkerLost(WorkerError):
    """A worker process ended by itself, or hung and was ended: exit code or signal, likely cause, last lines of its
    log. `bystander`: it ended under a call of somebody else than the one that this is raised to."""

    def __init__(self, message: str, *, bystander: bool = False) -> None:
        self.bystander = bystander
        super().__init__(message)


class OutputError(RelightError):
    """A picture cannot be written where it should be."""


class StoreError(RelightError):
    """Model files cannot be fetched, verified, kept or converted; the message has the way out."""


class LedgerError(RelightError):
    """Jobs cannot be kept or read; what was accepted is still there."""


class LedgerLocked(LedgerError):
    """Another process is the writer of this folder."""

    def __init__(self, folder: Path, pid: int | None) -> None:
        self.pid = pid
        who = f"process {pid}" if pid else "another process"
        super().__init__(f"{folder}: {who} keeps its jobs here; stop it or name another folder")


class LedgerDamaged(LedgerError):
    """Bytes of the ledger are not those that were written."""


class DiskFull(LedgerError):
    """The disk has no room for more jobs or results."""


class JobError(RelightError):
    """A job cannot be had, or cannot be accepted as things stand."""


class JobNotFound(JobError):
    """No job has this id: it was never accepted, or has gone by the rules of keeping."""


class KeyConflict(JobError):
    """An idempotency key was used again for a request that is not the same."""


class QueueFull(JobError):
    """As many jobs wait as may. `retry_after_s`: seconds, 1 to 120, until there is room, as far as can be predicted."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"{message}; come again in {retry_after_s} s")


class ModelStopped(RelightError):
    """A model is left alone for `retry_after_s` seconds, because its workers died one after another."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class RuinedPicture(RelightError):
    """What came out is no picture: not numbers, one colour, noise. Says what was seen and what may help."""


class JobCancelled(RelightError):
    """Somebody wanted no more of it."""
