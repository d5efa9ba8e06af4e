"""How long one submission may run before the driver resets the card, against how long relight's run.

ggml cuts a graph into submissions of so many operations: by the FLOPs of FLUX's blocks at 1024x1024, 16 of them are up
to 0.8 TFLOP and 100 up to 5. The largest single operation, a convolution of the undivided VAE at that size, is 1.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from relight.doctor.facts.vulkan import VulkanDevice
from relight.doctor.finding import Finding, Remedy, fail, ok, variable, warn
from relight.doctor.machine import Machine
from relight.planner.profiles import submission_environment

NODES = "GGML_VK_MAX_NODES_PER_SUBMIT"
GGML_NODES = 100
TFLOP_PER_NODE = 0.05
LARGEST_OPERATION_TFLOP = 1.2
POLARIS_TFLOPS = 2.0
OTHER_TFLOPS = 8.0
"""What matrix products reach: 2.0 to 2.4 on an RX 470; others are not known here, and newer cards are faster."""
TDR_DEFAULT_S = 2
NEW_DEFAULT = 7
"""From this major version of Linux on amdgpu resets compute rings after 2 s; before, after 60."""
LONGER = Remedy(
    "let compute run for a minute",
    "kernel parameter amdgpu.lockup_timeout=10000,60000,10000,10000",
    "take it off the kernel's command line",
)
TDR_KEY = r"HKLM\SYSTEM\CurrentControlSet\Control\GraphicsDrivers"


def submissions(machine: Machine) -> Iterator[Finding]:
    """Where the device and its limit are known."""
    limit = limit_s(machine)
    if limit is None:
        return
    for device in machine.vulkan.real_devices:
        if device.vendor_id == 0x1002 or machine.is_windows:
            yield _judged(machine, device, limit)


def _judged(machine: Machine, device: VulkanDevice, limit: float) -> Finding:
    nodes = nodes_per_submit(machine, device)
    tflops = POLARIS_TFLOPS if is_slow(device) else OTHER_TFLOPS
    longest = max(nodes * TFLOP_PER_NODE, LARGEST_OPERATION_TFLOP) / tflops
    bound = "never" if math.isinf(limit) else f"after {limit:g} s"
    seen = f"{device.name}: a submission runs for about {longest:.1f} s ({nodes} operations), is reset {bound}"
    numbers = {"submission_s": longest, "limit_s": None if math.isinf(limit) else limit}
    why = "a reset loses the picture, or lets it go on with wrong numbers; the desktop freezes meanwhile"
    fewer = variable(NODES, "8", "cut the work into smaller pieces")
    tiles = Remedy("decode in tiles", "relight generate ... --vae-tile-size 64", "leave --vae-tile-size out")
    longer = LONGER
    if machine.is_windows:
        longer = Remedy(
            "let the driver wait for longer, then restart",
            f'reg add "{TDR_KEY}" /v TdrDelay /t REG_DWORD /d 10',
            f'reg delete "{TDR_KEY}" /v TdrDelay',
        )
    if longest >= limit:
        return fail("watchdog", seen, why, fewer, tiles, longer, **numbers)
    if longest * 2 > limit:
        return warn("watchdog", seen, why, fewer, tiles, longer, **numbers)
    return ok("watchdog", seen, **numbers)


def nodes_per_submit(machine: Machine, device: VulkanDevice) -> int:
    """As the user set it, else as relight sets it for this card, else ggml's own."""
    set_here = machine.environ.get(NODES) or submission_environment([device.name]).get(NODES)
    return int(set_here) if set_here and set_here.isdigit() else GGML_NODES


def is_slow(device: VulkanDevice) -> bool:
    return bool(submission_environment([device.name]))


def limit_s(machine: Machine) -> float | None:
    """Seconds a submission may take; infinite where the watchdog is off, None where nothing is known."""
    if machine.is_windows:
        return float(machine.tdr_delay if machine.tdr_delay is not None else TDR_DEFAULT_S)
    if machine.lockup_timeout is None:
        return None
    return compute_timeout_s(machine.lockup_timeout, machine.kernel)


def compute_timeout_s(parameter: str, kernel: str) -> float:
    """Of amdgpu.lockup_timeout: one number is for all rings but compute, several are graphics, compute, DMA, video, in
    milliseconds; 0 or nothing keeps the default, less than 0 is for ever."""
    numbers = [part.strip() for part in parameter.split(",")]
    stated = numbers[1] if len(numbers) > 1 else ""
    milliseconds = int(stated) if stated.lstrip("-").isdigit() else 0
    if milliseconds < 0:
        return math.inf
    if milliseconds:
        return milliseconds / 1000
    major = kernel.partition(".")[0]
    return 2.0 if major.isdigit() and int(major) >= NEW_DEFAULT else 60.0
