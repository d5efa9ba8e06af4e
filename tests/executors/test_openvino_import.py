"""What importing OpenVINO must not do: its package reports every import to a server, from a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from relight.workers.link import child_environment

WATCHED = """
import os, sys

def watch(event, arguments):
    if event in ("os.fork", "subprocess.Popen", "socket.connect", "socket.getaddrinfo"):
        os.write(1, f"{event} {arguments}".encode())

sys.addaudithook(watch)
import relight.executors.openvino
"""


def test_importing_openvino_starts_no_process_and_calls_nobody() -> None:
    pytest.importorskip("relight.executors.openvino")
    environment = child_environment(os.environ, {})
    done = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
