"""Which executor computes a component on the CPU: ggml or OpenVINO."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing

from relight.executors.cores import has_openvino
from relight.jobs.lanes import Lanes
from relight.jobs.request import ModelFiles
from relight.tuning.tuned import Tuned
from relight.weights.checkpoint import open_component
from relight.workers.ram import available_ram

ON_OPENVINO = {"t5xxl": 20_000_000, "vae": 20_000_000, "vae_encoder": 20_000_000, "taesd": 500_000, "upscaler": 100_000}
"""T5 and networks of convolutions, from so many parameters on: a smaller one is run in the second that OpenVINO takes
to load and to compile."""
UNET_WORTH, UNET_BYTES = 20_000_000, 10
"""A UNet is three times as fast there as in ggml (measured on AVX-512, float32), where there is RAM for it: that of
SD 1.5 took 8 bytes a parameter."""


class CpuChoice:
    """For the components of one model; `tuned` is what was measured on this machine."""

    def __init__(self, files: ModelFiles, lanes: Lanes, tuned: Callable[[], Tuned | None]) -> None:
        self.files, self.lanes, self.tuned = files, lanes, tuned
        self._chosen: dict[str, str] = {}

    def executor(self, component: str) -> str:
        """OpenVINO for convolutions, and for T5 where the CPU has bfloat16; ggml for the rest, which is used in place
        from the mapped file, and for what is done before OpenVINO is up. What was measured wins."""
        kind, tuned = self.files.kind(component), self.tuned()
        if not has_openvino() or (component not in ON_OPENVINO and kind != "unet"):
            return "ggml-cpu"
        if component not in self._chosen and tuned and (better := tuned.cpu_executor(component)):
            self._chosen[component] = better
        if component not in self._chosen:
            with closing(open_component(kind, self.files.of(component))) as stored:
                parameters = sum(math.prod(stored.shape(name)) for name in stored)
            better = "openvino"
            if parameters < ON_OPENVINO.get(component, UNET_WORTH):
                better = "ggml-cpu"
            elif kind == "unet" and available_ram() < UNET_BYTES * parameters:
                better = "ggml-cpu"
            elif component == "t5xxl":
                answer = self.lanes.worker("cpu").call("text_executor", {"parameters": parameters})
                better = str(answer.values["executor"])
            self._chosen[component] = better
        return self._chosen[component]
