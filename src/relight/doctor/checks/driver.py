"""Vulkan's loader, the drivers that are installed, and which of them computes."""

from __future__ import annotations

from collections.abc import Iterator

from relight.doctor.facts.cards import INTEL
from relight.doctor.facts.vulkan import VulkanDevice
from relight.doctor.finding import Finding, Remedy, fail, ok, variable, warn
from relight.doctor.machine import Machine

INSTALL_LOADER = Remedy(
    "install the Vulkan loader",
    "sudo apt install libvulkan1  # Fedora: dnf install vulkan-loader; Arch: pacman -S vulkan-icd-loader",
    "sudo apt remove libvulkan1",
)
INSTALL_MESA = Remedy(
    "install Mesa's drivers, RADV among them",
    "sudo apt install mesa-vulkan-drivers  # Arch: pacman -S vulkan-radeon",
    "sudo apt remove mesa-vulkan-drivers",
)
UPDATE_WINDOWS_DRIVER = Remedy(
    "install the card's driver",
    "AMD Software (Adrenalin) for Polaris and Vega from the vendor's page",
    "Device Manager, the card, Driver, Roll Back Driver",
)


def loader(machine: Machine) -> Iterator[Finding]:
    """libvulkan is there, and no driver or layer ends the process that asks."""
    vulkan = machine.vulkan
    if vulkan.crash and vulkan.crash_without_layers:
        yield fail(
            "loader",
            f"asking the Vulkan drivers: {vulkan.crash}",
            "a driver ends or hangs the program that loads it, so relight's worker too; with one driver at a time the "
            "guilty one shows",
            *(variable("VK_DRIVER_FILES", icd.manifest, f"load {icd.driver} alone") for icd in vulkan.icds[:3]),
        )
    elif vulkan.loader is None and not vulkan.crash:
        yield fail(
            "loader",
            f"no Vulkan loader: {vulkan.error or 'not found'}",
            "the card is reached through it; without it relight computes on the processor only",
            UPDATE_WINDOWS_DRIVER if machine.is_windows else INSTALL_LOADER,
        )
    elif vulkan.error and not vulkan.devices:
        drivers = UPDATE_WINDOWS_DRIVER if machine.is_windows else INSTALL_MESA
        yield fail("loader", f"Vulkan does not start: {vulkan.error}", "the card is reached through it", drivers)
    else:
        yield ok("loader", f"Vulkan loader {vulkan.version} ({vulkan.loader})", version=vulkan.version)


