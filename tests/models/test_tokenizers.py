"""Token ids against transformers' (CLIP) and sentencepiece's (T5), made by tests/golden/make_tokenizers.py."""

from __future__ import annotations

import base64
import json
import lzma
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from relight.errors import ModelFileError, RequestError
from relight.models.tokenizers import ClipTokenizer, T5Tokenizer, TokenIds

HERE = Path(__file__).parent
T5_JSON = lzma.decompress((HERE / "t5_tokenizer.json.xz").read_bytes()).decode()
CLIP_GOLDEN: dict[str, list[int]] = json.loads((HERE / "clip_ids.json").read_bytes())
T5_GOLDEN: dict[str, list[int]] = json.loads((HERE / "t5_ids.json").read_bytes())


def gguf_metadata(content: dict[str, Any]) -> dict[str, Any]:
    """What llama.cpp's converter writes for this vocabulary, with the pieces that fill it up to 32,128."""
    vocabulary = content["model"]["vocab"]
    kinds = np.array([3, 3, 2, *[1] * (len(vocabulary) - 3), *[5] * 28], np.int32)
    kinds[32000:32100] = 4
    scores = np.array([*(score for _, score in vocabulary), *[-1000.0] * 28], np.float32)
    scores[32000:] = -1000.0
    return {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.tokens": [*(piece for piece, _ in vocabulary), *(f"[PAD{i}]" for i in range(32100, 32128))],
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.precompiled_charsmap": np.frombuffer(
            base64.b64decode(content["normalizer"]["normalizers"][0]["precompiled_charsmap"]), np.uint8
        ),
        "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.ggml.remove_extra_whitespaces": True,
        "tokenizer.ggml.eos_token_id": 1,
    }


