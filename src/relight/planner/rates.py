"""How fast devices are at what networks are made of: calibrated on one known device, else from published peaks.

Calibrated: an H100 held to Polaris features (docs/measurements.md; FLUX.1 Q4_K at 1024, 768 and 512, SD 1.5's UNet,
the decoder whole and in tiles). It is what a modern card does without its matrix cores.

Efficiency, the share of a card's published peak that ggml's kernels reach:
- gcn: RX 470 locked to 900 MHz, products of Q4_0 2.40, Q8_0 2.37, Q2_K 1.95, F16 2.30, F32 1.65 TFLOP/s of 3.69
  (llama.cpp pull 13016, issue 13765); a 7B Q4_0 generates at 56 % of the memory's bandwidth (pull 13324). Convolution
  and attention are chosen so that SDXL at 1024x1024 takes the 5.7 s a step with guidance seen on an RX 580 (KoboldCpp
  issue 1667).
- gcn-windows: half of that, since ggml does not tune its tiles for AMD's driver there. No log of a sound run is public.
- pascal, alchemist: no logs of diffusion are public. As GCN, and half as much for Intel, whose share is small in ggml.

CPUs, by cores to a power below 1, since clocks and memory are shared: two cores of an EPYC for one end, sixteen of a
Xeon for the other (notes of both in docs/measurements.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from relight.planner.profiles import Profile

OTHER = "other"


@dataclass(frozen=True)
class Rates:
    """`matrix` gives FLOP/s of products by the format of their weights, `conv` by way of computing, `attention` by
    `flash` and `chunked`; `bandwidth` bytes a second of the rest, `weights` those of reading weights, `upload` those of
    bringing weights there; `node_s` what any operation takes besides, `kernel_s` a product, convolution or attention
    more, whose last blocks leave the device half idle. `source` says where the figures are from."""

    source: str
    matrix: Mapping[str, float]
    conv: Mapping[str, float]
    attention: Mapping[str, float]
    bandwidth: float
    weights: float
    upload: float
    node_s: float
    kernel_s: float = 0.0

    def matrix_rate(self, form: str) -> float:
        return self.matrix.get(form, self.matrix[OTHER])


@dataclass(frozen=True)
class Efficiency:
    """Shares of a card's peaks: of float32 by format, for convolution and attention; of the memory's bandwidth."""

    matrix: Mapping[str, float]
    conv: float
    flash: float
    bandwidth: float
    node_s: float = 10e-6
    kernel_s: float = 20e-6

    def scaled(self, factor: float) -> Efficiency:
        matrix = {form: factor * share for form, share in self.matrix.items()}
        return Efficiency(matrix, factor * self.conv, factor * self.flash, self.bandwidth, self.node_s, self.kernel_s)


GCN = Efficiency({"F32": 0.45, "F16": 0.62, "BF16": 0.45, "Q2_K": 0.53, "Q3_K": 0.53, OTHER: 0.64}, 0.28, 0.27, 0.56)
EFFICIENCY = {"gcn": GCN, "gcn-windows": GCN.scaled(0.5), "pascal": GCN, "alchemist": GCN.scaled(0.5)}
IM2COL_SHARE = 0.8
"""Of direct convolution's rate, besides the columns it writes and reads (SD 1.5 on the calibrated device)."""
PCIE_SHARE = 0.5
"""Of a slot's rate that reaches the card from the page cache through one staging buffer."""
FASTEST_UPLOAD = 7.7e9