def installed(machine: Machine) -> Iterator[Finding]:
    """Manifests of drivers, and whether the libraries they name are there."""
    icds = machine.vulkan.icds
    if not icds:
        if machine.vulkan.real_devices:
            return  # registered in a way the doctor does not read, and it works
        yield fail(
            "drivers",
            "no Vulkan driver is installed",
            "the loader has nothing to load; relight computes on the processor only",
            UPDATE_WINDOWS_DRIVER if machine.is_windows else INSTALL_MESA,
        )
        return
    for icd in icds:
        if icd.library_missing:
            yield warn(
                "drivers",
                f"{icd.manifest} names {icd.library}, which is not there",
                "the loader passes over it; a card that only this driver knows is not found",
                Remedy(
                    "install the package again, or take the manifest away",
                    f"sudo mv {icd.manifest} {icd.manifest}.off",
                    f"sudo mv {icd.manifest}.off {icd.manifest}",
                ),
            )
    there = [icd for icd in icds if not icd.library_missing]
    names = ", ".join(dict.fromkeys(icd.driver for icd in there))
    overridden = [name for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES") if machine.environ.get(name)]
    if there:
        by = f", chosen by {overridden[0]}" if overridden else ""
        yield ok("drivers", f"installed: {names}{by}", manifests=[icd.manifest for icd in there])


def in_use(machine: Machine) -> Iterator[Finding]:
    """The driver of each device; the processor taken for a card is said as such."""
    vulkan = machine.vulkan
    for device in vulkan.real_devices:
        yield _judged(machine, device)
    if vulkan.real_devices or vulkan.crash or vulkan.loader is None:
        return
    software = ", ".join(device.name for device in vulkan.devices)
    seen = f"only {software}: the processor pretending to be a card" if software else "no Vulkan device"
    if any(card.vendor_id != INTEL for card in machine.cards):
        names = ", ".join(machine.name_of(card) for card in machine.cards)
        yield fail(
            "driver",
            f"{seen}, though there is {names}",
            "the card lies idle: its Vulkan driver is missing or may not open it",
            INSTALL_MESA,
        )
    else:
        yield warn(
            "driver",
            seen,
            "relight computes on the processor only, which takes many times as long",
            *(() if any_for_cards(machine) else (UPDATE_WINDOWS_DRIVER if machine.is_windows else INSTALL_MESA,)),
        )


def any_for_cards(machine: Machine) -> bool:
    """Whether a driver other than those that compute on the processor is installed."""
    return any(icd.driver not in ("lavapipe", "SwiftShader") for icd in machine.vulkan.icds)


def _judged(machine: Machine, device: VulkanDevice) -> Finding:
    seen = f"{device.name}: {device.driver} {device.driver_info}".rstrip()
    numbers = {"device": device.name, "driver": device.driver, "driver_info": device.driver_info}
    if device.driver == "dzn":
        return warn(
            "driver",
            f"{seen}, Vulkan by way of Direct3D 12",
            "it is no conformant Vulkan, lacks 16-bit storage on cards of this age, and ggml refuses the card then",
            Remedy(
                "run relight where the card's own driver is: on Windows itself, or on Linux started by itself",
                "git clone and ./relight demo there",
                "nothing to undo",
            ),
            variable("VK_DRIVER_FILES", "/dev/null", "or plan for the processor alone in WSL2"),
            **numbers,
        )
    if device.driver == "AMDVLK":
        manifest = next((icd.manifest for icd in machine.vulkan.icds if icd.driver == "RADV"), None)
        radv = variable("VK_DRIVER_FILES", manifest, "take RADV") if manifest else INSTALL_MESA
        return warn(
            "driver",
            seen,
            "AMDVLK is no longer made; it allocates 2 GiB at most at once where RADV takes 4, and has 32 of 64 KiB "
            "shared memory, which costs ggml its larger tiles",
            radv,
            **numbers,
        )
    if device.driver == "Adrenalin" and machine.is_windows:
        return ok("driver", f"{seen} (allocates 2 GiB at most at once; RADV on Linux takes 4)", **numbers)
    return ok("driver", seen, **numbers)


def one_driver_a_card(machine: Machine) -> Iterator[Finding]:
    """A card that two drivers offer is there twice, and the wrong one may be taken."""
    offered: dict[str, list[VulkanDevice]] = {}
    for device in machine.vulkan.real_devices:
        if device.pci:
            offered.setdefault(device.pci, []).append(device)
    twice = {pci: devices for pci, devices in offered.items() if len({d.driver for d in devices}) > 1}
    for pci, devices in twice.items():
        drivers = [device.driver for device in devices]
        best = "RADV" if "RADV" in drivers else drivers[0]
        manifest = next((icd.manifest for icd in machine.vulkan.icds if icd.driver == best), None)
        yield warn(
            "two-drivers",
            f"{devices[0].name} at {pci} is offered by {' and '.join(drivers)}",
            "ggml merges what it recognises as one card; else its memory is counted twice, and AMD's own layer for "
            "switchable graphics can hide the card from the other driver",
            *([variable("VK_DRIVER_FILES", manifest, f"load {best} alone")] if manifest else []),
            variable("DISABLE_LAYER_AMD_SWITCHABLE_GRAPHICS_1", "1", "switch AMD's layer off"),
        )
    if not twice and offered:
        yield ok("two-drivers", "each card is offered by one driver")
