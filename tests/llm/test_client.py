"""Answers of a small random model through its process: streams, seeds, slots, memory, ends."""

from __future__ import annotations

import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from asking import GREEDY, NO_END, SETTINGS, chat, completion, user, whole
from tiny_model import write_bert, write_model

from relight.errors import ConfigError, ModelFileError, RequestError, WorkerLost
from relight.llm.asks import ChatAsk, CompletionAsk, EmbedAsk, Limits, LoadSettings, Sampling, StateBudget
from relight.llm.client import Llm

PROMPTS = ("hello the", "and so on", "1 2 3 4", "true or false")


def test_pieces_put_together_are_the_whole_answer(shared: Llm) -> None:
    streamed = whole(shared.chat(chat("hello", max_tokens=30)))
    again = whole(shared.chat(chat("hello", max_tokens=30)))
    assert (streamed.text, streamed.finish) == (again.text, again.finish)
    assert len(streamed.pieces) > 5
    assert streamed.usage.completion_tokens <= 30


def test_a_seed_gives_the_same_answer_and_another_seed_another(shared: Llm) -> None:
    def answer(seed: int) -> str:
        return whole(shared.complete(completion("the", Sampling(temperature=1.5, seed=seed, logit_bias=NO_END)))).text

    assert answer(5) == answer(5) != answer(6)


def test_four_slots_at_once_say_what_each_says_alone(own: Llm) -> None:
    sampling = Sampling(temperature=0, logit_bias=NO_END)
    asks = [completion(prompt, sampling, max_tokens=40) for prompt in PROMPTS]
    alone = [whole(own.complete(ask)).text for ask in asks]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda ask: whole(own.complete(ask)).text, asks))
    assert together == alone


def test_more_asks_than_slots_all_end(shared: Llm) -> None:
    with ThreadPoolExecutor(10) as pool:
        ends = list(pool.map(lambda n: whole(shared.complete(completion(f"{n} the"))).finish, range(10)))
    assert ends == ["length"] * 10


def test_a_follow_up_reads_only_what_is_new(own: Llm) -> None:
    first = whole(own.complete(completion("hello and the " * 20, max_tokens=8)))
    before = own.stats()
    again = whole(own.complete(completion("hello and the " * 20 + "more", max_tokens=8)))
    after = own.stats()
    assert first.usage.reused_tokens == 0
    assert again.usage.reused_tokens >= first.usage.prompt_tokens - 1
    assert after.prompt_tokens - before.prompt_tokens == again.usage.prompt_tokens - again.usage.reused_tokens < 12


def test_a_kept_conversation_goes_on_after_a_swap_without_reading_its_prompt(tmp_path: Path, model: Path) -> None:
    other = write_model(tmp_path / "other.gguf", seed=3)
    settings = replace(SETTINGS, slots=1, states=StateBudget(folder=str(tmp_path / "kept"), min_tokens=4))
    ask = completion("hello the and " * 30, max_tokens=12, logprobs=0)
    with Llm() as llm:
        llm.load(model, settings)
        expected = whole(llm.complete(ask)).text
        llm.load(other, settings)
        whole(llm.complete(completion("and", max_tokens=2)))
        llm.load(model, settings)
        after_swap = whole(llm.complete(ask))
        llm.save()
    with Llm() as llm:
        llm.load(model, settings)
        after_restart = whole(llm.complete(ask))
        evaluated = llm.stats().prompt_tokens
    assert after_swap.text == after_restart.text == expected
    assert after_swap.usage.reused_tokens == after_restart.usage.reused_tokens == expected_reuse(after_swap)
    assert evaluated == 1  # the last token of the prompt: the answer begins from its logits


def expected_reuse(answer: object) -> int:
    return answer.usage.prompt_tokens - 1  # type: ignore[attr-defined]


