"""Computing gives way to answering: where both want the same cores, a server's workers come second."""

from __future__ import annotations

import os

VARIABLE = "RELIGHT_WORKER_NICENESS"
SERVED = "5"
"""Of the workers of a server: about a third of a core's time where others want it too, all of it where not."""


def give_way() -> None:
    """In a worker, before it starts threads."""
    if hasattr(os, "nice"):
        os.nice(int(os.environ.get(VARIABLE, "0")))
