from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relight.executors.reference import attention
from relight.graph import input_tensor, ops
from relight.prompts import equal_lengths, weighted


def states(seed: int, tokens: int = 77, size: int = 24) -> np.ndarray:
    return (np.random.RandomState(seed).standard_normal((tokens, size)) - 0.2).astype(np.float32)


def test_weights_scale_tokens_and_the_mean_stays() -> None:
    hidden, weights = states(1), np.ones(77, np.float32)
    weights[3:6], weights[10] = 1.5, 0.5
    got = weighted(hidden, weights)
    assert got.dtype == np.float32 and got.mean() == pytest.approx(hidden.mean(), rel=1e-5)
    ratio = got / hidden
    assert ratio.std(axis=1).max() < 1e-5  # a token is scaled as a whole
    assert ratio[4].mean() / ratio[0].mean() == pytest.approx(1.5, rel=1e-5)
    assert ratio[10].mean() / ratio[0].mean() == pytest.approx(0.5, rel=1e-5)


def test_states_of_plain_text_stay_as_they_are() -> None:
    hidden = states(2)
    assert weighted(hidden, np.ones(77, np.float32)) is hidden


def test_a_mean_that_cannot_be_restored_is_left() -> None:
    assert weighted(states(3), np.zeros(77, np.float32)).tolist() == np.zeros((77, 24)).tolist()
    balanced = np.array([[1, -1], [2, -2]], np.float32)
    assert weighted(balanced, np.array([2, 1], np.float32)).tolist() == [[2, -2], [2, -2]]


def test_t5s_longer_states_are_weighted_alike() -> None:
    hidden, weights = states(4, 512), np.linspace(0.5, 1.5, 512, dtype=np.float32)
    assert weighted(hidden, weights).mean() == pytest.approx(hidden.mean(), rel=1e-4)


@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_repeated_contexts_are_attended_to_alike(lengths: list[int]) -> None:
    contexts = [states(i, 5 * length, 8) for i, length in enumerate(lengths)]
    equal = equal_lengths(contexts)
    assert len({len(context) for context in equal}) == 1
    for before, after in zip(contexts, equal, strict=True):
        assert len(after) % len(before) == 0
        np.testing.assert_allclose(attended(after), attended(before), atol=1e-5)


def attended(context: np.ndarray) -> np.ndarray:
    query, key = states(9, 6, 8)[None, :, None], context[None, :, None]
    node = ops.attention(input_tensor("q", query.shape), input_tensor("k", key.shape), input_tensor("v", key.shape))
    return attention(node, query, key, key[..., ::-1])
