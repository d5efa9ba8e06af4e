"""OpenVINO on the CPU: matrices stay in the memory map or in 8 or 4 bits and are inputs of the compiled models."""

from relight.executors.openvino.device import cpu_has_bf16
from relight.executors.openvino.executor import OpenvinoExecutor

__all__ = ["OpenvinoExecutor", "cpu_has_bf16"]
