"""The official client, unmodified, against a gateway on loopback."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from PIL import Image

from gateway.fake_node import FakeNode, picture
from gateway.serving import Served, serving
from relight.gateway.node import ImageAsk


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as running:
        yield running


@pytest.fixture
def client(served: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as each:
        yield each


def decoded(b64: str | None) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(b64 or "")))


def test_models_are_listed_and_found_by_name(client: OpenAI) -> None:
    assert [each.id for each in client.models.list()] == ["painter", "talker", "seer", "measurer"]
    assert client.models.retrieve("painter").owned_by == "relight"


def test_chat_answers_with_usage(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="talker", messages=[{"role": "user", "content": "one two three"}])
    assert answer.choices[0].message.content == "one two three"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None and answer.usage.total_tokens == 6


def test_streamed_chat_is_the_whole_one_in_pieces(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="talker",
        messages=[{"role": "system", "content": "be brief"}, {"role": "user", "content": "one two three"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "one two three"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage and chunks[-1].usage.completion_tokens == 3


def test_tools_are_called_whole_and_in_pieces(client: OpenAI) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    asked = {"model": "talker", "messages": [{"role": "user", "content": "Oslo?"}], "tools": [tool]}
    whole = client.chat.completions.create(**asked)  # type: ignore[call-overload]
    (call,) = whole.choices[0].message.tool_calls
    assert (call.id, call.function.name, json.loads(call.function.arguments)) == ("call_1", "weather", {"city": "Oslo"})
    assert whole.choices[0].finish_reason == "tool_calls"
    assert whole.choices[0].message.content is None

    chunks = list(client.chat.completions.create(**asked, stream=True))  # type: ignore[call-overload]
    parts = [part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or []]
    assert parts[0].id == "call_1" and parts[0].function.name == "weather"
    assert "".join(part.function.arguments for part in parts) == '{"city": "Oslo"}'


def test_tool_results_go_back_to_the_model(client: OpenAI, served: Served) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    client.chat.completions.create(
        model="talker",
        messages=[
            {"role": "user", "content": "Oslo?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},  # type: ignore[list-item]
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        ],
        tools=[{"type": "function", "function": {"name": "weather"}}],
        tool_choice={"type": "function", "function": {"name": "weather"}},
    )
    ask = served.node.asked[-1]
    assert ask.messages[1].tool_calls[0].name == "weather"
    assert (ask.messages[2].tool_call_id, ask.messages[2].parts) == ("call_1", ("rain",))
    assert ask.tool_choice == "weather"


def test_a_json_schema_reaches_the_model(client: OpenAI, served: Served) -> None:
    schema = {"type": "object", "properties": {"colour": {"type": "integer"}}}
    answer = client.chat.completions.create(
        model="talker",
        messages=[{"role": "user", "content": "x"}],
        response_format={"type": "json_schema", "json_schema": {"name": "c", "schema": schema, "strict": True}},
    )
    assert json.loads(answer.choices[0].message.content or "") == {"colour": 1}
    assert served.node.asked[-1].response_schema == schema


def test_logprobs_stop_and_sampling_reach_the_model(client: OpenAI, served: Served) -> None:
    answer = client.chat.completions.create(
        model="talker",
        messages=[{"role": "user", "content": "one two"}],
        logprobs=True,
        top_logprobs=2,
        stop=["END", "\n"],
        seed=7,
        temperature=0.5,
        max_completion_tokens=1,
        logit_bias={"11": -100, "7": 2.5},  # type: ignore[dict-item]
        extra_body={"top_k": 40, "min_p": 0.1, "nonsense": {"is": "ignored"}},
    )
    tokens = answer.choices[0].logprobs
    assert tokens is not None and tokens.content is not None
    assert [each.token for each in tokens.content[0].top_logprobs] == ["one0", "one1"]
    assert answer.choices[0].finish_reason == "length"
    sampling = served.node.asked[-1].sampling
    assert (sampling.stop, sampling.seed, sampling.temperature, sampling.top_k, sampling.min_p) == (
        ("END", "\n"),
        7,
        0.5,
        40,
        0.1,
    )
    assert dict(sampling.logit_bias) == {11: -100, 7: 2.5}
    with pytest.raises(openai.BadRequestError, match="logit_bias"):
        client.completions.create(model="talker", prompt="a", logit_bias={"11": 101})


def test_thoughts_come_beside_the_answer_and_go_back(client: OpenAI, served: Served) -> None:
    asked: Any = {
        "model": "talker",
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Yes?", "reasoning_content": "A greeting."},
            {"role": "user", "content": "one two"},
        ],
        "reasoning_effort": "high",
        "extra_body": {"chat_template_kwargs": {"enable_thinking": True, "budget": 5}},
    }
    said = client.chat.completions.create(**asked).choices[0].message
    assert (said.content, said.reasoning_content) == ("one two", "Let me see.")
    ask = served.node.asked[-1]
    assert [each.reasoning for each in ask.messages] == [None, "A greeting.", None]
    assert (ask.reasoning_effort, ask.template_values) == ("high", {"enable_thinking": True, "budget": 5})
    deltas = [chunk.choices[0].delta for chunk in client.chat.completions.create(**asked, stream=True)]
    assert [each.reasoning_content for each in deltas if hasattr(each, "reasoning_content")] == ["Let me", " see."]
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**asked | {"extra_body": {"chat_template_kwargs": {"messages": []}}})


def test_pictures_go_to_models_that_see_and_to_no_others(client: OpenAI, served: Served) -> None:
    png = picture()
    url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    content = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": url}}]
    messages = [{"role": "user", "content": content}]
    client.chat.completions.create(model="seer", messages=messages)  # type: ignore[arg-type]
    assert served.node.asked[-1].messages[0].parts == ("what?", png)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="talker", messages=messages)  # type: ignore[arg-type]
    assert refused.value.code == "vision_unsupported"
    assert refused.value.param == "messages[0].content[1].image_url.url"


def test_completions_of_several_prompts(client: OpenAI) -> None:
    answer = client.completions.create(model="talker", prompt=["a b", "c"], echo=True)
    assert answer.id.startswith("cmpl-")
    assert [each.text for each in answer.choices] == ["a ba b", "cc"]
    chunks = list(client.completions.create(model="talker", prompt="a b", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "a b"


def test_embeddings_in_base64_are_those_in_numbers(client: OpenAI) -> None:
    packed = client.embeddings.create(model="measurer", input=["one", "three"])
    plain = client.embeddings.create(model="measurer", input=["one", "three"], encoding_format="float")
    for a, b in zip(packed.data, plain.data, strict=True):
        assert a.embedding == pytest.approx(b.embedding, abs=1e-6)
    assert len(client.embeddings.create(model="measurer", input="x", dimensions=3).data[0].embedding) == 3


def test_pictures_are_made_in_the_size_and_number_asked(client: OpenAI, served: Served) -> None:
    answer = client.images.generate(
        model="painter",
        prompt="a lighthouse",
        n=2,
        size="128x64",  # type: ignore[arg-type]
        response_format="b64_json",
        extra_body={"steps": 3, "seed": 11, "negative_prompt": "fog", "cfg_scale": 1.5, "sampler": "euler"},
    )
    assert [decoded(each.b64_json).size for each in answer.data or []] == [(128, 64)] * 2
    request = served.node.asked[-1].request
    assert request == {
        "prompt": "a lighthouse",
        "steps": 3,
        "seed": 11,
        "negative_prompt": "fog",
        "cfg_scale": 1.5,
        "sampler": "euler",
        "batch": 2,
        "width": 128,
        "height": 64,
    }


def test_pictures_come_as_jpeg_and_webp(client: OpenAI) -> None:
    for kind in ("jpeg", "webp"):
        answer = client.images.generate(model="painter", prompt="x", output_format=kind, output_compression=50)
        assert decoded((answer.data or [])[0].b64_json).format == kind.upper()


def test_a_picture_by_url_is_fetched_with_the_same_key(client: OpenAI) -> None:
    answer = client.images.generate(model="painter", prompt="x", response_format="url")
    url = (answer.data or [])[0].url or ""
    content = client.with_options(base_url=url.rsplit("/", 1)[0]).get("/0", cast_to=openai.HttpxBinaryResponseContent)
    assert Image.open(io.BytesIO(content.content)).size == (64, 64)


def test_a_stream_of_pictures_has_partial_ones(client: OpenAI) -> None:
    stream = client.images.generate(model="painter", prompt="x", stream=True, partial_images=2)
    events = list(stream)
    kinds = [each.type for each in events]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [each.partial_image_index for each in events[:2]] == [0, 1]  # type: ignore[union-attr]
    assert decoded(events[-1].b64_json).size == (64, 64)


def test_edits_take_a_picture_and_a_mask(client: OpenAI, served: Served) -> None:
    answer = client.images.edit(
        model="painter", image=picture(96, 64), mask=picture(96, 64, colour=(0, 0, 0, 0)), prompt="a door"
    )
    assert len(answer.data or []) == 1
    ask: ImageAsk = served.node.asked[-1]
    assert "width" not in ask.request, "the node gives it the picture's size"
    assert ask.request["redraw"] == {"image": "image", "mask": "mask", "strength": 1.0}
    assert Image.open(io.BytesIO(ask.inputs["mask"])).getextrema() == (255, 255), "what was transparent is painted"

    client.images.edit(model="painter", image=[picture()], prompt="a door", extra_body={"strength": 0.3})
    assert served.node.asked[-1].request["redraw"] == {"image": "image", "strength": 0.3}
    with pytest.raises(openai.BadRequestError, match="2 pictures"):
        client.images.edit(model="painter", image=[picture(), picture()], prompt="a door")


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the client's own opinion of this route
def test_variations_need_no_prompt(client: OpenAI) -> None:
    answer = client.images.create_variation(model="painter", image=picture(), n=2)
    assert len(answer.data or []) == 2


def test_errors_have_their_classes_codes_and_params(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="talkr", messages=[{"role": "user", "content": "x"}])
    assert missing.value.code == "model_not_found" and "talker" in missing.value.message
    with pytest.raises(openai.BadRequestError) as wrong:
        client.images.generate(model="painter", prompt="x", n=11)
    assert wrong.value.param == "n"
    with pytest.raises(openai.BadRequestError, match="for image"):
        client.chat.completions.create(model="painter", messages=[{"role": "user", "content": "x"}])


def test_a_full_queue_says_when_to_come_again() -> None:
    with serving(FakeNode(most_queued=0)) as full, OpenAI(base_url=full.url, api_key="x", max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as refused:
            client.images.generate(model="painter", prompt="x")
        assert refused.value.response.headers["Retry-After"] == "7"


def test_the_client_that_obeys_gets_its_picture_at_the_next_try() -> None:
    node = FakeNode()
    with serving(node) as full, OpenAI(base_url=full.url, api_key="x", max_retries=2) as client:
        from relight.errors import QueueFull

        node.fails_with = QueueFull("1 job waits", 1)
        original = node.submit_image

        async def once(*arguments: object, **named: object) -> object:
            node.submit_image = original  # type: ignore[method-assign]
            error, node.fails_with = node.fails_with, None
            assert error is not None
            raise error

        node.submit_image = once  # type: ignore[method-assign, assignment]
        assert client.images.generate(model="painter", prompt="x").data
