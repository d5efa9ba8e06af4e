from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest

from relight.models.tokenizers import T5Tokenizer
from relight.prompts import sequence

T5_JSON = Path(__file__).parent.parent / "models/t5_tokenizer.json.xz"


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> T5Tokenizer:
    path = tmp_path_factory.mktemp("t5") / "tokenizer.json"
    path.write_bytes(lzma.decompress(T5_JSON.read_bytes()))
    return T5Tokenizer.from_json(path)


@pytest.mark.parametrize("text", ["", "a cat", "cat " * 50])
def test_plain_text_is_as_the_tokenizer_gives_it(text: str, t5: T5Tokenizer) -> None:
    tokens, weights = sequence(text, t5, 20)
    expected = t5.encode(text, 20)
    assert tokens.ids.tolist() == expected.ids.tolist() and tokens.ids.dtype == np.int32
    assert (tokens.eos, tokens.count, tokens.cut) == (expected.eos, expected.count, expected.cut)
    assert weights.dtype == np.float32 and weights.tolist() == [1] * 20


def test_tokens_have_the_weights_of_their_pieces(t5: T5Tokenizer) -> None:
    tokens, weights = sequence("a (cat:1.5) BREAK [dog]", t5, 12)
    ids = [*t5.encode("a ", 9).ids[:2], *t5.encode("cat", 9).ids[:1], *t5.encode("dog", 9).ids[:1]]
    assert tokens.ids[: tokens.eos + 1].tolist() == [*ids, 1]
    assert weights.tolist() == pytest.approx([1, 1, 1.5, 1 / 1.1, *[1] * 8])


def test_what_is_cut_is_said_across_pieces(t5: T5Tokenizer) -> None:
    tokens, weights = sequence("cat cat (cat dog:2) [cat]", t5, 4)
    assert tokens.ids.tolist() == [*t5.encode("cat cat cat", 4).ids] and weights.tolist() == [1, 1, 2, 1]
    assert tokens.eos == 3 and tokens.cut == "dog cat" and tokens.count == 5
