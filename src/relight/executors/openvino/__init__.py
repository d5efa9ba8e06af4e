"""OpenVINO on the CPU: matrices stay in the memory map or in 8 or 4 bits and are inputs of the compiled models."""

import sys

# OpenVINO's package reports each import to a server, from a forked process that can hang and outlive this one. It does
# without where the reporting package cannot be imported.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

from relight.executors.openvino.device import cpu_has_bf16  # noqa: E402
from relight.executors.openvino.executor import OpenvinoExecutor  # noqa: E402

__all__ = ["OpenvinoExecutor", "cpu_has_bf16"]
