"""The card's PCIe link against what card and slot can do."""

from __future__ import annotations

from collections.abc import Iterator

from relight.doctor.facts.cards import GENERATIONS, Link
from relight.doctor.finding import Finding, Remedy, fail, ok, warn
from relight.doctor.machine import Machine

SLOW, VERY_SLOW = 3.5e9, 0.6e9
FLUX_BYTES = 6.8e9
RESEAT = Remedy(
    "use the slot next to the processor, without riser or M.2 card that shares its lanes",
    "firmware set-up: slot speed Auto; `sudo lspci -vv -s {address}` shows LnkSta",
    "the old slot",
)


def width_and_speed(machine: Machine) -> Iterator[Finding]:
    for card in machine.compute_cards:
        link = card.link
        if link is None:
            continue
        name, rate = machine.name_of(card), link.bytes_per_s
        seen = f"{name}: {described(link)}, {rate / 1e9:.1f} GB/s"
        numbers = {"bytes_per_s": rate, "width": link.width, "speed_gt_s": link.speed}
        load = f"6.8 GB of FLUX take {FLUX_BYTES / rate:.0f} s through it" if rate else ""
        reseat = Remedy(RESEAT.does, RESEAT.do.format(address=link.address), RESEAT.undo)
        if 0 < rate < VERY_SLOW:
            yield fail(
                "pcie",
                seen,
                f"{load}, and whatever does not fit the card is useless behind it: a riser for "
                "mining, or a slot that is not the card's",
                reseat,
                **numbers,
            )
        elif link.width < link.possible_width:
            yield warn(
                "pcie",
                f"{seen}; card and slot can do x{link.possible_width}",
                f"lanes are lost: {load}; dust on the contacts, a riser, or lanes given to another slot",
                reseat,
                **numbers,
            )
        elif rate < SLOW:
            yield warn(
                "pcie",
                seen,
                f"{load}: little while everything stays on the card, much where models are "
                "swapped or weights stay in memory",
                reseat,
                **numbers,
            )
        else:
            yield ok("pcie", seen, **numbers)


def described(link: Link) -> str:
    """The speed it goes up to under load; idle cards lower it to save power."""
    now = GENERATIONS.get(link.speed, f"{link.speed} GT/s")
    best = GENERATIONS.get(link.possible_speed, f"{link.possible_speed} GT/s")
    card = GENERATIONS.get(link.card_speed, f"{link.card_speed} GT/s")
    idle = f" (now {now}, to save power)" if link.speed < link.possible_speed else ""
    slot = f", the card could do {card} x{link.card_width}" if link.possible_speed < link.card_speed else ""
    return f"PCIe {best} x{link.width}{idle}{slot}"
