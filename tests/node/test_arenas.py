"""Memory of a server with many threads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from relight.node.arenas import HEAPS

PROGRAM = """
import ctypes, threading
from relight.node.arenas import share_heaps
SHARE
libc, at_once = ctypes.CDLL(None), threading.Barrier(32)
libc.malloc.restype, libc.fdopen.restype = ctypes.c_void_p, ctypes.c_void_p
def allocate():
    at_once.wait()
    libc.malloc(4096)
    at_once.wait()
threads = [threading.Thread(target=allocate) for _ in range(32)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc.malloc_info.argtypes = ctypes.c_int, ctypes.c_void_p
stream = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, stream)
libc.fflush(stream)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heaps")
def test_many_threads_share_few_heaps() -> None:
    assert heaps("share_heaps()") <= HEAPS < heaps("")


def heaps(share: str) -> int:
    """Of a program with 32 threads that allocate."""
    program = PROGRAM.replace("SHARE", share)
    surroundings = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=surroundings)
    return said.stdout.count("<heap nr=")
