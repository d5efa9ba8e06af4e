"""Which jobs there are, what became of each, and where their files lie: what was accepted is never lost.

The promises, and the test that holds each, are listed in docs/ledger.md.
"""

from relight.ledger.ledger import Ledger
from relight.ledger.reader import Reader
from relight.ledger.records import (
    ENDED,
    Attempt,
    Cause,
    Checkpoint,
    Damage,
    Job,
    Keep,
    Limits,
    NewJob,
    NewResult,
    Result,
    State,
    Swept,
    Usage,
    Verified,
)

__all__ = [
    "ENDED",
    "Attempt",
    "Cause",
    "Checkpoint",
    "Damage",
    "Job",
    "Keep",
    "Ledger",
    "Limits",
    "NewJob",
    "NewResult",
    "Reader",
    "Result",
    "State",
    "Swept",
    "Usage",
    "Verified",
]
