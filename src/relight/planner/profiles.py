"""Cards relight can pretend to have: their memory, their largest allocation, and the features they lack.

`RELIGHT_PRETEND=rx580-8g` holds whatever device is present to such a card, so that what runs here fits there.
Figures: RADV's maxMemoryAllocationSize of 4 GiB - 4 for GFX8; ggml's own names for what a device has not.

Real cards of that age, and pretended ones, get their work in small pieces: drivers reset a device whose submission runs
for two seconds, and ggml's 100 operations of FLUX at 1024x1024 may run for longer there.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from relight.errors import ConfigError
from relight.planner.placement import GIB

VARIABLE = "RELIGHT_PRETEND"

SMALL_SUBMISSIONS = {"GGML_VK_MAX_NODES_PER_SUBMIT": "16"}
GCN = re.compile(
    r"\b(TAHITI|PITCAIRN|VERDE|BONAIRE|HAWAII|TONGA|ICELAND|FIJI|POLARIS|VEGA|RAVEN|RENOIR"
    r"|HD ?7\d{3}|R[79] (Fury|Nano|[23]\d0)|RX ?[45]\d0X?\b|WX ?\d100)",
    re.IGNORECASE,
)
"""AMD's GPUs before RDNA, by the chip that RADV names or the product that Windows names."""

LACKING_ON_POLARIS = ("F16", "INTEGER_DOT_PRODUCT", "COOPMAT", "COOPMAT2", "BFLOAT16", "DOT2")


@dataclass(frozen=True)
class Profile:
    """`reserved_bytes` is what a desktop usually takes of the card."""

    name: str
    memory_bytes: int
    max_allocation_bytes: int = 4 * GIB - 4
    lacking: tuple[str, ...] = LACKING_ON_POLARIS
    reserved_bytes: int = GIB // 4

    @property
    def limit_bytes(self) -> int:
        return self.memory_bytes - self.reserved_bytes

    @property
    def environment(self) -> dict[str, str]:
        """What to set before ggml is loaded, where the user has not."""
        disabled = {f"GGML_VK_DISABLE_{feature}": "1" for feature in self.lacking}
        largest = str(self.max_allocation_bytes)
        return (
            disabled
            | SMALL_SUBMISSIONS
            | {"GGML_VK_FORCE_MAX_ALLOCATION_SIZE": largest, "GGML_VK_FORCE_MAX_BUFFER_SIZE": largest}
        )


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("rx470-4g", 4 * GIB, max_allocation_bytes=4 * GIB - GIB // 4),
        Profile("rx470-8g", 8 * GIB),
        Profile("rx580-8g", 8 * GIB),
        Profile("rx580-8g-windows", 8 * GIB, max_allocation_bytes=2 * GIB, reserved_bytes=GIB // 2),
        Profile("rx590-8g", 8 * GIB),
    )
}


def pretended(environ: Mapping[str, str]) -> Profile | None:
    """The profile asked for in the environment. Raises ConfigError for an unknown one."""
    name = environ.get(VARIABLE)
    if not name:
        return None
    if name not in PROFILES:
        near = difflib.get_close_matches(name, PROFILES, n=1)
        raise ConfigError(
            f"{VARIABLE}={name} is no profile" + (f"; did you mean {near[0]}?" if near else f": {', '.join(PROFILES)}")
        )
    return PROFILES[name]


def submission_environment(descriptions: Iterable[str]) -> dict[str, str]:
    """What to set, where the user has not, before ggml opens one of the devices described."""
    return dict(SMALL_SUBMISSIONS) if any(GCN.search(description) for description in descriptions) else {}
