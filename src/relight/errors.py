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
│   └── EngineMismatch       the ggml libraries are not the ones relight was written for
├── WorkerError
│   └── WorkerLost           exit code or signal, last lines of its log
├── OutputError              a picture cannot be written: path, reason
├── StoreError               files cannot be fetched, verified, kept or converted
└── JobCancelled             not a failure: somebody wanted no more of it
"""

from __future__ import annotations


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


class EngineMismatch(ExecutorError):
    """The ggml libraries found are not the version relight was written for."""


class WorkerError(RelightError):
    """A worker process failed."""


class WorkerLost(WorkerError):
    """A worker process ended by itself: exit code or signal, likely cause, last lines of its log."""


class OutputError(RelightError):
    """A picture cannot be written where it should be."""


class StoreError(RelightError):
    """Model files cannot be fetched, verified, kept or converted; the message has the way out."""


class RuinedPicture(RelightError):
    """What came out is no picture: not numbers, one colour, noise. Says what was seen and what may help."""


class JobCancelled(RelightError):
    """Somebody wanted no more of it."""
