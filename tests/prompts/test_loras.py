from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relight.errors import RequestError
from relight.prompts import LoraTag, take_loras


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("<lora:style>", LoraTag("style")),
        ("<lora:style:0.8>", LoraTag("style", 0.8, 0.8)),
        ("<lora:add detail v2.1:-1>", LoraTag("add detail v2.1", -1, -1)),
        ("<lora:style:0.8:0.5>", LoraTag("style", backbone=0.5, text=0.8)),
        ("<lora:style:te=0.5:unet=1>", LoraTag("style", backbone=1, text=0.5)),
        ("<lora:style:unet=0.3>", LoraTag("style", backbone=0.3, text=1)),
        ("<lora:style:te=0.3>", LoraTag("style", backbone=0.3, text=0.3)),
        ("<lora:style:0.7:unet=0>", LoraTag("style", backbone=0, text=0.7)),
        ("<LORA: folder/style : .5 >", LoraTag("folder/style", 0.5, 0.5)),
        ("<lyco:style:0.5>", LoraTag("style", 0.5, 0.5)),
    ],
)
def test_a_tag_names_a_lora_and_its_strengths(tag: str, expected: LoraTag) -> None:
    assert take_loras(f"a cat {tag}, sitting") == ("a cat , sitting", (expected,))


def test_tags_keep_their_order_and_other_angles_stay() -> None:
    text, tags = take_loras("<lora:b:1>a < b > c <i> <lora> <lora:><lora:a:0.5> <|endoftext|>")
    assert text == "a < b > c <i> <lora> <lora:> <|endoftext|>"
    assert [tag.name for tag in tags] == ["b", "a"]


@pytest.mark.parametrize("tag", ["<lora:a:x>", "<lora:a:>", "<lora:a:nan>", "<lora:a:te=>", "<lora:a:1:inf>"])
def test_a_strength_that_is_no_number_is_refused(tag: str) -> None:
    with pytest.raises(RequestError, match="is not a number; write <lora:name:0.8>") as caught:
        take_loras(f"a {tag}")
    assert tag in str(caught.value)


@pytest.mark.parametrize("tag", ["<lora: :1>", "<lora:a:1:1:64>", "<lora:a:1:lbw=MIDD>"])
def test_what_a_tag_cannot_say_is_refused(tag: str) -> None:
    with pytest.raises(RequestError, match="is not understood") as caught:
        take_loras(tag)
    assert tag in str(caught.value)


@given(text=st.text(st.characters(exclude_characters="<>"), max_size=40))
def test_text_without_tags_stays_as_it_is(text: str) -> None:
    assert take_loras(text) == (text, ())