def test_a_slot_taken_by_another_conversation_keeps_the_first(model: Path) -> None:
    settings = replace(SETTINGS, slots=1, states=StateBudget(ram_bytes=1 << 20, min_tokens=4))
    with Llm() as llm:
        llm.load(model, settings)
        long = completion("hello the and " * 20, max_tokens=4)
        first = whole(llm.complete(long))
        whole(llm.complete(completion("1234567890" * 5, max_tokens=4)))
        assert llm.stats().states == 1
        again = whole(llm.complete(long))
    assert again.text == first.text
    assert again.usage.reused_tokens == first.usage.prompt_tokens - 1


def test_no_budget_keeps_nothing(own: Llm) -> None:
    whole(own.complete(completion("hello the and " * 20)))
    assert own.save() == 0


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_stop_string_ends_the_answer_and_is_not_in_it(shared: Llm, length: int) -> None:
    text = whole(shared.complete(completion("the", max_tokens=40))).text
    stop = text[6 : 6 + length]
    stopped = whole(shared.complete(completion("the", max_tokens=40, stop=(stop,))))
    assert (stopped.text, stopped.finish) == (text.split(stop)[0], "stop")


SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["cat", "dog"]},
        "old": {"type": "boolean"},
        "name": {"type": "string", "maxLength": 6},
        "legs": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["kind", "old", "name", "legs"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(5))
def test_a_schema_makes_a_random_model_write_valid_json(shared: Llm, seed: int) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "pet", "schema": SCHEMA}}
    sampling = Sampling(temperature=2, seed=seed, top_k=0, top_p=1, min_p=0)
    ask = ChatAsk(messages=(user("a pet"),), response_format=form, sampling=sampling, limits=Limits(max_tokens=300))
    pet = json.loads(whole(shared.chat(ask)).text)
    assert set(pet) == set(SCHEMA["required"])
    assert pet["kind"] in ("cat", "dog")
    assert isinstance(pet["old"], bool)
    assert len(pet["name"]) <= 6
    assert 0 <= pet["legs"] <= 99


def test_a_required_tool_is_called(shared: Llm) -> None:
    parameters = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
    tools = ({"type": "function", "function": {"name": "lamp", "parameters": parameters}},)
    ask = ChatAsk(messages=(user("light"),), tools=tools, tool_choice="required", limits=Limits(max_tokens=200))
    got = whole(shared.chat(ask))
    assert (got.text, got.finish, [call.name for call in got.calls]) == ("", "tool_calls", ["lamp"])
    assert isinstance(json.loads(got.calls[0].arguments)["on"], bool)


def test_the_number_of_logprobs_asked_for_comes_with_every_token(shared: Llm) -> None:
    got = whole(shared.complete(completion("the", max_tokens=10, logprobs=3)))
    told = [each for piece in got.pieces for each in piece.logprobs]
    assert len(told) == got.usage.completion_tokens == 10
    for each in told:
        values = [logprob for _, _, logprob in each.top]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert each.logprob <= values[0] + 1e-6 <= 1e-6
    assert b"".join(bytes(each.raw) for each in told).decode(errors="replace") == got.text


def test_cancel_ends_an_answer_within_a_token(own: Llm) -> None:
    endless = CompletionAsk(prompt="the", sampling=Sampling(temperature=0, logit_bias=NO_END), limits=Limits())
    answer = own.complete(endless)
    next(answer)
    answer.cancel()
    rest = whole(answer)
    assert rest.finish == "cancelled"
    assert rest.usage.completion_tokens < 900
    assert own.stats().running == 0
    assert whole(own.complete(completion("the"))).finish == "length"


def test_an_answer_nobody_listens_to_any_more_is_cancelled(own: Llm) -> None:
    answer = own.complete(CompletionAsk(prompt="the", sampling=Sampling(logit_bias=NO_END)))
    next(answer)
    answer.close()
    whole(own.complete(completion("and")))
    assert own.stats().running == 0


