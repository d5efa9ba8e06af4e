"""The processor: instructions that ggml's library needs, and cores for the text encoder."""

from __future__ import annotations

from collections.abc import Iterator

from relight.doctor.finding import Finding, Remedy, fail, ok, warn
from relight.doctor.machine import Machine

NEEDED = ("avx2", "fma", "f16c")
OWN_BUILD = "RELIGHT_GGML_DIR"
BUILD = Remedy(
    "build ggml 0.27 for this processor and name its folder",
    "cmake -B build -DGGML_NATIVE=ON -DGGML_VULKAN=ON -DBUILD_SHARED_LIBS=ON && cmake --build build "
    f"&& export {OWN_BUILD}=$PWD/build/bin",
    f"unset {OWN_BUILD}",
)
FEW_CORES = 4


def instructions(machine: Machine) -> Iterator[Finding]:
    """AVX2, FMA and F16C: Haswell and Zen have them, Ivy Bridge and Bulldozer do not."""
    processor = machine.processor
    missing = [flag.upper() for flag in NEEDED if flag not in processor.flags]
    if missing and machine.environ.get(OWN_BUILD):
        yield ok("instructions", f"{processor.model}: no {', '.join(missing)}; {OWN_BUILD} names another ggml")
    elif missing:
        yield fail(
            "instructions",
            f"{processor.model}: no {', '.join(missing)}",
            "ggml's library that comes with relight was built with them: it would end with an illegal instruction, "
            "also where the card computes, because the text encoder runs on the processor",
            BUILD,
            missing=missing,
        )
    else:
        yield ok("instructions", f"{processor.model}: AVX2, FMA, F16C" + (", AVX-512" * ("avx512f" in processor.flags)))


def cores(machine: Machine) -> Iterator[Finding]:
    cores, usable = machine.processor.cores, machine.processor.usable
    seen = f"{cores} cores, {usable} threads"
    if cores < FEW_CORES:
        yield warn(
            "cores",
            seen,
            "FLUX' text encoder T5 takes 4 to 12 s on eight cores and more, and here accordingly longer; its result is "
            "kept for a prompt that comes again",
            Remedy(
                "take the smaller T5",
                "relight pull flux-schnell-q4 --t5 Q4_K",
                "relight pull flux-schnell-q4 --t5 Q8_0",
            ),
            cores=cores,
        )
    else:
        yield ok("cores", seen, cores=cores)
