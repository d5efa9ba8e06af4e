"""Errors of the node in OpenAI's shape: each class its status, no folder of the machine in any."""

from __future__ import annotations

from pathlib import Path

import pytest

from relight import errors
from relight.gateway.problem import Problem, job_problem, param_of, problem_of, without_folders

MADE: dict[type[errors.RelightError], errors.RelightError] = {
    errors.QueueFull: errors.QueueFull("8 jobs wait", 400),
    errors.ModelStopped: errors.ModelStopped("painter is left alone for a while", 60),
    errors.LedgerLocked: errors.LedgerLocked(Path("/srv/jobs"), 7),
}
CLASSES = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.RelightError)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_and_the_shape(kind: type[errors.RelightError]) -> None:
    problem = problem_of(MADE.get(kind) or kind("/srv/models/secret/a.gguf: is broken"))
    assert 400 <= problem.status < 600 and problem.status != 409, "official clients repeat a 409"
    error = problem.shape()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert "/srv" not in error["message"]
    assert ("Retry-After" in problem.headers) == (problem.status in (429, 503))


@pytest.mark.parametrize(("asked", "told"), [(0, "1"), (0.4, "1"), (7, "7"), (119.6, "120"), (1e9, "120")])
def test_retry_after_is_what_clients_obey(asked: float, told: str) -> None:
    assert Problem(503, "x", code="x", retry_after_s=asked).headers["Retry-After"] == told


def test_paths_lose_their_folders_and_nothing_else_does() -> None:
    assert without_folders("/data/ann/models/a.gguf: 5/8 of C:\\x\\y\\b.gguf") == "a.gguf: 5/8 of b.gguf"
    assert without_folders("see https://page.example/a") != ""


def test_the_param_is_the_field_a_message_begins_with() -> None:
    assert param_of("redraw.mask: has another size") == "redraw.mask"
    assert param_of("Nothing of the kind: here") is None


def test_a_jobs_cause_has_its_status() -> None:
    assert job_problem("invalid_request", "steps: 0").status == 400
    assert job_problem("worker_lost", "signal 9 in /var/log/x.log").shape()["error"] == {
        "message": "signal 9 in x.log",
        "type": "server_error",
        "param": None,
        "code": "worker_lost",
    }