def test_an_answer_closed_before_its_first_piece_is_cancelled(own: Llm) -> None:
    own.complete(CompletionAsk(prompt="the", sampling=Sampling(logit_bias=NO_END))).close()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda prompt: whole(own.complete(completion(prompt))), PROMPTS))
    assert own.stats().running == 0


def test_cancelling_one_does_not_change_another(own: Llm) -> None:
    expected = whole(own.complete(completion("hello the", max_tokens=60))).text
    other = own.complete(CompletionAsk(prompt="1 2 3", sampling=Sampling(logit_bias=NO_END)))
    next(other)
    answer = own.complete(completion("hello the", max_tokens=60))
    first = next(answer)
    other.cancel()
    assert first.text + whole(answer).text == expected


def test_a_killed_process_is_told_in_words_and_started_again(own: Llm) -> None:
    expected = whole(own.complete(completion("the"))).text
    answer = own.complete(CompletionAsk(prompt="the", sampling=Sampling(logit_bias=NO_END)))
    next(answer)
    own.kill()
    with pytest.raises(WorkerLost, match="language model's process ended during complete"):
        whole(answer)
    assert not own.alive
    assert whole(own.complete(completion("the"))).text == expected
    assert own.restarts == 1


@pytest.mark.skipif(os.name == "nt", reason="SIGSTOP")
def test_a_process_that_hangs_is_ended_and_started_again(model: Path) -> None:
    with Llm(hang_s=0.5) as llm:
        llm.load(model, SETTINGS)
        expected = whole(llm.complete(completion("the"))).text
        answers = [llm.complete(CompletionAsk(prompt="the", sampling=Sampling(logit_bias=NO_END))) for _ in range(2)]
        for answer in answers:
            next(answer)
        assert llm.pid is not None
        os.kill(llm.pid, signal.SIGSTOP)
        for answer in answers:
            with pytest.raises(WorkerLost, match=r"gave no sign for .* during complete .*\(its process was stopped\)"):
                whole(answer)
        assert whole(llm.complete(completion("the"))).text == expected
        assert llm.restarts == 1


@pytest.mark.skipif(os.name == "nt", reason="SIGSTOP")
def test_silence_is_no_hang_while_nobody_waits(model: Path) -> None:
    with Llm(hang_s=0.5) as llm:
        llm.load(model, SETTINGS)
        whole(llm.complete(completion("the")))
        stopped = psutil.Process(llm.pid)
        stopped.suspend()
        threading.Event().wait(1.5)
        stopped.resume()
        assert llm.alive


def test_several_asks_of_a_killed_process_restart_it_once(own: Llm) -> None:
    own.kill()
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda prompt: whole(own.complete(completion(prompt))).finish, PROMPTS))
    assert (ends, own.restarts) == (["length"] * 4, 1)


def test_embeddings_have_length_one_and_tell_texts_apart(shared: Llm) -> None:
    vectors, tokens = shared.embed(EmbedAsk(texts=("hello the", "and", "hello the", (1, 2, 3))))
    assert vectors.shape == (4, 64)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors[0], vectors[2], atol=1e-6)
    assert not np.allclose(vectors[0], vectors[1], atol=1e-2)
    assert tokens == 2 * shared.count("hello the") + shared.count("and") + 3


def test_shorter_embeddings_are_their_beginning_at_length_one(shared: Llm) -> None:
    (whole_vector,), _ = shared.embed(EmbedAsk(texts=("the",)))
    (short,), _ = shared.embed(EmbedAsk(texts=("the",), dimensions=8))
    assert np.allclose(short, whole_vector[:8] / np.linalg.norm(whole_vector[:8]), atol=1e-6)


