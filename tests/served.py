"""`relight serve` as a process: the embedded model of pictures, a small language model, one folder of jobs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2
import psutil
from openai import OpenAI

PICTURES, WORDS = "relight-emoji", "tiny"
DEADLINE_S = 120.0


@dataclass
class Served:
    """A server over `folder`/jobs that can be ended and started again. It computes on one thread of the CPU."""

    folder: Path
    llm: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    port: int = 0

    def start(self) -> Served:
        self.port = free_port()
        command = [sys.executable, "-m", "relight", "serve", "--backend", "cpu", "--port", str(self.port)]
        command += ["--directory", str(self.folder / "node")]
        command += ["--llm", str(self.llm)] if self.llm is not None else []
        surroundings = os.environ | {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "XDG_CONFIG_HOME": str(self.folder),
            "RELIGHT_MODELS": str(self.folder / "models"),
            "RELIGHT_ENGINE_THREADS": "1",
            "RELIGHT_SERVER_WARM": "false",
        }
        with open(self.folder / "serve.log", "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=surroundings | self.environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        overdue = threading.Timer(DEADLINE_S, self.process.kill)
        overdue.start()
        said = self.process.stdout.readline()
        overdue.cancel()
        assert said.startswith("relight serves http"), said + self.log()
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **more: Any) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=DEADLINE_S, **more)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx2.request(method, self.url + path, json=body, headers=named, timeout=DEADLINE_S)

    def submit(self, seed: int, steps: int = 2, **headers: str) -> dict[str, Any]:
        answer = self.ask("POST", "/api/jobs", {"model": PICTURES, "request": asked(seed, steps)}, **headers)
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"/api/jobs/{job_id}").json()
        return found

    def ended(self, job_id: str) -> dict[str, Any]:
        """The job when it has ended: its stream of events is read until then."""
        assert self.ask("GET", f"/api/jobs/{job_id}/events").status_code == 200
        return self.job(job_id)

    def picture(self, job: dict[str, Any]) -> bytes:
        assert job["state"] == "finished", job
        return self.ask("GET", job["results"][0]["url"]).content

    def workers(self) -> list[psutil.Process]:
        """Processes that compute pictures."""
        found = []
        for child in psutil.Process(self.pid).children():
            try:
                if "relight.workers.child" in child.cmdline():
                    found.append(child)
            except psutil.Error:  # it ended meanwhile
                continue
        return found

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """As the kernel does when memory is out."""
        self.end(signal.SIGKILL)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        code = self.process.wait(DEADLINE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def log(self) -> str:
        return (self.folder / "serve.log").read_text(encoding="utf-8")

    def __enter__(self) -> Served:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


def asked(seed: int, steps: int = 2) -> dict[str, Any]:
    return {"prompt": "a red apple", "width": 64, "height": 64, "steps": steps, "seed": seed}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
