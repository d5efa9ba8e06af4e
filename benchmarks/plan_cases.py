"""The pictures that plans are held against: models, sizes, batches, placements."""

from __future__ import annotations

from dataclasses import dataclass

from relight.jobs.request import GenerateRequest


@dataclass(frozen=True)
class Case:
    """`warmed`: this size is warmed up; the others are predicted from such."""

    model: str
    side: int
    steps: int
    batch: int = 1
    cfg: float | None = None
    backend: str | None = None
    warmed: bool = False

    @property
    def request(self) -> GenerateRequest:
        return GenerateRequest(
            prompt="", width=self.side, height=self.side, steps=self.steps, batch=self.batch, cfg_scale=self.cfg, seed=1
        )


MIXED = "te=ggml-cpu,diffusion=ggml-cpu,vae=openvino"
EMBEDDED = [
    *(Case("embedded", side, 4, warmed=True, backend="ggml-cpu") for side in (128, 192, 256)),
    Case("embedded", 160, 4, backend="ggml-cpu"),
    Case("embedded", 128, 8, backend="ggml-cpu"),
    Case("embedded", 128, 4, batch=3, backend="ggml-cpu"),
    Case("embedded", 192, 2, batch=2, backend="ggml-cpu"),
]
SMALL = [
    *EMBEDDED,
    *(Case("sd15", side, 4, warmed=True, backend=MIXED) for side in (64, 128)),
    Case("sd15", 96, 4, backend=MIXED),
    Case("sd15", 128, 4, cfg=1, backend=MIXED),
    Case("sd15", 64, 8, batch=2, backend=MIXED),
    *(Case("sd15", side, 4, warmed=True, backend="ggml-cpu") for side in (64, 128)),
    Case("sd15", 96, 4, cfg=1, backend="ggml-cpu"),
    Case("sd15", 128, 6, backend="ggml-cpu"),
    Case("sd15", 64, 2, batch=3, backend="ggml-cpu"),
    *(Case("sdxl", side, 4, warmed=True, backend=MIXED) for side in (64, 128)),
    Case("sdxl", 96, 4, cfg=1, backend=MIXED),
    Case("sdxl", 64, 6, batch=2, backend=MIXED),
    Case("sdxl", 128, 2, batch=2, backend=MIXED),
]
"""On a CPU, at narrow widths."""

LARGE = [
    *EMBEDDED,
    Case("sd15", 512, 20, warmed=True),
    Case("sd15", 768, 8, warmed=True),
    Case("sd15", 640, 8),
    Case("sd15", 512, 20, cfg=1),
    Case("sd15", 512, 6, batch=4),
    Case("sd15", 768, 8, cfg=1),
    Case("sd15", 512, 20, backend="te=cpu", warmed=True),
    Case("sd15", 640, 8, backend="te=cpu"),
    Case("sd15", 512, 20, backend="vae=cpu", warmed=True),
    Case("sd15", 640, 8, backend="vae=cpu"),
    Case("flux", 512, 4, warmed=True),
    Case("flux", 1024, 2, warmed=True),
    Case("flux", 768, 2),
    Case("flux", 512, 2, batch=2),
    Case("flux", 512, 4, backend="vae=cpu", warmed=True),
    Case("flux", 640, 2, backend="vae=cpu"),
    Case("sdxl", 1024, 5, warmed=True),
    Case("sdxl", 512, 10, warmed=True),
    Case("sdxl", 768, 5),
    Case("sdxl", 1024, 5, cfg=1),
    Case("sdxl", 512, 4, batch=2),
]
"""On a GPU, at real widths."""
