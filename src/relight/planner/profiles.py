"""Cards relight can pretend to have: their memory, their largest allocation, and the features they lack.

`RELIGHT_PRETEND=rx580-8g` holds whatever device is present to such a card, so that what runs here fits there.
Figures: planner/cards.py, or the user's own for a card that is not in it.

Real cards of that age, and pretended ones, get their work in small pieces: drivers reset a device whose submission runs
for two seconds, and ggml's 100 operations of FLUX at 1024x1024 may run for longer there.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from relight.errors import ConfigError
from relight.planner.cards import CARDS, GIB, LACKING_ON_POLARIS

VARIABLE = "RELIGHT_PRETEND"

SMALL_SUBMISSIONS = {"GGML_VK_MAX_NODES_PER_SUBMIT": "16"}
GCN = re.compile(
    r"\b(TAHITI|PITCAIRN|VERDE|BONAIRE|HAWAII|TONGA|ICELAND|FIJI|POLARIS|VEGA|RAVEN|RENOIR"
    r"|HD ?7\d{3}|R[79] (Fury|Nano|[23]\d0)|RX ?[45]\d0X?\b|WX ?\d100)",
    re.IGNORECASE,
)
"""AMD's GPUs before RDNA, by the chip that RADV names or the product that Windows names."""


@dataclass(frozen=True)
class Profile:
    """`reserved_bytes` is what a desktop usually takes of the card. `flops`, `bandwidth` (bytes a second of its memory)
    and `pcie` are at their peak; `chip` names the family whose efficiency applies (planner.rates), `cores` are its
    compute units."""

    name: str
    memory_bytes: int
    max_allocation_bytes: int = 4 * GIB - 4
    lacking: tuple[str, ...] = LACKING_ON_POLARIS
    reserved_bytes: int = GIB // 4
    chip: str = "gcn"
    flops: float = 6.17e12
    bandwidth: float = 256e9
    pcie: float = 15.75e9
    cores: int = 36

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
    name: Profile(
        name,
        card.memory_gib * GIB,
        max_allocation_bytes=card.max_allocation_bytes,
        lacking=card.lacking,
        reserved_bytes=card.reserved_bytes,
        chip=card.chip,
        flops=card.flops,
        bandwidth=card.bandwidth,
        pcie=card.pcie,
        cores=card.cores,
    )
    for name, card in CARDS.items()
}

SETTINGS = ("name", "like", "memory", "reserved", "max_allocation", "tflops", "bandwidth", "pcie")
UNITS = {"": 1.0, "K": 2.0**10, "M": 2.0**20, "G": 2.0**30}
AMOUNT = re.compile(r"([0-9.]+) ?([KMG]?)(i?B)?")


def pretended(environ: Mapping[str, str]) -> Profile | None:
    """The profile asked for in the environment. Raises ConfigError for an unknown one."""
    name = environ.get(VARIABLE)
    if not name:
        return None
    return find_profile(name, f"{VARIABLE}={name}")


def find_profile(spec: str, said: str) -> Profile:
    """A known card by name, or `memory=8G,like=rx580-8g,...` for one's own: SETTINGS, in GiB, TFLOP/s and GB/s.

    Raises ConfigError that begins with `said`.
    """
    if "=" in spec:
        return _own(spec, said)
    if spec not in PROFILES:
        near = difflib.get_close_matches(spec, PROFILES, n=1)
        hint = f"; did you mean {near[0]}?" if near else f": {', '.join(PROFILES)}; or memory=8G,tflops=6,bandwidth=256"
        raise ConfigError(f"{said} is no profile" + hint)
    return PROFILES[spec]


def _own(spec: str, said: str) -> Profile:
    given = dict(part.strip().split("=", 1) for part in spec.split(",") if "=" in part)
    unknown = [key for key in given if key not in SETTINGS]
    if unknown or "memory" not in given:
        wrong = f"{unknown[0]} is unknown" if unknown else "memory is missing"
        raise ConfigError(f"{said}: {wrong}; a card of one's own is given by {', '.join(SETTINGS)}")
    base = find_profile(given.get("like", "rx580-8g"), f"{said}: like={given.get('like')}")
    memory = _bytes(given["memory"], said)
    return Profile(
        given.get("name", "custom"),
        memory,
        max_allocation_bytes=min(_bytes(given["max_allocation"], said), memory)
        if "max_allocation" in given
        else min(base.max_allocation_bytes, memory),
        lacking=base.lacking,
        reserved_bytes=_bytes(given["reserved"], said) if "reserved" in given else base.reserved_bytes,
        chip=base.chip,
        cores=base.cores,
        flops=_number(given["tflops"], said) * 1e12 if "tflops" in given else base.flops,
        bandwidth=_number(given["bandwidth"], said) * 1e9 if "bandwidth" in given else base.bandwidth,
        pcie=_number(given["pcie"], said) * 1e9 if "pcie" in given else base.pcie,
    )


def _bytes(text: str, said: str) -> int:
    """`8G`, `512MiB`, or a number of GiB."""
    match = AMOUNT.fullmatch(text)
    if match is None or _number(match[1], said) <= 0:
        raise ConfigError(f"{said}: {text} is no amount of memory; write 8G or 512M")
    return int(float(match[1]) * (UNITS[match[2]] if match[2] else GIB))


def _number(text: str, said: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e6:
        raise ConfigError(f"{said}: {text} is no number of TFLOP/s or GB/s")
    return value


def submission_environment(descriptions: Iterable[str]) -> dict[str, str]:
    """What to set, where the user has not, before ggml opens one of the devices described."""
    return dict(SMALL_SUBMISSIONS) if any(GCN.search(description) for description in descriptions) else {}
