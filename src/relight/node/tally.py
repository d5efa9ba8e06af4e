"""What was done since the start, for `/metrics`: seconds of stages, bytes of devices, tokens."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from relight.gateway.node import Metric
from relight.llm.asks import Usage


class Tally:
    """Told by the threads that make pictures and answers."""

    def __init__(self) -> None:
        self._stages: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._pictures: Counter[str] = Counter()
        self._peaks: dict[str, int] = {}
        self._tokens: Counter[tuple[str, str]] = Counter()
        self._seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._pace: dict[str, float] = {}
        self._lock = threading.Lock()

    def made(self, model: str, report: Mapping[str, Any]) -> None:
        """The pictures of a request; `report` as `relight generate --json` prints it."""
        with self._lock:
            self._pictures[model] += len(report["seeds"])
            for stage, seconds in stages(report["seconds"]).items():
                self._stages[model, stage] += seconds
            self._peaks |= {name: used["peak_bytes"] for name, used in report["devices"].items()}

    def answered(self, model: str, usage: Usage) -> None:
        with self._lock:
            self._tokens[model, "read"] += usage.prompt_tokens - usage.reused_tokens
            self._tokens[model, "reused"] += usage.reused_tokens
            self._tokens[model, "written"] += usage.completion_tokens
            self._seconds[model, "read"] += usage.prompt_seconds
            self._seconds[model, "written"] += usage.decode_seconds
            if usage.tokens_per_second:
                self._pace[model] = usage.tokens_per_second

    def metrics(self) -> list[Metric]:
        with self._lock:
            return [
                Metric("pictures", "counter", "Pictures made", [({"model": m}, n) for m, n in self._pictures.items()]),
                Metric(
                    "stage_seconds",
                    "counter",
                    "Of pictures made, by stage; stages run side by side",
                    [({"model": m, "stage": stage}, s) for (m, stage), s in self._stages.items()],
                ),
                Metric(
                    "device_peak_bytes",
                    "gauge",
                    "Most that the last picture took of a device",
                    [({"device": name}, n) for name, n in self._peaks.items()],
                ),
                Metric("tokens", "counter", "Of answers", labelled(self._tokens)),
                Metric("token_seconds", "counter", "In which tokens were read and written", labelled(self._seconds)),
                Metric(
                    "tokens_per_second",
                    "gauge",
                    "Written in the last answer, from its second token on",
                    [({"model": model}, pace) for model, pace in self._pace.items()],
                ),
            ]


def labelled(counted: Mapping[tuple[str, str], float]) -> list[tuple[Mapping[str, str], float]]:
    return [({"model": model, "kind": kind}, value) for (model, kind), value in counted.items()]


def stages(seconds: Mapping[str, Any]) -> dict[str, float]:
    """Of a report: each stage's seconds, those of its components together."""
    return {
        stage: sum(took.values()) if isinstance(took, Mapping) else took
        for stage, took in seconds.items()
        if stage not in ("steps", "total")
    }
