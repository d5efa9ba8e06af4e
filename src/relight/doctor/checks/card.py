"""The card's memory: how large, how much of it is free, how much of it the processor reaches."""

from __future__ import annotations

from collections.abc import Iterator

from relight.doctor.facts.cards import Card
from relight.doctor.finding import GIB, Finding, Remedy, fail, ok, size, variable, warn
from relight.doctor.machine import Machine

HIDDEN_VRAM = "GGML_VK_DISABLE_HOST_VISIBLE_VIDMEM"
LEAST_FREE = GIB // 2
BUFFERS = int(0.8 * GIB)
"""What FLUX at 1024x1024 computes in, beside the weights."""
SMALL_CARD = 3 * GIB
LEAST_GTT = 2 * GIB
SHOWN_USERS = 3


def video_memory(machine: Machine) -> Iterator[Finding]:
    """Size, what is free, and who has the rest; against the backbone of the models."""
    cards = machine.compute_cards
    for card in cards:
        total = machine.vram_of(card)
        if total:
            yield _video_memory(machine, machine.name_of(card), total, _free(machine, card, total), card)
    if not cards:  # Windows, WSL2, containers: what the engine says
        for gpu in machine.engine.gpus:
            yield _video_memory(machine, gpu["description"], gpu["memory_total"], gpu["memory_free"], None)


def _free(machine: Machine, card: Card, total: int) -> int | None:
    if card.vram_used_bytes is not None:
        return max(0, total - card.vram_used_bytes)
    device = machine.device_of(card)
    local = [heap.free_bytes for heap in device.heaps if heap.device_local] if device else []
    return sum(free for free in local if free is not None) if any(free is not None for free in local) else None


def _video_memory(machine: Machine, name: str, total: int, free: int | None, card: Card | None) -> Finding:
    users = [f"{user.name} ({user.pid}) {size(user.bytes)}" for user in (card.users if card else ())[:SHOWN_USERS]]
    held = f", held by {', '.join(users)}" if users else ""
    unknown = "" if free is not None else " (the driver does not say what is free)"
    left = total if free is None else free
    seen = f"{name}: {size(total)}, {size(left)} free{unknown}{held}"
    numbers = {"total_bytes": total, "free_bytes": free, "users": users}
    end = Remedy(
        "close what is not needed while pictures are made",
        "; ".join(users) or "browsers, games, other engines",
        "start it again",
    )
    if left < LEAST_FREE:
        return fail(
            "vram",
            seen,
            "nothing useful fits into what is left, and relight falls back to the processor",
            end,
            **numbers,
        )
    largest = max(machine.models, key=lambda model: model.card_bytes, default=None)
    if largest and largest.card_bytes + BUFFERS > left:
        return warn(
            "vram",
            f"{seen}; {largest.name} wants {size(largest.card_bytes + BUFFERS)}",
            "what does not fit is computed on the processor or loaded again for every picture; smaller weights fit",
            end,
            Remedy("see what fits", f"relight plan {largest.name}", "nothing to undo"),
            **numbers,
        )
    if total - left > total // 4 and card and not card.drives_display:
        return warn(
            "vram",
            f"{seen}; {size(total - left)} are taken on a card without a screen",
            "another program computes on it: both become slow, and the memory is not relight's",
            end,
            **numbers,
        )
    if total < SMALL_CARD:
        why = "FLUX and SDXL do not fit; Stable Diffusion 1.5 does from 3 GiB on"
        small = Remedy("take Stable Diffusion 1.5", "relight pull sd15", "relight models rm sd15")
        return warn("vram", seen, why, small, **numbers)
    return ok("vram", seen, **numbers)


def reachable_memory(machine: Machine) -> Iterator[Finding]:
    """The PCI window (BAR) onto the card's memory against its size."""
    for card in machine.compute_cards:
        total = machine.vram_of(card)
        window = card.visible_vram_bytes or card.bar_bytes
        if not total or not window:
            continue
        name = machine.name_of(card)
        numbers = {"bar_bytes": window, "vram_bytes": total}
        seen = f"{name}: {size(min(window, total))} of {size(total)} video memory reachable by the processor"
        if window >= total * 0.9:
            yield ok("bar", f"{seen} (Resizable BAR)", **numbers)
        elif machine.environ.get(HIDDEN_VRAM) is not None:
            yield ok("bar", f"{seen}; {HIDDEN_VRAM} is set, so the window is not used", **numbers)
        else:
            yield warn(
                "bar",
                seen,
                "ggml asks for memory that both reach first; with a small window weights end up in the computer's "
                "memory or behind the window, and all computing is several times slower",
                variable(HIDDEN_VRAM, "1", "keep ggml from the window"),
                Remedy(
                    "make the window as large as the memory, where firmware and card can",
                    "firmware set-up: Above 4G Decoding on, Resizable BAR on, CSM off",
                    "the same three back",
                ),
                **numbers,
            )


def shared_memory(machine: Machine) -> Iterator[Finding]:
    """GTT: the computer's memory that the card can use, half of it by default. Staging lies there, and what spills."""
    for card in machine.compute_cards:
        if card.gtt_bytes is None:
            continue
        name, used = machine.name_of(card), card.gtt_used_bytes or 0
        seen = f"{name}: {size(card.gtt_bytes)} of the computer's memory for the card (GTT), {size(used)} used"
        numbers = {"gtt_bytes": card.gtt_bytes, "gtt_used_bytes": used}
        if card.gtt_bytes < LEAST_GTT:
            yield warn(
                "gtt",
                seen,
                'weights pass through it, and with less than 2 GiB the kernel refuses submissions ("not enough memory '
                'for command submission")',
                Remedy(
                    "let the driver have more",
                    "kernel parameter amdgpu.gttsize=4096",
                    "take it off the kernel's command line",
                ),
                **numbers,
            )
        elif used > max(GIB, card.gtt_bytes // 4):
            yield warn(
                "gtt",
                seen,
                "programs have spilled there: what should be in video memory is behind PCIe, ten times slower",
                Remedy("close what holds it", "fuser -v /dev/dri/renderD*", "start it again"),
                **numbers,
            )
        else:
            yield ok("gtt", seen, **numbers)
