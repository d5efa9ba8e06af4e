"""What is to be computed: a recorded graph of 25 operations, independent of device and precision."""

from relight.graph.tensor import Graph, Tensor, input_tensor
from relight.graph.weights import AdapterIndex, WeightIndex, Weights

__all__ = ["AdapterIndex", "Graph", "Tensor", "WeightIndex", "Weights", "input_tensor"]
