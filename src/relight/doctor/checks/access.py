"""Whether this user may open the card."""

from __future__ import annotations

from collections.abc import Iterator

from relight.doctor.finding import Finding, Remedy, fail, ok
from relight.doctor.machine import Machine

KERNEL_DRIVERS = {0x1002: "amdgpu", 0x8086: "i915", 0x10DE: "nvidia"}
CIK_AND_SI = "amdgpu.si_support=1 amdgpu.cik_support=1 radeon.si_support=0 radeon.cik_support=0"


def nodes(machine: Machine) -> Iterator[Finding]:
    """/dev/dri/renderD* of each card: there, and readable and writable. NVIDIA's driver has files of its own."""
    if machine.is_windows or machine.is_wsl:
        return
    for card in machine.cards:
        if card.driver == "radeon":
            yield fail(
                "access",
                f"{machine.name_of(card)} is run by the old kernel driver radeon",
                "it has no Vulkan; amdgpu has, for cards from 2012 on",
                Remedy(
                    "boot with amdgpu", f"kernel parameters {CIK_AND_SI}", "take them off the kernel's command line"
                ),
            )
    for node in machine.render_nodes:
        if node.allowed:
            yield ok("access", f"{node.path} may be opened")
        elif machine.container:
            yield fail(
                "access",
                f"{node.path} belongs to group {node.group}, which this user of the container is not in",
                "the driver cannot open the card, and Vulkan shows none",
                Remedy("give the container the group", f'--group-add "$(stat -c %g {node.path})"', "leave it out"),
            )
        else:
            yield fail(
                "access",
                f"{node.path} belongs to group {node.group}, which this user is not in",
                "the driver cannot open the card, and Vulkan shows none",
                Remedy(
                    f"join {node.group}, then log out and in",
                    f'sudo usermod -aG {node.group} "$USER"',
                    f'sudo gpasswd -d "$USER" {node.group}',
                ),
            )
    on_dri = [card for card in machine.cards if card.driver != "nvidia" and card.vendor_id in KERNEL_DRIVERS]
    if on_dri and not machine.render_nodes:
        yield _absent(machine)


def _absent(machine: Machine) -> Finding:
    card = next(c for c in machine.cards if c.driver != "nvidia" and c.vendor_id in KERNEL_DRIVERS)
    name = machine.name_of(card)
    if machine.container:
        return fail(
            "access",
            f"{name} is in this machine, and /dev/dri is not in this container",
            "Vulkan shows no card without it",
            Remedy("pass the card in", "docker run --device /dev/dri ...", "leave --device out"),
        )
    wanted = KERNEL_DRIVERS[card.vendor_id]
    return fail(
        "access",
        f"{name} is in this machine, and no /dev/dri/renderD* (kernel driver: {card.driver or 'none'})",
        "without the kernel's driver Vulkan shows no card",
        Remedy(f"load {wanted}", f"sudo modprobe {wanted}; then dmesg | grep {wanted}", f"sudo modprobe -r {wanted}"),
    )