def test_a_model_made_for_embeddings_makes_them_and_writes_no_text(tmp_path: Path) -> None:
    bert = write_bert(tmp_path / "bert.gguf")
    with Llm() as llm:
        loaded = llm.load(bert, replace(SETTINGS, context=64))
        vectors, tokens = llm.embed(EmbedAsk(texts=("hello the", "and", "hello the")))
        with pytest.raises(RequestError, match="makes embeddings and writes no text"):
            whole(llm.complete(completion("hello")))
        with pytest.raises(RequestError, match="1 to 64"):
            llm.embed(EmbedAsk(texts=("the " * 200,)))
    assert (loaded.can, tokens) == (("embeddings",), 4 + 3 + 4)  # [CLS] and [SEP] around each
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors[0], vectors[2], atol=1e-6)
    assert not np.allclose(vectors[0], vectors[1], atol=1e-2)


def test_embeddings_are_made_while_an_answer_streams(own: Llm) -> None:
    answer = own.complete(completion("the", max_tokens=400))
    next(answer)
    vectors, _ = own.embed(EmbedAsk(texts=("hello",) * 5))
    assert (len(vectors), whole(answer).finish) == (5, "length")


@pytest.mark.parametrize("cache", ["q8_0", "q4_0"])
def test_smaller_cache_types_answer(model: Path, cache: str) -> None:
    small = write_model(model.with_name(f"wide-{cache}.gguf"), width=128, heads=2)
    with Llm() as llm:
        llm.load(small, replace(SETTINGS, cache_k=cache, cache_v=cache))
        assert whole(llm.complete(completion("hello the"))).finish == "length"


def test_the_context_ends_an_answer(model: Path) -> None:
    with Llm() as llm:
        loaded = llm.load(model, replace(SETTINGS, context=256, slots=1))
        got = whole(llm.complete(CompletionAsk(prompt="the", sampling=Sampling(temperature=0, logit_bias=NO_END))))
    assert (got.finish, got.usage.prompt_tokens + got.usage.completion_tokens) == ("length", loaded.context + 1)


def test_a_prompt_longer_than_the_context_is_refused_with_numbers(shared: Llm) -> None:
    with pytest.raises(RequestError, match="and the context has 1024"):
        whole(shared.complete(completion("x" * 3000)))


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (CompletionAsk(prompt=""), "the prompt is empty"),
        (CompletionAsk(prompt=(1, 10**6)), "names token 1000000"),
        (CompletionAsk(prompt="a", suffix="b"), "cannot fill in"),
        (CompletionAsk(prompt="a", grammar="root ::= ("), "grammar cannot be read"),
        (CompletionAsk(prompt="a", grammar="root ::= a\na ::= a"), "grammar cannot be read"),
        (CompletionAsk(prompt="a", sampling=Sampling(logit_bias={10**6: 1})), "logit_bias names token"),
        (CompletionAsk(prompt="a", response_format={"type": "xml"}), "json_schema"),
    ],
)
def test_what_cannot_be_done_is_said_in_words_and_the_process_lives(
    shared: Llm, ask: CompletionAsk, words: str
) -> None:
    pid = shared.pid
    with pytest.raises(RequestError, match=words):
        whole(shared.complete(ask))
    assert whole(shared.complete(completion("the", max_tokens=2))).finish == "length"
    assert shared.pid == pid


def test_nothing_loaded_is_said_in_words(model: Path) -> None:
    with Llm() as llm, pytest.raises(RequestError, match="no language model is loaded"):
        llm.complete(completion("a"))


def test_unload_gives_the_memory_back_and_load_brings_it_again(own: Llm, model: Path) -> None:
    expected = whole(own.complete(completion("the"))).text
    own.unload()
    with pytest.raises(RequestError, match="no language model is loaded"):
        own.complete(completion("the"))
    own.load(model, SETTINGS)
    assert whole(own.complete(completion("the"))).text == expected


