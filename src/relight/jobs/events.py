"""What happens while a picture is made, in the order it happens; every front end reads the same events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Planned:
    """Where each component goes, known before anything is loaded. `note` is a sentence for the user."""

    devices: dict[str, str]
    predicted_bytes: dict[str, int]
    note: str


@dataclass(frozen=True)
class Advanced:
    """`done` of `total` of a stage: bytes of `load ...`, steps of `denoise`, tiles of `decode`; `seconds` of the
    last one."""

    stage: str
    done: int
    total: int
    seconds: float = 0.0
    picture: int = 0


@dataclass(frozen=True)
class Warned:
    """Something the user should know: a prompt that was cut, a device passed over."""

    message: str


@dataclass(frozen=True, eq=False)
class Previewed:
    """What a picture is taken for after `done` of `total` steps: `image` [h w 3] uint8."""

    picture: int
    done: int
    total: int
    image: np.ndarray


@dataclass(frozen=True, eq=False)
class Checkpointed:
    """Where a request broken off later goes on: `part` names a pass over some pictures, `arrays` are what it needs
    after `step` steps, of which there is no more where it is `whole`. The same request with these (the last of each
    part) makes the same pictures."""

    part: str
    step: int
    arrays: dict[str, np.ndarray]
    whole: bool = False


Event = Planned | Advanced | Warned | Previewed | Checkpointed
Listener = Callable[[Event], None]