def small(**changes: Any) -> dict[str, Any]:
    """A tokenizer.json of eight pieces."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", "▁a", "▁cat", "c", "t"]
    vocabulary = [[piece, -float(i)] for i, piece in enumerate(pieces)]
    return {"model": {"type": "Unigram", "unk_id": 2, "vocab": vocabulary}, "normalizer": None} | changes


def small_metadata(**changes: Any) -> dict[str, Any]:
    pieces = [piece for piece, _ in small()["model"]["vocab"]]
    keys = {"model": "t5", "tokens": pieces, "scores": np.zeros(8, np.float32), "token_type": [3, 3, 2, 1, 1, 1, 1, 1]}
    return {f"tokenizer.ggml.{key}": value for key, value in (keys | changes).items() if value is not None}


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture(scope="session")
def t5_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("t5") / "tokenizer.json", T5_JSON)


@pytest.fixture(scope="session")
def t5(t5_json: Path) -> T5Tokenizer:
    return T5Tokenizer.from_json(t5_json)


@pytest.fixture(scope="session")
def t5_gguf() -> T5Tokenizer:
    return T5Tokenizer.from_gguf(gguf_metadata(json.loads(T5_JSON)))


@cache  # not a fixture: hypothesis writes out a test's arguments, and this one's are 300 kB
def published() -> Tokenizer:
    return Tokenizer.from_str(T5_JSON)


def used(tokens: TokenIds, specials: int) -> list[int]:
    return tokens.ids[: tokens.count + specials].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("text", CLIP_GOLDEN)
def test_clip_ids_are_those_of_transformers(text: str) -> None:
    assert used(ClipTokenizer().encode(text, 1000), 2) == CLIP_GOLDEN[text]


@pytest.mark.parametrize("text", T5_GOLDEN)
def test_t5_ids_are_those_of_sentencepiece(text: str, t5: T5Tokenizer, t5_gguf: T5Tokenizer) -> None:
    assert used(t5.encode(text, 1000), 1) == T5_GOLDEN[text]
    assert used(t5_gguf.encode(text, 1000), 1) == T5_GOLDEN[text]


def test_clip_fills_77_places_with_the_end_token_or_the_given_one() -> None:
    tokens = ClipTokenizer().encode("a cat")
    assert tokens.ids.dtype == np.int32 and tokens.ids.tolist() == [49406, 320, 2368, *[49407] * 74]
    assert (tokens.eos, tokens.count, tokens.cut) == (3, 2, "")
    assert ClipTokenizer().encode("a cat", pad=0).ids.tolist() == [49406, 320, 2368, 49407, *[0] * 73]


def test_clip_says_what_was_cut_and_keeps_the_end() -> None:
    fits = ClipTokenizer().encode("cat " * 75)
    assert (fits.eos, fits.count, fits.cut) == (76, 75, "")
    tokens = ClipTokenizer().encode("cat " * 74 + "dog and 猫 Bird ")
    assert tokens.ids.tolist() == [49406, *[2368] * 74, 1929, 49407]
    assert (tokens.eos, tokens.cut) == (76, "and 猫 Bird")


def test_clip_gives_the_text_alone_too() -> None:
    assert ClipTokenizer().ids("a cat") == [320, 2368] and ClipTokenizer().ids(" ") == []


def test_an_end_mark_in_the_prompt_is_the_first_end() -> None:
    assert ClipTokenizer().encode("a <|endoftext|> cat").eos == 2


def test_t5_pads_with_zero_after_the_end(t5: T5Tokenizer) -> None:
    tokens = t5.encode("a cat", 8)
    assert tokens.ids.dtype == np.int32 and tokens.ids.tolist() == [3, 9, 1712, 1, 0, 0, 0, 0]
    assert (tokens.eos, tokens.count, tokens.cut) == (3, 3, "")
    assert t5.encode("", 4).ids.tolist() == [1, 0, 0, 0]


def test_t5_says_what_was_cut_and_keeps_the_end(t5: T5Tokenizer) -> None:
    assert t5.encode("cat cat cat", 4).cut == ""
    tokens = t5.encode("cat cat cat dog sings", 4)
    assert tokens.ids.tolist() == [1712, 1712, 1712, 1] and tokens.eos == 3
    assert tokens.cut == "dog sings" and tokens.count > 4


PLAIN = "a cat Über 猫 naïve 3.14 ▁ ､ (x) é ﬁ".split()
MARKS = ["<extra_id_7>", "</s>", "<pad>"]


def sentences(words: list[str]) -> st.SearchStrategy[str]:
    return st.text(max_size=60) | st.lists(st.sampled_from(words), max_size=12).map(" ".join)


@given(text=sentences(PLAIN + MARKS))
def test_t5_ids_from_json_and_gguf_are_equal(text: str, t5: T5Tokenizer, t5_gguf: T5Tokenizer) -> None:
    one, other = t5.encode(text, 64), t5_gguf.encode(text, 64)
    assert one.ids.tolist() == other.ids.tolist() and one.cut == other.cut


@given(text=sentences(PLAIN))
def test_t5_ids_are_those_of_the_published_json(text: str, t5: T5Tokenizer) -> None:
    normal = published().normalizer.normalize_str(text)  # type: ignore[union-attr]
    # It keeps spaces at the ends, and those beside a mark such as </s>; sentencepiece and relight do not.
    assume(normal == normal.strip() and "<" not in text)
    assert used(t5.encode(text, 200), 1) == published().encode(text).ids


def test_spaces_are_kept_where_the_metadata_says_so() -> None:
    kept = T5Tokenizer.from_gguf(small_metadata(remove_extra_whitespaces=False, add_space_prefix=False))
    assert kept.encode(" a", 3).ids.tolist() == [4, 1, 0]
    assert kept.encode("c ", 4).ids.tolist() == [6, 3, 1, 0]
    trimmed = T5Tokenizer.from_gguf(small_metadata())
    assert trimmed.encode(" c ", 4).ids.tolist() == [3, 6, 1, 0]


def test_signed_character_maps_are_read_as_bytes() -> None:
    metadata = gguf_metadata(json.loads(T5_JSON))
    charsmap = metadata["tokenizer.ggml.precompiled_charsmap"]
    metadata["tokenizer.ggml.precompiled_charsmap"] = charsmap.view(np.int8)
    assert T5Tokenizer.from_gguf(metadata).encode("ﬁｘ", 8).ids.tolist() == [2210, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "encode", [ClipTokenizer().ids, ClipTokenizer().encode, T5Tokenizer.from_gguf(small_metadata()).encode]
)
def test_text_that_is_not_unicode_is_refused(encode: Any) -> None:
    length = () if encode.__name__ == "ids" else (77,)
    with pytest.raises(RequestError, match="not valid Unicode; give it as UTF-8"):
        encode("caf\udce9", *length)


@pytest.mark.parametrize(
    "place",
    [
        "text_encoder_2/tokenizer.json",
        "text_encoder_2/t5_tokenizer.json",
        "text_encoder_2/tokenizer_2/tokenizer.json",
        "tokenizer_2/tokenizer.json",
        "text_encoder_2/tokenizer/tokenizer.json",
    ],
)
def test_a_tokenizer_near_the_checkpoint_is_found(tmp_path: Path, place: str) -> None:
    t5_file = write(tmp_path / "text_encoder_2/model.safetensors", "")
    write(tmp_path / place, small())
    found = T5Tokenizer.find(t5_file, {})
    assert found.encode("cat", 3).ids.tolist() == [5, 1, 0]


def test_clips_tokenizer_beside_it_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "tokenizer.json", {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})
    write(tmp_path / "tokenizer/tokenizer.json", small())
    assert T5Tokenizer.find(tmp_path / "t5xxl.safetensors").encode("a", 2).ids.tolist() == [4, 1]


def test_a_file_beside_it_comes_before_the_metadata_and_extra_before_both(tmp_path: Path) -> None:
    t5_file = tmp_path / "t5.gguf"
    other = small_metadata(tokens=["<pad>", "</s>", "<unk>", "▁cat", "▁", "x", "y", "z"])
    assert T5Tokenizer.find(t5_file, other).encode("cat", 2).ids.tolist() == [3, 1]
    write(tmp_path / "tokenizer.json", small())
    assert T5Tokenizer.find(t5_file, other).encode("cat", 2).ids.tolist() == [5, 1]
    with pytest.raises(ModelFileError, match=r"missing\.json: cannot be read"):
        T5Tokenizer.find(t5_file, other, extra=tmp_path / "missing.json")


def test_no_tokenizer_says_where_it_looked_and_where_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError) as caught:
        T5Tokenizer.find(tmp_path / "t5xxl_fp16.safetensors", {"format": "pt"})
    message = str(caught.value)
    for part in ("t5xxl_fp16.safetensors", str(tmp_path), "tokenizer_2/tokenizer.json", "google/t5-v1_1-xxl"):
        assert part in message
    assert "\n" not in message


def vocabulary(*pieces: Any) -> dict[str, Any]:
    return small(model={"type": "Unigram", "vocab": [["<pad>", 0], ["</s>", 0], ["<unk>", 0], *pieces]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "holds a list"),
        (small(model={"type": "BPE", "vocab": {}}), "not a unigram tokenizer"),
        (small(model=7), "not a unigram tokenizer"),
        (small(model={"type": "Unigram", "vocab": [["a", 0.0]]}), "begins with a, and T5's with <pad>, </s>, <unk>"),
        (vocabulary(["x"]), "not a tokenizer.json"),
        (vocabulary(["", 0]), "an empty piece"),
        (vocabulary(["x", float("nan")]), "a score that is not a number"),
        (vocabulary(["x", 10**400]), "not a tokenizer.json"),
        (vocabulary(["\ud800", 0]), "not valid Unicode"),
        (small(normalizer={"type": "Precompiled", "precompiled_charsmap": "%"}), "not a tokenizer.json"),
        (
            small(normalizer={"type": "Precompiled", "precompiled_charsmap": "////fwAA"}),
            "broken character map: its trie",
        ),
        (small(normalizer=3), "not a tokenizer.json"),
        (small(added_tokens=[1]), "not a tokenizer.json"),
    ],
)
def test_a_broken_json_is_refused_by_name(tmp_path: Path, content: Any, message: str) -> None:
    path = write(tmp_path / "tokenizer.json", content)
    with pytest.raises(ModelFileError) as caught:
        T5Tokenizer.from_json(path)
    assert str(path) in str(caught.value) and message in str(caught.value)


def test_a_json_of_33_mib_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with path.open("wb") as file:
        file.truncate(33 << 20)
    with pytest.raises(ModelFileError, match=r"34,603,008 bytes; a T5 tokenizer has at most 33,554,432"):
        T5Tokenizer.from_json(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "llama"}, "is of kind 'llama', not 't5'"),
        ({"model": None}, "is of kind None"),
        ({"scores": None}, "KeyError: 'tokenizer.ggml.scores'"),
        ({"tokens": 5}, "TypeError"),
        ({"scores": np.zeros(7, np.float32)}, "8 tokens, 7 scores, 8 types"),
        ({"scores": np.full(8, np.inf, np.float32)}, "a score that is not a number"),
        ({"token_type": np.full(8, 5, np.int32)}, "begins with "),
        ({"precompiled_charsmap": np.arange(200, dtype=np.uint8)}, "said to have 50462976 bytes, and 196 follow"),
    ],
)
def test_broken_metadata_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match="tokenizer in the GGUF's metadata") as caught:
        T5Tokenizer.from_gguf(small_metadata(**changes))
    assert message in str(caught.value)
