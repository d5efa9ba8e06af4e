"""Chunks of 77 tokens: where they are cut, what they weigh, and where embeddings stand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relight.errors import RequestError
from relight.models.tokenizers import ClipTokenizer
from relight.prompts import Chunk, Slot, chunks, mentioned

CLIP = ClipTokenizer()
START, END, CAT, DOG, COMMA = 49406, 49407, 2368, 1929, 267


def texts(made: list[Chunk]) -> list[list[int]]:
    """The tokens of each chunk between start and first end."""
    return [chunk.ids[1 : chunk.eos].tolist() for chunk in made]


def test_a_short_prompt_is_one_chunk_as_the_tokenizer_gives_it() -> None:
    (chunk,) = chunks("a cat, (a dog:1.5)", CLIP)
    expected = CLIP.encode("a cat, a dog")
    assert chunk.ids.tolist() == expected.ids.tolist() and chunk.eos == expected.eos == 6
    assert chunk.ids.dtype == np.int32 and chunk.weights.dtype == np.float32
    assert chunk.weights.tolist() == [1, 1, 1, 1, 1.5, 1.5, *[1] * 71]


def test_an_empty_prompt_is_one_chunk_of_padding() -> None:
    (chunk,) = chunks("", CLIP)
    assert chunk.ids.tolist() == [START, *[END] * 76] and chunk.eos == 1 and (chunk.weights == 1).all()


def test_another_padding_comes_after_the_first_end() -> None:
    (chunk,) = chunks("cat", CLIP)
    assert chunk.padded(0).tolist() == [START, CAT, END, *[0] * 74] and chunk.padded(0).dtype == np.int32
    assert chunk.padded(END).tolist() == chunk.ids.tolist()
    (full,) = chunks("cat " * 75, CLIP)
    assert full.padded(0).tolist() == [START, *[CAT] * 75, END]


def test_an_end_mark_in_the_text_is_the_first_end() -> None:
    (chunk,) = chunks("cat <|endoftext|> dog", CLIP)
    assert chunk.eos == 2 and chunk.ids[3] == DOG
    assert chunk.padded(0).tolist() == [START, CAT, END, *[0] * 74]


@pytest.mark.parametrize(
    ("text", "near_comma", "expected"),
    [
        ("cat " * 75, 20, [[CAT] * 75]),
        ("cat " * 76, 20, [[CAT] * 75, [CAT]]),
        ("cat " * 55 + "," + "dog " * 20, 20, [[*[CAT] * 55, COMMA], [DOG] * 20]),
        ("cat " * 54 + "," + "dog " * 21, 20, [[*[CAT] * 54, COMMA, *[DOG] * 20], [DOG]]),
        ("cat " * 55 + "," + "dog " * 20, 19, [[*[CAT] * 55, COMMA, *[DOG] * 19], [DOG]]),
        ("cat " * 55 + "," + "dog " * 20, 0, [[*[CAT] * 55, COMMA, *[DOG] * 19], [DOG]]),
        ("cat " * 55 + "," + "dog " * 19, 20, [[*[CAT] * 55, COMMA, *[DOG] * 19]]),
        ("cat " * 55 + "," + "dog " * 19 + ",", 20, [[*[CAT] * 55, COMMA, *[DOG] * 19], [COMMA]]),
        ("cat " * 74 + "," + "dog", 20, [[*[CAT] * 74, COMMA], [DOG]]),
        ("cat " * 70 + "," + "dog " * 90, 100, [[*[CAT] * 70, COMMA], [DOG] * 75, [DOG] * 15]),
    ],
)
def test_what_follows_a_near_comma_moves_on(text: str, near_comma: int, expected: list[list[int]]) -> None:
    assert texts(chunks(text, CLIP, near_comma=near_comma)) == expected


def test_weights_move_on_with_their_tokens() -> None:
    first, second = chunks("cat " * 70 + ", dog (cat:1.5) " + "dog " * 10, CLIP)
    assert (first.weights == 1).all() and first.eos == 72
    assert second.weights.tolist() == [1, 1, 1.5, *[1] * 74] and second.ids[2] == CAT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat BREAK dog", [[CAT], [DOG]]),
        ("cat BREAK", [[CAT]]),
        ("BREAK cat", [[], [CAT]]),
        ("cat BREAK BREAK dog", [[CAT], [], [DOG]]),
        ("cat " * 75 + "BREAK dog", [[CAT] * 75, [DOG]]),
        ("cat, BREAK" + " dog" * 80, [[CAT, COMMA], [DOG] * 75, [DOG] * 5]),
    ],
)
def test_break_begins_a_chunk(text: str, expected: list[list[int]]) -> None:
    assert texts(chunks(text, CLIP)) == expected


WORDS = st.sampled_from(["cat", "a dog", ",", "Über", "(sun:1.2)", "[moon]", "BREAK", "foo", "house, ", "\\("])


@given(words=st.lists(WORDS, max_size=150), near_comma=st.sampled_from([0, 1, 20, 74]))
def test_no_token_is_lost_or_changes_its_weight(words: list[str], near_comma: int) -> None:
    text = " ".join(words)
    made = chunks(text, CLIP, {"foo": 7}, near_comma=near_comma)
    whole = [token for word in chunks_of_one(words) for token in word]
    got = []
    for chunk in made:
        assert chunk.ids.shape == chunk.weights.shape == (77,)
        assert chunk.ids[0] == START and (chunk.ids[chunk.eos :] == END).all() and chunk.eos <= 76
        assert (chunk.weights[chunk.eos :] == 1).all()
        got += list(zip(chunk.ids[1 : chunk.eos].tolist(), chunk.weights[1 : chunk.eos].tolist(), strict=True))
        assert all(not chunk.ids[s.start : s.start + 7].any() and s.start + 7 <= chunk.eos for s in chunk.slots)
    assert got == whole
    assert sum(len(chunk.slots) for chunk in made) == words.count("foo")


def chunks_of_one(words: list[str]) -> list[list[tuple[int, float]]]:
    """What each word comes to by itself."""
    weights = {"(sun:1.2)": np.float32(1.2), "[moon]": np.float32(1 / 1.1)}
    tokens = {"foo": [0] * 7, "BREAK": [], "\\(": CLIP.ids("(")}
    return [
        [(token, float(weights.get(word, 1))) for token in tokens.get(word, CLIP.ids(word.strip("()[]:.12")))]
        for word in words
    ]


def test_an_embedding_takes_as_many_tokens_as_it_has_vectors() -> None:
    (chunk,) = chunks("cat, (by EasyNegative:1.3) dog", CLIP, {"easynegative": 3})
    assert chunk.slots == (Slot(4, 3, "easynegative"),)
    assert chunk.ids.tolist()[:9] == [START, CAT, COMMA, CLIP.ids("by")[0], 0, 0, 0, DOG, END]
    assert chunk.weights[3:8].tolist() == [np.float32(1.3)] * 4 + [1]


def test_the_longest_name_wins_and_parts_of_words_do_not_count() -> None:
    counts = {"bad": 1, "bad hands 5": 2, "hands": 4}
    (chunk,) = chunks("bad hands 5, bad hand, badly, hands", CLIP, counts)
    assert [(slot.name, slot.vectors) for slot in chunk.slots] == [("bad hands 5", 2), ("bad", 1), ("hands", 4)]
    assert mentioned("bad hands 5, bad hand, badly", CLIP, counts) == ["bad hands 5", "bad"]
    assert mentioned("handsome badger BREAK (HANDS)", CLIP, counts) == ["hands"]


def test_names_that_are_no_tokens_are_no_embeddings() -> None:
    assert mentioned(" cat ", CLIP, ["", " "]) == []


def test_an_embedding_that_does_not_fit_moves_on_whole() -> None:
    first, second = chunks("cat " * 73 + "foo dog", CLIP, {"foo": 3})
    assert texts([first, second]) == [[CAT] * 73, [0, 0, 0, DOG]]
    assert first.slots == () and second.slots == (Slot(1, 3, "foo"),)


def test_an_embedding_after_the_comma_moves_on_with_the_rest() -> None:
    first, second = chunks("foo " + "cat " * 60 + ", cat foo " + "cat " * 8 + "dog", CLIP, {"foo": 3})
    assert first.slots == (Slot(1, 3, "foo"),) and second.slots == (Slot(2, 3, "foo"),)
    assert texts([second]) == [[CAT, 0, 0, 0, *[CAT] * 8, DOG]]


def test_an_embedding_longer_than_a_chunk_is_refused() -> None:
    assert len(chunks("cat foo", CLIP, {"foo": 75})) == 2
    with pytest.raises(RequestError, match="embedding foo has 76 vectors, and a chunk of a prompt has 75"):
        chunks("foo", CLIP, {"foo": 76})


def test_more_than_64_chunks_are_refused() -> None:
    assert len(chunks("cat " * 4800, CLIP)) == 64
    with pytest.raises(RequestError, match="prompt of more than 4800 tokens"):
        chunks("cat " * 4801, CLIP)
    with pytest.raises(RequestError, match="prompt of more than 4800 tokens"):
        chunks("BREAK " * 64 + "cat", CLIP)
