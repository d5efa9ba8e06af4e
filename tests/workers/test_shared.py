"""Arrays in memory that two processes share, and the messages that say so."""

from __future__ import annotations

import io
import os
import sys

import numpy as np
import pytest

from relight.workers.protocol import WORTH_SHARING, Message, packed, receive, send
from relight.workers.shared import Both, Shared

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory without a name is Linux's")
MANY = WORTH_SHARING // 4


@pytest.fixture
def sides():
    """Of one memory, as two processes have it."""
    ours = Both.create().outgoing
    return ours, Shared(os.dup(ours.fd))


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "latents": random.random((3, 5, 7), np.float32),
        "image": random.integers(0, 256, (5, 3, 3)).astype(np.uint8),
        "ids": random.integers(0, 99, (11,)).astype(np.int32),
        "text": random.random(MANY, np.float32),
        "nothing": np.zeros((0, 4), np.float32),
    }


def test_what_one_side_puts_the_other_finds(sides):
    ours, theirs = sides
    given = list(arrays().values())
    ours.put(given)
    found = theirs.find([(array.dtype, array.shape) for array in given])
    assert all(np.array_equal(*pair) for pair in zip(given, found, strict=True))


def test_it_grows_and_what_was_found_before_stays_where_it_was(sides):
    ours, theirs = sides
    small, large = np.arange(8, dtype=np.int32), np.arange(100_000, dtype=np.int32)
    ours.put([small])
    (found,) = theirs.find([(small.dtype, small.shape)])
    ours.put([small, large])
    assert np.array_equal(theirs.find([(small.dtype, small.shape), (large.dtype, large.shape)])[1], large)
    assert np.array_equal(found, small)


def test_more_than_was_put_is_not_found(sides):
    ours, theirs = sides
    ours.put([np.zeros(16, np.float32)])
    with pytest.raises(ValueError, match="."):
        theirs.find([(np.dtype(np.float32), (1 << 20,))])


@pytest.mark.parametrize("kind", ["call", "result"])
def test_many_bytes_of_a_call_or_a_result_do_not_go_through_the_pipe(sides, kind):
    pipe, message = io.BytesIO(), Message(kind, 7, {"sizes": [1, 2]}, arrays())
    send(pipe, message, sides[0])
    assert pipe.tell() < 1000
    pipe.seek(0)
    got = receive(pipe, sides[1])
    assert (got.kind, got.call, got.values) == (kind, 7, {"sizes": [1, 2]})
    assert all(np.array_equal(got.arrays[name], array) for name, array in message.arrays.items())


def test_a_result_stays_when_the_next_one_comes(sides):
    first, second = [through(sides, Message("result", seed, {}, arrays(seed))) for seed in range(2)]
    assert np.array_equal(first.arrays["text"], arrays(0)["text"])
    assert np.array_equal(second.arrays["text"], arrays(1)["text"])


def through(sides, message: Message) -> Message:
    pipe = io.BytesIO()
    send(pipe, message, sides[0])
    pipe.seek(0)
    return receive(pipe, sides[1])


@pytest.mark.parametrize(
    "message", [Message("call", 1, {}, {"a": np.ones(9, np.float32)}), Message("event", 1, {}, arrays())]
)
def test_little_and_what_may_come_twice_goes_through_the_pipe(sides, message):
    pieces = packed(message, sides[0])
    assert sum(map(len, pieces)) > sum(array.nbytes for array in message.arrays.values())
    assert os.fstat(sides[0].fd).st_size == 0


def test_a_message_in_memory_that_nobody_shares_is_refused(sides):
    pipe = io.BytesIO()
    send(pipe, Message("call", 1, {}, arrays()), sides[0])
    pipe.seek(0)
    with pytest.raises(ValueError, match="not shared"):
        receive(pipe)
