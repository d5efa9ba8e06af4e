"""What relight runs in and beside: WSL2, containers, other ways to reach the card, SQLite."""

from __future__ import annotations

from collections.abc import Iterator

from relight.doctor.finding import Finding, Remedy, fail, ok, warn
from relight.doctor.machine import Machine
from relight.ledger.schema import MINIMUM_SQLITE

NO_ROCM = "AMD ended ROCm for Polaris (gfx803) years ago; Vulkan needs no such set-up and is as fast there"


def wsl(machine: Machine) -> Iterator[Finding]:
    if not machine.is_wsl:
        return
    through = "/dev/dxg, Direct3D of Windows" if machine.has_dxg else "no way to the card at all"
    if machine.has_gpu:
        yield ok("wsl", f"WSL2 ({machine.kernel}), with a Vulkan device that ggml takes")
        return
    yield warn(
        "wsl",
        f"WSL2 ({machine.kernel}): {through}",
        "no driver in WSL2 gives ggml an older Radeon (ROCm there is for RX 7000 on, Vulkan by way of Direct3D lacks "
        "what ggml needs): relight computes on the processor",
        Remedy(
            "use the card: run relight on Windows itself", "git clone and run relight in PowerShell", "nothing to undo"
        ),
        Remedy(
            "give WSL2 the memory that the models want",
            "%UserProfile%\\.wslconfig: [wsl2] memory=24GB swap=16GB; then wsl --shutdown",
            "take the lines out; wsl --shutdown",
        ),
    )


def container(machine: Machine) -> Iterator[Finding]:
    if machine.container is None or machine.is_wsl:
        return
    if machine.has_dri or machine.has_gpu:
        yield ok("container", f"inside {machine.container}, with the card passed in")
    else:
        yield warn(
            "container",
            f"inside {machine.container}, without /dev/dri",
            "whatever card the machine has is not seen here, and relight computes on the processor",
            Remedy(
                "pass the card in, with its group",
                'docker run --device /dev/dri --group-add "$(stat -c %g /dev/dri/renderD128)" ...',
                "leave both out",
            ),
        )


def other_stacks(machine: Machine) -> Iterator[Finding]:
    """ROCm, ZLUDA and DirectML: not in relight's way, but what people fight with on these cards."""
    found = False
    polaris = any(card.is_polaris for card in machine.cards)
    if machine.rocm:
        found = True
        where = ", ".join(trace.where for trace in machine.rocm)
        variables = [trace.where.partition("=")[0] for trace in machine.rocm if trace.what == "variable"]
        why = NO_ROCM if polaris else "relight does not use it: Vulkan reaches the card without it"
        if variables:
            settings = " ".join(trace.where for trace in machine.rocm if trace.what == "variable")
            yield warn(
                "rocm",
                where,
                f"{why}; a made-up version (HSA_OVERRIDE_GFX_VERSION) crashes kernels built for other cards",
                Remedy("take the variables away", f"unset {' '.join(variables)}", f"export {settings}"),
            )
        else:
            yield ok("rocm", f"{where} is installed and not used; {why}")
    for name, traces_found, why in (
        (
            "zluda",
            machine.zluda,
            "it runs NVIDIA's programs on ROCm, which these cards no longer have; grey pictures and "
            "half an hour of compiling are usual",
        ),
        (
            "directml",
            machine.directml,
            "it is no longer developed, keeps everything in 32 bits and runs out of memory "
            "early; for the same card Vulkan is several times faster",
        ),
    ):
        if traces_found:
            found = True
            where = ", ".join(trace.where for trace in traces_found)
            leave = Remedy(
                "use relight for the card; both can stay installed, but not run at once",
                "./relight generate ... ; close the other program first",
                "nothing to undo",
            )
            yield warn(name, where, why, leave)
    if not found:
        yield ok("other-stacks", "no ROCm, ZLUDA or DirectML set-up seen")


def sqlite(machine: Machine) -> Iterator[Finding]:
    """The library that Python was linked to, in which jobs are kept."""
    text = ".".join(map(str, machine.sqlite))
    least = ".".join(map(str, MINIMUM_SQLITE))
    if machine.sqlite < MINIMUM_SQLITE:
        yield fail(
            "sqlite",
            f"SQLite {text}, and {least} is needed",
            "jobs are kept in it; `relight serve` refuses to start",
            Remedy("take the Python that relight installs", "rm -r .venv && ./relight setup", "nothing to undo"),
        )
    else:
        yield ok("sqlite", f"SQLite {text}")
