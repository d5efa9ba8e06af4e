"""The parent as its child has it: the pipes to it, what it asks, what it is told of an error, and its end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import BinaryIO

from relight.workers.priority import give_way
from relight.workers.protocol import Message, receive
from relight.workers.shared import Shared


def pipes() -> tuple[BinaryIO, BinaryIO]:
    """From the parent and to it. To be taken before anything else begins: what is printed goes to the log from here."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    give_way()
    logging.basicConfig(stream=sys.stderr, level=logging.DEBUG, format="%(levelname)s %(name)s: %(message)s")
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not reach the pipe
    return sys.stdin.buffer, outgoing


def listen(
    incoming: BinaryIO,
    on_call: Callable[[Message], None],
    on_cancel: Callable[[int], None],
    shared: Shared | None = None,
) -> None:
    """Hear the parent on a thread of its own, so that a cancel is seen at once. The process ends with its parent."""

    def read() -> None:
        try:
            while (message := receive(incoming, shared)) is not None:
                if message.kind == "cancel":
                    on_cancel(message.call)
                else:
                    on_call(message)
        finally:
            os._exit(0)  # the parent has gone, perhaps amid a message: whatever runs, nobody waits for it

    threading.Thread(target=read, daemon=True).start()


def failure(call: int, error: Exception) -> Message:
    """What a call raised, as its answer."""
    told = "".join(traceback.format_exception(error))
    return Message("error", call, {"error": type(error).__name__, "message": str(error), "traceback": told})
