"""Heat, power and clocks of cards whose driver shows them (amdgpu)."""

from __future__ import annotations

from collections.abc import Iterator

from relight.doctor.finding import Finding, Remedy, fail, ok, warn
from relight.doctor.machine import Machine

WARM, HOT = 80.0, 90.0
LOW_CAP = 0.6
CLEAN = Remedy("let it cool", "clean the fans and give the case air; a lower power limit helps too", "nothing to undo")
FIXED = ("low", "profile_min_sclk", "profile_min_mclk", "manual")


def temperature(machine: Machine) -> Iterator[Finding]:
    for card in machine.cards:
        if card.temperature is None:
            continue
        critical = card.critical_temperature or 94.0
        seen = f"{machine.name_of(card)}: {card.temperature:.0f} °C now, critical at {critical:.0f} °C"
        numbers = {"celsius": card.temperature, "critical_celsius": critical}
        if card.temperature >= min(HOT, critical - 4):
            yield fail(
                "temperature",
                seen,
                "the card lowers its clocks and, at the critical point, switches off; hot memory gives wrong pictures",
                CLEAN,
                **numbers,
            )
        elif card.temperature >= WARM:
            yield warn(
                "temperature",
                seen,
                "a picture keeps the card busy for minutes; from here on it lowers its clocks",
                CLEAN,
                **numbers,
            )
        else:
            yield ok("temperature", seen, **numbers)


def power(machine: Machine) -> Iterator[Finding]:
    """The power limit against the card's own, and a performance level that keeps clocks down."""
    for card in machine.cards:
        if card.performance_level is None and card.power_cap is None and not card.shader_clocks:
            continue
        name = machine.name_of(card)
        parts = []
        if card.power is not None:
            parts.append(f"{card.power:.0f} W")
        if card.power_cap:
            parts.append(f"limit {card.power_cap:.0f} W")
        if card.shader_clocks:
            parts.append(f"shaders {card.shader_clock or '?'} of {card.shader_clocks[-1]} MHz")
        if card.memory_clocks:
            parts.append(f"memory {card.memory_clock or '?'} of {card.memory_clocks[-1]} MHz")
        level = card.performance_level
        seen = f"{name}: {', '.join(parts) or 'clocks unknown'}{f', level {level}' if level else ''}"
        device = f"/sys/bus/pci/devices/{card.address}"
        numbers = {"watts": card.power, "cap_watts": card.power_cap, "level": level}
        if level in FIXED and card.shader_clock and card.shader_clock < card.shader_clocks[-1]:
            yield warn(
                "clocks",
                seen,
                "the clocks are held where they are, below the card's own",
                Remedy(
                    "let the driver choose",
                    f"echo auto | sudo tee {device}/power_dpm_force_performance_level",
                    f"echo {level} | sudo tee {device}/power_dpm_force_performance_level",
                ),
                **numbers,
            )
        elif card.power_cap and card.default_power_cap and card.power_cap < LOW_CAP * card.default_power_cap:
            watts = round(card.default_power_cap * 1e6)
            yield warn(
                "clocks",
                f"{seen}, {card.default_power_cap:.0f} W by default",
                "so low a limit costs more speed than heat; three quarters of the default cost little",
                Remedy(
                    "back to the default",
                    f"echo {watts} | sudo tee {device}/hwmon/hwmon*/power1_cap",
                    f"echo {round(card.power_cap * 1e6)} | sudo tee {device}/hwmon/hwmon*/power1_cap",
                ),
                **numbers,
            )
        else:
            yield ok("clocks", seen, **numbers)
