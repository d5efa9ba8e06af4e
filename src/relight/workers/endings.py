"""Why a process ended, in words for the user: from its exit status and the last lines it wrote."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

GAVE_UP = (
    "the engine gave up, most likely because the device ran out of memory or was lost. "
    "Try --vae-tile-size 32, a smaller size, --max-vram, or another --backend for that component"
)
KILLED = "it was killed, most likely by the system for want of memory; use a smaller T5 (Q8_0, Q4_K) or a smaller size"
NO_SUCH_INSTRUCTION = "the engine's library uses instructions this processor does not have; build ggml for it (README)"

SIGNAL_CAUSES = {
    "SIGABRT": GAVE_UP,
    "SIGSEGV": GAVE_UP,
    "SIGBUS": "a model file was cut short or its disk went away while it was read, or memory ran out",
    "SIGFPE": GAVE_UP,
    "SIGILL": NO_SUCH_INSTRUCTION,
    "SIGKILL": KILLED,
}
WINDOWS_ENDINGS = {
    0xC0000005: ("access violation", GAVE_UP),
    0xC0000409: ("abort", GAVE_UP),
    0xC000001D: ("illegal instruction", NO_SUCH_INSTRUCTION),
}
WINDOWS_ABORT = 3  # elsewhere an exit status like any other
LONGEST_WORDS = 300


def how_it_ended(code: int) -> str:
    """`(SIGABRT): the engine gave up ...`, or `(exit status 3)` where that is all there is to say."""
    how, cause = f"exit status {code}", ""
    if code < 0:
        how = signal_name(-code)
        cause = SIGNAL_CAUSES.get(how, "")
    elif code in WINDOWS_ENDINGS:
        how, cause = WINDOWS_ENDINGS[code]
    elif code == WINDOWS_ABORT and sys.platform == "win32":
        how, cause = "abort", GAVE_UP
    return f"({how}): {cause}" if cause else f"({how})"


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def last_words(lines: Sequence[str]) -> str:
    """The last line that may say why; empty where there is none."""
    found = next((line for line in reversed(lines) if telling(line)), "")
    return found if len(found) <= LONGEST_WORDS else found[:LONGEST_WORDS] + "..."


def telling(line: str) -> bool:
    return bool(line.strip()) and not line.startswith(("DEBUG", "INFO"))
