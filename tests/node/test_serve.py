"""`relight serve` as clients meet it: the official client over real models, orders to stop, and kills."""

from __future__ import annotations

import base64
import io
import json
import os
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from openai import APIStatusError, BadRequestError, OpenAI
from PIL import Image

from llm.tiny_model import write_model
from relight.demo import SIZE
from relight.node.commands import show_devices, show_jobs
from served import PICTURES, WORDS, Served

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.name == "nt", reason="signals"),
]
HELLO: Any = [{"role": "user", "content": "hello"}]
CITY = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with Served(folder, write_model(folder / f"{WORDS}.gguf")) as running:
        yield running


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[OpenAI]:
    with served.client() as each:
        yield each


def picture(b64: str | None) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(b64 or "")))


def made(client: OpenAI, **more: Any) -> Any:
    settings = {"steps": 2, "seed": 1} | more.pop("extra_body", {})
    answer = client.images.generate(model=PICTURES, prompt="a red apple", size="64x64", extra_body=settings, **more)  # type: ignore[call-overload]
    return answer.data[0]


def file(colour: tuple[int, ...]) -> bytes:
    content = io.BytesIO()
    Image.new("RGBA", (64, 64), colour).save(content, "PNG")
    return content.getvalue()


def test_both_kinds_of_models_are_listed(client: OpenAI) -> None:
    assert {each.id for each in client.models.list()} == {PICTURES, WORDS}


def test_a_picture_in_the_answer_is_the_one_at_the_url(client: OpenAI, served: Served) -> None:
    sent = base64.b64decode(made(client).b64_json)
    kept = httpx2.get(made(client, response_format="url").url)
    assert Image.open(io.BytesIO(sent)).size == (64, 64)
    assert kept.headers["content-type"] == "image/png" and kept.content == sent


def test_a_picture_of_no_size_has_the_one_the_model_is_for(client: OpenAI) -> None:
    answer = client.images.generate(model=PICTURES, prompt="a red apple", extra_body={"steps": 1})
    assert picture(answer.data[0].b64_json).size == (SIZE, SIZE)  # type: ignore[index]


def test_a_masked_edit_keeps_what_is_not_painted(client: OpenAI) -> None:
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (32, 0, 64, 64))
    content = io.BytesIO()
    mask.save(content, "PNG")
    answer = client.images.edit(
        model=PICTURES,
        image=("a.png", file((0, 0, 255, 255))),
        mask=("m.png", content.getvalue()),
        prompt="a red apple",
        extra_body={"steps": 2, "seed": 1},
    )
    edited = picture((answer.data or [])[0].b64_json).convert("RGB")
    assert edited.getpixel((8, 32)) == (0, 0, 255) and edited.getpixel((56, 32)) != (0, 0, 255)


