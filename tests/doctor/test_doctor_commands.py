"""relight doctor as a user types it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from doctor import machines
from doctor.boxes import Box, flux
from relight.doctor import commands, verify
from relight.doctor.finding import Finding, ok
from relight.doctor.machine import Machine
from relight.errors import ConfigError, RequestError


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    box = machines.rx580_on_x79(tmp_path)
    monkeypatch.setattr(commands, "this_machine", lambda names, config: box.machine(flux()))
    return box


def run(*words: str) -> None:
    parser = argparse.ArgumentParser()
    commands.add_commands(parser.add_subparsers(required=True), argparse.ArgumentParser(add_help=False))
    arguments = parser.parse_args(["doctor", *words])
    arguments.run(arguments)


def test_one_line_a_finding_and_status_1_when_something_fails(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run()
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 1
    assert {line.split()[0] for line in lines[:-1]} == {"ok", "warn", "fail"}
    (bar,) = [line for line in lines if line.startswith("warn  bar ")]
    assert bar.endswith("reachable by the processor [keep ggml from the window]")
    assert lines[-1].endswith("--fix-hints says why and what to type")


def test_hints_have_the_command_and_the_way_back(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--fix-hints")
    out = capsys.readouterr().out
    assert "        do:   export GGML_VK_DISABLE_HOST_VISIBLE_VIDMEM=1\n" in out
    assert "        undo: unset GGML_VK_DISABLE_HOST_VISIBLE_VIDMEM\n" in out
    assert "      why:   ggml asks for memory" in out


def test_json_has_everything_and_the_status(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--json")
    printed = json.loads(capsys.readouterr().out)
    assert printed["status"] == 1 and printed["fail"] == 2
    bar = next(each for each in printed["findings"] if each["check"] == "bar")
    assert bar["level"] == "warn" and bar["numbers"] == {"bar_bytes": 256 << 20, "vram_bytes": 8 << 30}
    assert set(bar["remedies"][0]) == {"does", "do", "undo"}


def test_a_sound_machine_ends_with_status_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = machines.rx470_rebar(tmp_path).machine()
    monkeypatch.setattr(commands, "this_machine", lambda names, config: machine)
    run()
    assert capsys.readouterr().out.splitlines()[-1].endswith("0 warn, 0 fail")


def test_verify_takes_the_first_card_or_the_named_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = machines.rx470_rebar(tmp_path).machine()
    monkeypatch.setattr(commands, "this_machine", lambda names, config: machine)
    asked: list[str] = []

    def fake(device: str) -> Iterator[Finding]:
        asked.append(device)
        yield ok("verify", "the same")

    monkeypatch.setattr(verify, "verify", fake)
    run("--verify")
    run("--verify", "--backend", "vulkan7")
    assert asked == ["vulkan0", "vulkan7"]


def test_without_a_card_there_is_nothing_to_verify(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--verify")
    assert "no card to verify" in capsys.readouterr().out


def test_a_device_that_is_none_is_a_wrong_argument() -> None:
    with pytest.raises(ConfigError, match="--backend cpu: name a device"):
        run("--backend", "cpu")


def test_this_machine_is_looked_at_with_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from relight.doctor import machine as whole

    seen: list[Machine] = []
    outside = machines.rx470_rebar(tmp_path / "root").outside()
    monkeypatch.setattr(whole, "Outside", lambda: outside)
    monkeypatch.setenv("RELIGHT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("VK_PIPELINE_CACHE_DIR", "/nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MESA_SHADER_CACHE_DIR", raising=False)
    config = tmp_path / "relight.yaml"
    config.write_text("runtime:\n  io_scheduler: mq-deadline\n")
    seen.append(commands.this_machine([], config))
    assert seen[0].asked.scheduler == "mq-deadline" and seen[0].models == ()
    assert seen[0].environ["VK_PIPELINE_CACHE_DIR"] == "/nowhere"
    assert [cache.path for cache in seen[0].caches] == [str(tmp_path / "relight/pipelines")]
    monkeypatch.setenv("MESA_SHADER_CACHE_DIR", str(tmp_path / "mine"))
    assert [cache.path for cache in commands.this_machine([], config).caches] == [str(tmp_path / "mine")]
    with pytest.raises(RequestError, match="no-such-model"):
        commands.this_machine(["no-such-model"], config)
    config.write_text("runtime:\n  io_schedule: none\n")
    assert "io_schedule" in (commands.this_machine([], config).asked.error or "")
