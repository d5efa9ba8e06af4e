"""Graphics cards on the PCI bus as Linux' sysfs shows them: memory, what of it the CPU reaches, link, clocks, heat."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from relight.doctor.facts.system import System

PCI = "/sys/bus/pci/devices"
DISPLAY_CLASSES = (0x0300, 0x0302, 0x0380)
MEMORY_SPACE, PREFETCHABLE = 0x200, 0x2000
ADDRESS = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
AMD, NVIDIA, INTEL = 0x1002, 0x10DE, 0x8086
PER_LANE = {2.5: 0.25e9, 5.0: 0.5e9, 8.0: 0.985e9, 16.0: 1.969e9, 32.0: 3.938e9, 64.0: 7.563e9}
"""Bytes a second of a lane by its GT/s, after line coding."""
GENERATIONS = {2.5: "1.0", 5.0: "2.0", 8.0: "3.0", 16.0: "4.0", 32.0: "5.0", 64.0: "6.0"}


@dataclass(frozen=True)
class Link:
    """A PCIe link: GT/s and lanes now, and the most that both of its ends can do."""

    address: str
    speed: float
    width: int
    card_speed: float
    card_width: int
    slot_speed: float | None
    slot_width: int | None

    @property
    def possible_speed(self) -> float:
        return min(self.card_speed, self.slot_speed or self.card_speed)

    @property
    def possible_width(self) -> int:
        return min(self.card_width, self.slot_width or self.card_width)

    @property
    def bytes_per_s(self) -> float:
        """Under load: lanes as they are, at the speed the link can go up to."""
        return PER_LANE.get(self.possible_speed, 0.0) * self.width


@dataclass(frozen=True)
class User:
    """A process that holds memory of a card."""

    pid: int
    name: str
    bytes: int


@dataclass(frozen=True)
class Card:
    """Sizes in bytes, temperatures in degrees Celsius, power in watts, clocks in MHz; None where nothing says."""

    address: str
    vendor_id: int
    device_id: int
    driver: str | None
    drives_display: bool
    render_nodes: tuple[str, ...]
    bar_bytes: int
    vram_bytes: int | None = None
    vram_used_bytes: int | None = None
    visible_vram_bytes: int | None = None
    gtt_bytes: int | None = None
    gtt_used_bytes: int | None = None
    link: Link | None = None
    users: tuple[User, ...] = ()
    temperature: float | None = None
    critical_temperature: float | None = None
    power: float | None = None
    power_cap: float | None = None
    default_power_cap: float | None = None
    shader_clocks: tuple[int, ...] = ()
    memory_clocks: tuple[int, ...] = ()
    shader_clock: int | None = None
    memory_clock: int | None = None
    performance_level: str | None = None

    @property
    def is_polaris(self) -> bool:
        """RX 460 to 590 and their professional sisters, by PCI id."""
        ranges = ((0x67C0, 0x67FF), (0x6FDF, 0x6FDF), (0x6980, 0x699F))
        return self.vendor_id == AMD and any(low <= self.device_id <= high for low, high in ranges)


def cards(system: System) -> tuple[Card, ...]:
    """By PCI address, those that may compute: not the display controllers of servers and virtual machines."""
    found = []
    holders = dict(_holders(system))
    for address in system.names(PCI):
        kind = system.number(f"{PCI}/{address}/class")
        vendor = system.number(f"{PCI}/{address}/vendor")
        if kind is not None and kind >> 8 in DISPLAY_CLASSES and vendor in (AMD, NVIDIA, INTEL):
            found.append(_card(system, address, holders.get(address, {})))
    return tuple(found)


def _card(system: System, address: str, users: dict[int, User]) -> Card:
    folder = f"{PCI}/{address}"
    driver = system.link(f"{folder}/driver")
    drm = system.names(f"{folder}/drm")
    hwmon = next((f"{folder}/hwmon/{name}" for name in system.names(f"{folder}/hwmon")), f"{folder}/hwmon/none")
    shader, memory = (_clocks(system.text(f"{folder}/pp_dpm_{kind}")) for kind in ("sclk", "mclk"))

    def scaled(name: str, unit: float) -> float | None:
        number = system.number(f"{hwmon}/{name}")
        return None if number is None else number / unit

    power = scaled("power1_average", 1e6)
    return Card(
        address=address,
        vendor_id=system.number(f"{folder}/vendor") or 0,
        device_id=system.number(f"{folder}/device") or 0,
        driver=PurePosixPath(driver).name if driver else None,
        drives_display=system.number(f"{folder}/boot_vga") == 1,
        render_nodes=tuple(f"/dev/dri/{name}" for name in drm if name.startswith("renderD")),
        bar_bytes=largest_bar(system.text(f"{folder}/resource") or ""),
        vram_bytes=system.number(f"{folder}/mem_info_vram_total"),
        vram_used_bytes=system.number(f"{folder}/mem_info_vram_used"),
        visible_vram_bytes=system.number(f"{folder}/mem_info_vis_vram_total"),
        gtt_bytes=system.number(f"{folder}/mem_info_gtt_total"),
        gtt_used_bytes=system.number(f"{folder}/mem_info_gtt_used"),
        link=_narrowest_link(system, folder),
        users=tuple(sorted(users.values(), key=lambda user: -user.bytes)),
        temperature=scaled("temp1_input", 1000),
        critical_temperature=scaled("temp1_crit", 1000),
        power=power if power is not None else scaled("power1_input", 1e6),
        power_cap=scaled("power1_cap", 1e6),
        default_power_cap=scaled("power1_cap_default", 1e6),
        shader_clocks=shader[0],
        memory_clocks=memory[0],
        shader_clock=shader[1],
        memory_clock=memory[1],
        performance_level=system.text(f"{folder}/power_dpm_force_performance_level"),
    )


def largest_bar(resource: str) -> int:
    """Bytes of the largest prefetchable window in a `resource` file: the one video memory is seen through."""
    rows = re.findall(r"^0x([0-9a-f]+) 0x([0-9a-f]+) 0x([0-9a-f]+)$", resource, re.MULTILINE)
    windows = [tuple(int(part, 16) for part in row) for row in rows[:6]]
    wanted = MEMORY_SPACE | PREFETCHABLE
    return max(
        (end - start + 1 for start, end, flags in windows if flags & wanted == wanted and end > start), default=0
    )


def _clocks(table: str | None) -> tuple[tuple[int, ...], int | None]:
    """MHz of each level of a pp_dpm file, and of the one in use: `1: 608Mhz *`."""
    found = re.findall(r"^\S+: *(\d+) *MHz *(\*?)", table or "", re.IGNORECASE | re.MULTILINE)
    return tuple(int(mhz) for mhz, _ in found), next((int(mhz) for mhz, now in found if now), None)


def _narrowest_link(system: System, folder: str) -> Link | None:
    """Of the links between the card and the processor: newer cards have a switch of their own, whose inner link is
    always at its best."""
    chain = [p for p in _upstream(system.resolved(folder)) if system.number(f"{p}/current_link_width")]
    links = [_link(system, path, above) for path, above in zip(chain, [*chain[1:], None], strict=True)]
    ends = [link for link in links[:-1] if link] or [link for link in links if link]
    return min(ends, key=lambda link: link.bytes_per_s, default=None)


def _upstream(path: str) -> Iterator[str]:
    for each in (PurePosixPath(path), *PurePosixPath(path).parents):
        if ADDRESS.fullmatch(each.name):
            yield str(each)


def _link(system: System, path: str, above: str | None) -> Link | None:
    speed, card_speed = (link_speed(system.text(f"{path}/{which}_link_speed")) for which in ("current", "max"))
    width, card_width = (system.number(f"{path}/{which}_link_width") for which in ("current", "max"))
    if not (speed and width):
        return None
    return Link(
        PurePosixPath(path).name,
        speed,
        width,
        card_speed or speed,
        card_width or width,
        link_speed(system.text(f"{above}/max_link_speed")) if above else None,
        system.number(f"{above}/max_link_width") if above else None,
    )


def link_speed(text: str | None) -> float | None:
    """`8.0 GT/s PCIe` -> 8.0"""
    found = re.match(r"([\d.]+) *GT/s", text or "")
    return float(found[1]) if found else None


def _holders(system: System) -> Iterator[tuple[str, dict[int, User]]]:
    """By card, the processes of this user that hold video memory, from the kernel's accounts of open DRM files."""
    held: dict[str, dict[int, User]] = {}
    seen: set[tuple[str, str]] = set()
    for pid in filter(str.isdigit, system.names("/proc")):
        for number in system.names(f"/proc/{pid}/fd"):
            if not (system.link(f"/proc/{pid}/fd/{number}") or "").startswith("/dev/dri/"):
                continue
            account = dict(_entries(system.text(f"/proc/{pid}/fdinfo/{number}") or ""))
            address, client = account.get("drm-pdev", ""), account.get("drm-client-id", "")
            taken = _kib(account.get("drm-memory-vram") or account.get("drm-total-vram"))
            if not taken or (address, client) in seen:
                continue
            seen.add((address, client))
            of_card = held.setdefault(address, {})
            before = of_card[int(pid)].bytes if int(pid) in of_card else 0
            of_card[int(pid)] = User(int(pid), system.text(f"/proc/{pid}/comm") or "?", before + taken)
    yield from held.items()


def _entries(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            yield key.strip(), value.strip()


def _kib(text: str | None) -> int:
    """`1024 KiB` -> bytes; 0 where there is nothing."""
    found = re.match(r"(\d+) *(KiB|MiB)?", text or "")
    return int(found[1]) * {"KiB": 1 << 10, "MiB": 1 << 20, None: 1}[found[2]] if found else 0
