"""Every way to fail, in OpenAI's shape: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from relight.errors import (
    ConfigError,
    DiskFull,
    DoesNotFit,
    JobCancelled,
    JobNotFound,
    KeyConflict,
    LedgerError,
    ModelFileError,
    ModelStopped,
    OutOfDeviceMemory,
    PlanError,
    QueueFull,
    RelightError,
    RequestError,
    RuinedPicture,
    WorkerError,
    WorkerLost,
)

SOONEST_S, LATEST_S = 1, 120
"""Official clients wait as long as they are told up to 120 s, and give up when told more."""

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "unavailable_error",
}

# The first class that an error is of counts. 4xx: the client's to change, and official clients do not repeat it.
STATUSES: tuple[tuple[type[RelightError], int, str], ...] = (
    (JobNotFound, 404, "job_not_found"),
    (RequestError, 400, "invalid_value"),
    (QueueFull, 429, "queue_full"),
    (ModelStopped, 503, "model_stopped"),
    (KeyConflict, 422, "idempotency_key_reused"),
    (DiskFull, 507, "disk_full"),
    (DoesNotFit, 400, "does_not_fit"),
    (PlanError, 400, "no_plan"),
    (JobCancelled, 410, "cancelled"),
    (LedgerError, 503, "ledger_unavailable"),
    (ConfigError, 500, "configuration"),
    (ModelFileError, 500, "model_file"),
    (OutOfDeviceMemory, 500, "out_of_memory"),
    (RuinedPicture, 500, "ruined"),
    (WorkerLost, 500, "worker_lost"),
    (WorkerError, 503, "worker_unavailable"),
    (RelightError, 500, "failed"),
)
JOB_STATUSES = {"invalid_request": 400, "does_not_fit": 400, "cancelled": 410}
"""Of a job's own causes; every other one is 500."""

PATH = re.compile(r"(?:[A-Za-z]:)?(?:[/\\][^\s/\\:'\",;)]+)+[/\\]([^\s/\\:'\",;)]+)")


class Problem(Exception):
    """An answer that is an error. `param` names the field; `retry_after_s` is brought into 1 to 120."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})
        if retry_after_s is None and status in (429, 503):
            retry_after_s = 5
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(max(SOONEST_S, min(LATEST_S, round(retry_after_s))))

    @property
    def type(self) -> str:
        return TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")

    def shape(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def body(self) -> bytes:
        return json.dumps(self.shape()).encode()


def problem_of(error: RelightError) -> Problem:
    """The answer to an error of the node. Folders of this machine are left out of its sentence."""
    status, code = next((status, code) for kind, status, code in STATUSES if isinstance(error, kind))
    message = without_folders(str(error)) or "the request was cancelled"
    param = param_of(message) if status == 400 else None
    return Problem(status, message, code=code, param=param, retry_after_s=getattr(error, "retry_after_s", None))


def job_problem(code: str, message: str) -> Problem:
    """The answer to a job that ended without a result."""
    return Problem(JOB_STATUSES.get(code, 500), without_folders(message), code=code)


def without_folders(message: str) -> str:
    return PATH.sub(r"\1", message)


def param_of(message: str) -> str | None:
    """relight's messages begin with the field that they are about: `steps: ...`, `redraw.mask: ...`."""
    found = re.match(r"([a-z_]+(?:\.[a-z_]+)*): ", message)
    return found[1] if found else None


def invalid(param: str | None, message: str, code: str = "invalid_value") -> Problem:
    return Problem(400, f"{param}: {message}" if param else message, code=code, param=param)