H100_AS_POLARIS = Rates(
    "calibrated",
    matrix={"F32": 20e12, OTHER: 29e12},
    conv={"direct": 24e12, "im2col": 19e12},
    attention={"flash": 25e12, "chunked": 25e12},
    bandwidth=573e9,
    weights=2000e9,
    upload=7.7e9,
    node_s=40e-6,
    kernel_s=60e-6,
)
KNOWN = ((re.compile(r"\bH[12]00\b"), H100_AS_POLARIS),)
CARD_NAMES = (
    (re.compile(r"RX ?(470|480|570|580|590)", re.IGNORECASE), r"rx\1-8g"),
    (re.compile(r"VEGA ?(56|64)", re.IGNORECASE), r"vega\1-8g"),
    (re.compile(r"GTX ?(1070|1080)", re.IGNORECASE), r"gtx\1-8g"),
    (re.compile(r"GTX ?(1060)", re.IGNORECASE), r"gtx\1-6g"),
    (re.compile(r"Arc.* A380"), "arc-a380-6g"),
    (re.compile(r"Arc.* A750"), "arc-a750-8g"),
    (re.compile(r"R9 390|HAWAII", re.IGNORECASE), "r9-390-8g"),
    (re.compile(r"POLARIS1?0?", re.IGNORECASE), "rx580-8g"),
)


def of_card(profile: Profile) -> Rates:
    """Published peaks times the efficiency of its family."""
    share = EFFICIENCY[profile.chip]
    return Rates(
        "published peaks",
        matrix={form: part * profile.flops for form, part in share.matrix.items()},
        conv={"direct": share.conv * profile.flops, "im2col": IM2COL_SHARE * share.conv * profile.flops},
        attention={"flash": share.flash * profile.flops, "chunked": share.matrix["F32"] * profile.flops},
        bandwidth=share.bandwidth * profile.bandwidth,
        weights=share.bandwidth * profile.bandwidth,
        upload=min(PCIE_SHARE * profile.pcie, FASTEST_UPLOAD),
        node_s=share.node_s,
        kernel_s=share.kernel_s,
    )


def known(description: str) -> Rates | None:
    """Of a device that was calibrated."""
    return next((rates for pattern, rates in KNOWN if pattern.search(description)), None)


def card_named(description: str) -> str | None:
    """The profile of a card, by the name its driver gives it."""
    for pattern, name in CARD_NAMES:
        if match := pattern.search(description):
            return match.expand(name).lower()
    return None


GGML_CORE = {"F32": 88e9, "F16": 125e9, "BF16": 89e9, "Q8_0": 93e9, OTHER: 110e9}
GGML_POWER, OPENVINO_POWER = 0.6, 0.75
OPENVINO_F32_CORE, OPENVINO_BF16_CORE, OPENVINO_AMX_CORE = 120e9, 230e9, 330e9
AVX2_SHARE = 0.64
"""Of the AVX-512 figures of OpenVINO, on the Xeon held to AVX2."""
RAM_BANDWIDTH = 12e9
"""Of one channel's worth of memory, by cores to the same power, for what is neither product nor convolution."""


def of_cpu(executor: str, cores: int, *, avx512: bool, bf16: bool, amx: bool = False) -> Rates:
    """Of ggml-cpu (AVX2 whatever the CPU has), openvino, or the slow reference."""
    if executor == "openvino":
        scale = cores**OPENVINO_POWER
        core = OPENVINO_F32_CORE * (1.0 if avx512 else AVX2_SHARE)
        if bf16:
            core = OPENVINO_AMX_CORE if amx else OPENVINO_BF16_CORE
        return _cpu({OTHER: core * scale}, 0.98 * core * scale, 0.6 * core * scale, 0.6 * core * scale, scale)
    scale = cores**GGML_POWER * (0.05 if executor == "reference" else 1.0)
    matrix = {form: rate * scale for form, rate in GGML_CORE.items()}
    return _cpu(matrix, 79e9 * scale, 64e9 * scale, 35e9 * scale, scale)


def _cpu(matrix: Mapping[str, float], conv: float, flash: float, chunked: float, scale: float) -> Rates:
    return Rates(
        "CPU of this kind",
        matrix=matrix,
        conv={"direct": conv, "im2col": 0.75 * conv},
        attention={"flash": flash, "chunked": chunked},
        bandwidth=RAM_BANDWIDTH * scale,
        weights=RAM_BANDWIDTH * scale,
        upload=float("inf"),
        node_s=8e-6,
    )
