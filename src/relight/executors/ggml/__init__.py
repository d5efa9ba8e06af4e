"""ggml as an executor: one lowering of the recorded graph for its Vulkan and CPU devices."""

from relight.executors.ggml.executor import GgmlExecutor

__all__ = ["GgmlExecutor"]