def test_loading_tells_how_far_it_is(model: Path) -> None:
    told: list[tuple[int, int]] = []
    with Llm() as llm:
        loaded = llm.load(model, SETTINGS, on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (100, 100)
    assert (loaded.name, loaded.architecture, loaded.layers, loaded.context) == ("tiny", "llama", 2, 1024)
    assert {"chat", "completion", "embeddings"} <= set(loaded.can)
    assert loaded.seconds < 1


@pytest.mark.parametrize("device", ["potato", "vulkan99"])
def test_a_device_that_is_none_is_refused(model: Path, device: str) -> None:
    with Llm() as llm, pytest.raises(ConfigError, match="GPUs here"):
        llm.load(model, replace(SETTINGS, n_gpu_layers=1, device=device))


def test_without_a_gpu_all_layers_are_on_the_cpu(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGML_VK_VISIBLE_DEVICES", "99")
    with Llm() as llm:
        assert llm.load(model, replace(SETTINGS, n_gpu_layers=-1)).gpu_layers == 0
        assert whole(llm.complete(completion("the"))).finish == "length"


def test_a_broken_file_is_named_and_what_was_asked_next_works(tmp_path: Path, model: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model.read_bytes()[:5000])
    with Llm() as llm:
        with pytest.raises(ModelFileError, match=r"broken\.gguf"):
            llm.load(broken, SETTINGS)
        llm.load(model, SETTINGS)
        assert whole(llm.chat(chat("hello"))).pieces


def test_a_bad_template_is_the_files_fault(tmp_path: Path) -> None:
    bad = write_model(tmp_path / "bad.gguf", template="{% if %}")
    with Llm() as llm, pytest.raises(ModelFileError, match="chat template cannot be read"):
        llm.load(bad, SETTINGS)


def test_a_hostile_template_costs_a_request_and_not_the_process(tmp_path: Path) -> None:
    hostile = write_model(tmp_path / "hostile.gguf", template="{{ ''.__class__.__mro__ }}{{ 'a' * 10**12 }}")
    with Llm() as llm:
        llm.load(hostile, SETTINGS)
        with pytest.raises(RequestError, match="chat template"):
            whole(llm.chat(chat("hello")))
        assert whole(llm.complete(completion("the"))).finish == "length"


def test_answers_from_several_threads_do_not_mix(shared: Llm) -> None:
    expected = {prompt: whole(shared.complete(completion(prompt))).text for prompt in PROMPTS}
    wrong: list[str] = []

    def ask(prompt: str) -> None:
        answers = [whole(shared.complete(completion(prompt))).text for _ in range(3)]
        wrong.extend(text for text in answers if text != expected[prompt])

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in PROMPTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sampling(temperature=float("nan")),
        lambda: Sampling(top_p=2),
        lambda: Limits(max_tokens=0),
        lambda: Limits(stop=("",)),
        lambda: LoadSettings(slots=0),
        lambda: LoadSettings(cache_v="q8_0", flash_attention=False),
    ],
)
def test_numbers_out_of_range_are_refused(make: object) -> None:
    with pytest.raises(RequestError):
        make()  # type: ignore[operator]


def test_greedy_takes_the_likeliest(shared: Llm) -> None:
    got = whole(shared.complete(completion("the", GREEDY, max_tokens=5, logprobs=1)))
    told = [each for piece in got.pieces for each in piece.logprobs]
    assert all(each.raw == each.top[0][1] for each in told)


def test_every_sampler_at_once_keeps_to_the_seed(shared: Llm) -> None:
    how = Sampling(
        temperature=0.9,
        top_k=20,
        top_p=0.9,
        min_p=0.02,
        typical_p=0.9,
        repeat_penalty=1.1,
        presence_penalty=0.2,
        seed=4,
    )
    first, second = (whole(shared.complete(completion("the", how))).text for _ in range(2))
    assert first == second


@pytest.mark.parametrize("field", ["repeat_penalty", "presence_penalty", "frequency_penalty"])
def test_penalties_change_an_answer_that_repeats_itself(shared: Llm, field: str) -> None:
    plain = whole(shared.complete(completion("the", max_tokens=60))).text
    value = 1.8 if field == "repeat_penalty" else 2.0
    penal = Sampling(temperature=0, logit_bias=NO_END, **{field: value})  # type: ignore[arg-type]
    assert whole(shared.complete(completion("the", penal, max_tokens=60))).text != plain
