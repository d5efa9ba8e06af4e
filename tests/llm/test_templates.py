"""Chat templates of the common families, and templates that mean harm."""

from __future__ import annotations

from typing import Any

import pytest

from relight.errors import ModelFileError, RequestError
from relight.llm import sandbox, templates
from relight.llm.templates import CHATML, ChatTemplate

LLAMA3 = (
    "{% for m in messages %}{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
MISTRAL = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}{%- set rest = messages[1:] %}"
    "{%- else %}{%- set rest = messages %}{%- endif %}{{- bos_token }}{%- for m in rest %}"
    "{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('roles must alternate') }}{%- endif %}"
    "{%- if m['role'] == 'user' %}{%- if loop.last and system is defined %}"
    "{{- '[INST] ' + system + '\n\n' + m['content'] + '[/INST]' }}{%- else %}"
    "{{- '[INST] ' + m['content'] + '[/INST]' }}"
    "{%- endif %}{%- else %}{{- ' ' + m['content'] + eos_token }}{%- endif %}{%- endfor %}"
)
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{% set role = 'model' %}"
    "{% else %}{% set role = m['role'] %}"
    "{% endif %}{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
TOOLS = "{% for t in tools %}{{ t | tojson }}{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}"
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": [{"type": "text", "text": "Go "}, {"type": "text", "text": "on"}]},
]


def rendered(source: str, messages: list[dict[str, Any]] = TALK, **values: Any) -> str:
    return ChatTemplate(source, bos="<s>", eos="</s>").render(messages, **values)


def test_llama_3() -> None:
    assert rendered(LLAMA3) == (
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nYes?<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nGo on<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_chatml() -> None:
    assert rendered(CHATML, TALK[1:2]) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_mistral() -> None:
    assert rendered(MISTRAL) == "<s>[INST] Hi[/INST] Yes?</s>[INST] Be brief.\n\nGo on[/INST]"


def test_gemma_gets_the_system_message_within_the_first_of_the_user() -> None:
    assert rendered(GEMMA) == (
        "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nYes?<end_of_turn>\n"
        "<start_of_turn>user\nGo on<end_of_turn>\n<start_of_turn>model\n"
    )


def test_a_refusal_of_the_template_is_told_in_its_words() -> None:
    with pytest.raises(RequestError, match="roles must alternate"):
        rendered(MISTRAL, [{"role": "assistant", "content": "x"}])


def test_tools_are_written_as_json_without_escapes_for_html() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "a < b & 'c' é"}}
    assert "a < b & 'c' é" in rendered(TOOLS, TALK[1:2], tools=[tool])


def test_arguments_of_earlier_calls_come_as_objects() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    source = "{{ messages[0].tool_calls[0].function.arguments | tojson }}"
    assert rendered(source, [{"role": "assistant", "content": None, "tool_calls": [call]}]) == '{"x": 1}'


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ ('a' * 1000000) * 1000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'a'.ljust(1000000000) }}",
        "{% for i in range(10000000) %}x{% endfor %}",
        "{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{% set f = raise_exception.__globals__ %}{{ f.x }}",
        "{{ 1 / 0 }}",
        "{{ missing.attribute.of.nothing }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_what_a_template_must_not_do_is_an_error_in_words(source: str) -> None:
    with pytest.raises(RequestError, match="chat template"):
        rendered(source)


@pytest.mark.parametrize("source", ["{% if %}", "{{", "{% for x in %}", "{{ x | center(9) }}", "(" * 3 + "{{ ((((( }}"])
def test_a_template_that_cannot_be_read_is_the_models_fault(source: str) -> None:
    with pytest.raises(ModelFileError, match="cannot be read"):
        ChatTemplate(source)


def test_a_template_without_an_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "DEADLINE_S", 0.2)
    forever = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(RequestError, match="without an end"):
        rendered(forever)


def test_output_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MAX_TEXT", 1000)
    with pytest.raises(RequestError, match="more than 1000 characters"):
        rendered("{% for i in range(9999) %}{{ 'ab' }}{% endfor %}")


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "there is none"),
        ([{"role": "king", "content": "x"}], r"messages\[0\]: role 'king'"),
        ([{"role": "user", "content": 5}], "neither text nor a list"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "this model reads text"),
        (["text"], r"messages\[0\]"),
    ],
)
def test_messages_of_another_shape_are_refused_in_words(messages: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        rendered(CHATML, messages)


DOUBLED = "{% set n = namespace(x='abcdefgh') %}{% for i in range(60) %}{% set n.x = EXPRESSION %}{% endfor %}{{ n.x }}"


@pytest.mark.parametrize(
    "expression",
    [
        "n.x ~ n.x",
        "n.x + n.x",
        "n.x * 2",
        "[n.x, n.x] | join(n.x)",
        "n.x.join([n.x, n.x])",
        "n.x | replace('a', n.x)",
        "n.x.replace('a', n.x)",
        "(n.x, n.x) | tojson",
        "n.x | indent(99) ~ n.x",
    ],
)
def test_a_text_doubled_sixty_times_is_stopped_before_it_is_large(expression: str) -> None:
    with pytest.raises(RequestError, match="characters"):
        rendered(DOUBLED.replace("EXPRESSION", expression))


@pytest.mark.parametrize(
    "source",
    [
        "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}"
        "{% set n.x = y %}{% endfor %}",
        "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}{% set n = namespace(x='ab') %}"
        "{% for i in range(60) %}{% set n.x = f(n.x) %}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    ],
)
def test_blocks_macros_and_lists_are_bounded_too(source: str) -> None:
    with pytest.raises(RequestError, match="characters"):
        rendered(source)


def test_what_templates_usually_do_with_text_works() -> None:
    source = (
        "{{ 'a' ~ 1 ~ none }}{{ 'a,b'.split(',') | join('-') }}{{ 'x y'.replace(' ', '_') | replace('x', 'z') }}"
        "{{ '=' * 3 }}{{ 'a\nb' | indent(2) }}{{ ', '.join(['p', 'q']) }}{{ 7 % 4 }}{{ ' s '.strip() }}{{ 1 + 1 }}"
        "{{ (messages | selectattr('role', 'equalto', 'user') | list)[0].content | upper }}"
        "{{ {'k': 1} | tojson(indent=1) }}"
    )
    assert rendered(source) == 'a1Nonea-bz_y===a\n  bp, q3s2HI{\n "k": 1\n}'