def test_a_streamed_answer_is_the_whole_one(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": WORDS, "messages": HELLO, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content and text
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens  # type: ignore[union-attr]


def test_a_tool_that_must_be_called_is_called_with_arguments_of_its_schema(client: OpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
    answer = client.chat.completions.create(
        model=WORDS, messages=HELLO, tools=[tool], tool_choice={"type": "function", "function": {"name": "weather"}}
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert answer.choices[0].finish_reason == "tool_calls"
    assert json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")  # type: ignore[union-attr]


def test_an_answer_obeys_its_json_schema(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=WORDS,
        messages=HELLO,
        response_format={"type": "json_schema", "json_schema": {"name": "place", "schema": CITY}},
    )
    assert json.loads(answer.choices[0].message.content or "")["city"] in ("Oslo", "Rome")


def test_a_completion_that_cannot_be_made_says_why(client: OpenAI) -> None:
    for asked, why in (({"prompt": "a", "suffix": "b"}, "fill"), ({"prompt": ["a", "hello " * 4000]}, "context")):
        with pytest.raises(BadRequestError, match=why):
            client.completions.create(model=WORDS, max_tokens=2, **asked)


def test_a_biased_token_is_the_one_that_is_taken(client: OpenAI) -> None:
    asked: Any = {"model": WORDS, "prompt": "hello", "max_tokens": 4, "temperature": 0}
    usual = client.completions.create(**asked).choices[0].text
    biased = client.completions.create(**asked, logit_bias={"280": 100}).choices[0].text
    assert biased != usual and biased == 4 * biased[: len(biased) // 4]


def test_a_model_that_talks_embeds_where_none_is_named(served: Served) -> None:
    answer = served.ask("POST", "/v1/embeddings", {"input": "hello"})
    assert answer.status_code == 200 and answer.json()["model"] == WORDS


def test_embeddings_are_of_each_text_and_of_length_one(client: OpenAI) -> None:
    answer = client.embeddings.create(model=WORDS, input=["hello", "the end"])
    first, second = (each.embedding for each in answer.data)
    assert sum(x * x for x in first) == pytest.approx(1, abs=1e-3) and first != second


def test_events_tell_steps_and_the_end(served: Served) -> None:
    job = served.submit(seed=2, steps=4)
    told = events(served, job["id"])
    assert told[-1]["state"] == "finished"
    steps = [event["step"] for event in told if event["stage"] == "denoise"]
    assert steps == sorted(steps) and steps[-1] == 4
    assert job["id"] in [each["id"] for each in served.ask("GET", "/api/jobs").json()["jobs"]]


def events(served: Served, job_id: str) -> list[dict[str, Any]]:
    text = served.ask("GET", f"/api/jobs/{job_id}/events").text
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: {")]


def test_a_cancelled_job_stops_and_the_next_is_made(served: Served) -> None:
    job = served.submit(seed=3, steps=900)
    until_step(served, job["id"], 1)
    assert served.ask("POST", f"/api/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert served.ended(served.submit(seed=3)["id"])["state"] == "finished"


def until_step(served: Served, job_id: str, step: int) -> None:
    with httpx2.stream("GET", f"{served.url}/api/jobs/{job_id}/events", timeout=120) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                event = json.loads(line.removeprefix("data: "))
                if event["stage"] == "denoise" and event["step"] >= step:
                    return
    raise AssertionError("the job ended before")


def test_an_idempotency_key_gives_the_same_job(served: Served) -> None:
    first, again, other = (served.submit(seed=4, Idempotency_Key=key)["id"] for key in ("a", "a", "b"))
    assert first == again != other
    refused = served.ask("POST", "/api/jobs", {"request": {"prompt": "another"}}, Idempotency_Key="a")
    assert refused.status_code in (409, 422)


def test_what_is_no_model_or_no_sampler_is_refused_at_once(served: Served) -> None:
    for model in ("../../etc/passwd", "/etc/passwd", "nothing"):
        assert served.ask("POST", "/api/jobs", {"model": model, "request": {"prompt": "x"}}).status_code == 404
    wrong = {"model": PICTURES, "request": {"prompt": "x", "sampler": "nonsense"}}
    assert served.ask("POST", "/api/jobs", wrong).status_code == 400
    answer = served.ask("POST", "/api/jobs", {"model": PICTURES, "request": {"prompt": "x", "stepps": 2}})
    assert "did you mean steps" in answer.json()["error"]["message"]


def test_a_job_that_cannot_be_made_fails_with_its_cause(served: Served) -> None:
    body = {"model": PICTURES, "request": {"prompt": "x", "width": 65, "height": 64}}
    failed = served.ended(served.ask("POST", "/api/jobs", body).json()["id"])
    assert failed["state"] == "failed" and failed["error"]["code"] == "invalid_request"
    assert "65" in failed["error"]["message"]


def test_health_is_real_work_and_readiness_is_told(served: Served) -> None:
    assert served.ask("GET", "/healthz").json()["checks"][0]["ok"] is True
    assert served.ask("GET", "/readyz").status_code == 200


def test_ps_and_jobs_tell_what_is_loaded_and_what_became_of_each(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    served.ended(served.submit(seed=31)["id"])
    wrong = {"model": PICTURES, "request": {"prompt": "x", "width": 65, "height": 64}}
    failed = served.ended(served.ask("POST", "/api/jobs", wrong).json()["id"])
    asked = Namespace(url=served.url, json=False, limit=2)
    show_devices(asked)
    show_jobs(asked)
    said = capsys.readouterr().out.splitlines()
    assert any(line.startswith("loaded: ") and PICTURES in line for line in said)
    assert said[-2].startswith(f"{failed['id']}  failed") and "multiples" in said[-2]
    assert "finished" in said[-1]


def test_plans_are_of_pictures_and_of_conversations(served: Served) -> None:
    pictures = served.ask("POST", "/api/plan", {"model": PICTURES, "width": 64, "height": 64})
    assert pictures.status_code == 200 and pictures.json()["width"] == 64
    words = served.ask("POST", "/api/plan", {"model": WORDS, "context": 512}).json()["language_model"]
    assert words["context"] == 512 and words["file"] == f"{WORDS}.gguf"
    assert words["n_gpu_layers"] == 0 and words["cpu_bytes"] > 0 and words["tokens_per_s"] > 0


def test_metrics_tell_stages_bytes_cache_and_tokens(served: Served, client: OpenAI) -> None:
    for _ in range(2):
        made(client)
    client.chat.completions.create(model=WORDS, messages=HELLO, max_tokens=2)
    lines = served.ask("GET", "/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    for stage in ("encode", "denoise", "decode"):
        assert float(values[f'relight_stage_seconds_total{{model="{PICTURES}",stage="{stage}"}}']) > 0
    assert float(values['relight_device_peak_bytes{device="ggml-cpu"}']) > 0
    assert float(values['relight_prompt_cache_total{found="yes"}']) > 0
    assert float(values[f'relight_tokens_total{{kind="written",model="{WORDS}"}}']) >= 2


def test_limits_are_the_settings_and_an_order_to_stop_loses_no_job(tmp_path: Path) -> None:
    settings = {"RELIGHT_SERVER_MAX_PIXELS": "4096", "RELIGHT_SERVER_MAX_BODY": "1MB"}
    with Served(tmp_path, environment=settings) as served:
        large = {"model": PICTURES, "request": {"prompt": "x", "width": 80, "height": 64}}
        assert served.ask("POST", "/api/jobs", large).status_code == 400
        long = {"model": PICTURES, "request": {"prompt": "x" * 1_100_000}}
        assert served.ask("POST", "/api/jobs", long).status_code == 413
        with served.client() as client, pytest.raises(APIStatusError, match="2097152"):
            client.images.edit(model=PICTURES, image=("a.png", bytes(2_200_000)), prompt="x")
        done, running = served.submit(seed=1), served.submit(seed=2, steps=4)
        until_step(served, running["id"], 1)
        assert served.end() == 0, served.log()
        served.start()
        assert served.ended(running["id"])["state"] == "finished"
        listed = {each["id"]: each["state"] for each in served.ask("GET", "/api/jobs").json()["jobs"]}
        assert listed == {done["id"]: "finished", running["id"]: "finished"}


def test_a_picture_that_a_kill_broke_off_is_made_once_and_the_same(served: Served, tmp_path: Path) -> None:
    unkilled = served.picture(served.ended(served.submit(seed=9, steps=8)["id"]))
    with Served(tmp_path) as killed:
        job = killed.submit(seed=9, steps=8, Idempotency_Key="k")
        until_step(killed, job["id"], 2)
        workers = killed.workers()
        killed.kill()
        assert psutil.wait_procs(workers, timeout=30)[1] == [], "workers outlive their server"
        killed.start()
        assert killed.submit(seed=9, steps=8, Idempotency_Key="k")["id"] == job["id"]
        done = killed.ended(job["id"])
        assert done["attempt"] == 2 and len(done["results"]) == 1
        assert killed.picture(done) == unkilled


def test_a_worker_that_dies_is_replaced_and_the_picture_is_the_same(served: Served) -> None:
    unkilled = served.picture(served.ended(served.submit(seed=5, steps=6)["id"]))
    job = served.submit(seed=5, steps=6)
    until_step(served, job["id"], 2)
    for worker in served.workers():
        worker.kill()
    begun = time.monotonic()
    done = served.ended(job["id"])
    assert served.picture(done) == unkilled and done["attempt"] == 2
    assert time.monotonic() - begun < 60


def test_an_idle_model_is_taken_from_memory_and_one_in_use_is_not(served: Served) -> None:
    def loaded() -> bool:
        (card,) = [each for each in served.ask("GET", "/v1/models").json()["data"] if each["id"] == PICTURES]
        return bool(card["loaded"])

    job = served.submit(seed=6, steps=900)
    until_step(served, job["id"], 1)
    assert loaded() and served.ask("POST", "/api/unload", {"model": PICTURES}).status_code == 409
    served.ask("POST", f"/api/jobs/{job['id']}/cancel")
    while served.ask("POST", "/api/unload", {"model": PICTURES}).status_code == 409:
        continue  # its last step
    assert not loaded() and served.workers() == []
    assert served.ask("POST", "/api/unload", {"model": "nothing"}).status_code == 404
    assert served.ended(served.submit(seed=6)["id"])["state"] == "finished"
