"""A graph's weights may come from several loads: a network's, and those of what is put beside it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from executors_present import EXECUTORS
from relight.errors import WeightMissing
from relight.executors.base import CompileOptions, Executor, LoadedWeights
from relight.executors.null import NullExecutor
from relight.graph import Graph, Weights, input_tensor, ops
from relight.weights.checkpoint import StoredTensor
from running import relative_error
from stored import ArraySource

OPTIONS = CompileOptions(precision="f32")
random = np.random.default_rng(3)


def array(*shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32) / np.float32(shape[-1] ** 0.5)


class Counted(ArraySource):
    """Keeps the names of what was taken from it."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        super().__init__(arrays)
        self.taken: list[str] = []

    def __getitem__(self, name: str) -> StoredTensor:
        self.taken.append(name)
        return super().__getitem__(name)


BASE = {"in.weight": array(96, 64), "in.bias": array(96), "conv.weight": array(8, 1, 3, 3)}
EXTRAS = [{"beside.weight": array(96, 64)} for _ in range(2)]
X = array(11, 64)


def network() -> Graph:
    w, beside = Weights(ArraySource(BASE)), Weights(ArraySource(EXTRAS[0]))
    x = input_tensor("x", (11, 64))
    y = ops.linear(x, w / "in") + ops.linear(x, beside / "beside")
    return Graph({"y": ops.conv2d(y.reshape(1, 1, 11, 96), w / "conv", padding=1)})


def run(executor: Executor, loads: list[LoadedWeights]) -> np.ndarray:
    program = executor.compile(network(), loads, OPTIONS)
    try:
        return program.run({"x": X})["y"]
    finally:
        program.close()


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Executor:
    return EXECUTORS[request.param]()


@pytest.fixture
def base(executor: Executor) -> Iterator[tuple[Counted, LoadedWeights]]:
    source = Counted(BASE)
    weights = executor.load((network(),), source)
    yield source, weights
    weights.close()


def test_two_loads_give_what_one_gives(executor: Executor, base: tuple[Counted, LoadedWeights]) -> None:
    whole = executor.load((network(),), ArraySource(BASE | EXTRAS[0]))
    beside = executor.load((network(),), ArraySource(EXTRAS[0]))
    expected = run(executor, [whole])
    np.testing.assert_array_equal(run(executor, [base[1], beside]), expected)
    np.testing.assert_array_equal(run(executor, [beside, base[1]]), expected)
    whole.close()
    beside.close()


def test_changing_one_set_takes_nothing_from_the_other(executor: Executor, base: tuple[Counted, LoadedWeights]) -> None:
    source, weights = base
    loaded = sorted(source.taken)
    assert sorted(set(loaded)) == sorted(BASE)
    results = []
    for extra in EXTRAS:
        beside = executor.load((network(),), ArraySource(extra))
        results.append(run(executor, [weights, beside]))
        beside.close()
    assert sorted(source.taken) == loaded
    merged = {"in.weight": BASE["in.weight"] + EXTRAS[1]["beside.weight"], "in.bias": BASE["in.bias"]}
    y = X @ merged["in.weight"].T + merged["in.bias"]
    kernel = BASE["conv.weight"]
    padded = np.lib.stride_tricks.sliding_window_view(np.pad(y, 1), (3, 3))
    assert relative_error(results[1][0], np.einsum("hwij,oij->ohw", padded, kernel[:, 0])) < 1e-3
    assert relative_error(results[0], results[1]) > 0.1


def test_a_weight_of_no_set_is_refused_by_name(executor: Executor, base: tuple[Counted, LoadedWeights]) -> None:
    with pytest.raises(WeightMissing, match=r"beside\.weight, as this graph uses it, is in none of the 1 sets"):
        executor.compile(network(), base[1], OPTIONS)
    with pytest.raises(WeightMissing, match=r"in\.weight.* none of the 0 sets"):
        executor.compile(network(), [], OPTIONS)


def test_a_source_that_has_none_of_the_weights_is_an_empty_load(executor: Executor) -> None:
    """A LoRA that changes the text encoder alone, say."""
    whole = executor.load((network(),), ArraySource(BASE | EXTRAS[0]))
    nothing = executor.load((network(),), ArraySource({"elsewhere.weight": array(4, 4)}))
    assert nothing.nbytes == 0
    assert run(executor, [whole, nothing]).shape == (1, 8, 11, 96)
    nothing.close()
    whole.close()


def test_the_count_of_each_load_is_its_own() -> None:
    null = NullExecutor()
    loads = [null.load((network(),), ArraySource(part)) for part in (BASE, EXTRAS[0])]
    assert [weights.nbytes for weights in loads] == [4 * (96 * 64 + 96 + 8 * 9), 4 * 96 * 64]
    assert null.limit.used == null.measure(network(), OPTIONS).weights
    loads[1].close()
    assert null.limit.used == loads[0].nbytes
