"""What stable-diffusion.cpp tells of one picture through its log and progress callbacks: seconds and buffer sizes."""

from __future__ import annotations

import re
import time
from typing import Any

STAGE_DONE = {
    "encode": re.compile(r"get_learned_condition completed, taking ([\d.]+)s"),
    "denoise": re.compile(r"sampling completed, taking ([\d.]+)s"),
    "decode": re.compile(r"decode_first_stage completed, taking ([\d.]+)s"),
}
LOADED = re.compile(r"loading tensors completed, taking ([\d.]+)s")
CLIP_DONE = re.compile(r"clip compute buffer size")
TEXT_DONE = re.compile(r"computing condition graph completed")
COMPUTE_BUFFER = re.compile(r"(\w+) compute buffer size:\s*([\d.]+) MB\s*\((\w+)\)")
PARAMS_BUFFER = re.compile(r"prepared params backend buffers \(\s*([\d.]+) MB, .*?(RAM|VRAM)\) on (\S+)")
TOTAL_PARAMS = re.compile(r"total params memory size = ([\d.]+)MB \(VRAM ([\d.]+)MB, RAM ([\d.]+)MB\)")

MIB = 1 << 20


class PictureLog:
    """Fed with every line and progress call between the start and the end of one picture (or of opening the files).

    Seconds of T5 run from the end of CLIP to the end of the conditioning, less what loading took in between.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, Any] = {"load": 0.0, "steps": []}
        self.compute_bytes: dict[str, int] = {}
        self.params_bytes: dict[str, int] = {}
        self.planned_bytes: dict[str, int] = {}
        self._stage = "encode"
        self._loading = False
        self._text_started = 0.0
        self._step_started = 0.0

    def on_line(self, line: str) -> None:
        now = time.perf_counter()
        if "loading" in line and " tensors from " in line:
            self._loading = True
        if match := LOADED.search(line):
            self._loading = False
            self.seconds["load"] += float(match[1])
            self._text_started += float(match[1])
            self._step_started = now
        if CLIP_DONE.search(line):
            self._text_started = now
        elif TEXT_DONE.search(line) and self._text_started:
            self.seconds["t5xxl"] = round(now - self._text_started, 4)
        for stage, pattern in STAGE_DONE.items():
            if match := pattern.search(line):
                self.seconds[stage] = float(match[1])
                self._stage = {"encode": "denoise", "denoise": "decode"}.get(stage, "")
                self._step_started = now
        self._on_sizes(line)

    def _on_sizes(self, line: str) -> None:
        if match := COMPUTE_BUFFER.search(line):
            size = int(float(match[2]) * MIB)
            self.compute_bytes[match[1]] = max(size, self.compute_bytes.get(match[1], 0))
        if match := PARAMS_BUFFER.search(line):
            self.params_bytes[match[3]] = self.params_bytes.get(match[3], 0) + int(float(match[1]) * MIB)
        if match := TOTAL_PARAMS.search(line):
            self.planned_bytes = {"vram": int(float(match[2]) * MIB), "ram": int(float(match[3]) * MIB)}

    def on_progress(self, step: int) -> None:
        """Called before the first sampling step (0) and after each, and for tensors loaded and tiles decoded."""
        if step and self._stage == "denoise" and not self._loading:
            now = time.perf_counter()
            self.seconds["steps"].append(round(now - self._step_started, 4))
            self._step_started = now
