"""The command line: what is wrong is said in one line, before any worker starts; what is right makes a picture."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest
from PIL import Image

import checkpoints
import making
from relight import cli
from relight.images.infotext import parse_parameters
from relight.jobs import options
from relight.jobs.request import ModelFiles
from relight.workers.link import child_environment
from relight.workers.process import Worker


class Outcome(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line that a refusal is."""
        assert self.err.count("\n") == 1 and self.err.startswith("relight: "), self.err
        assert "unexpected" not in self.err and "Traceback" not in self.err
        return self.err.removeprefix("relight: ").rstrip("\n")


Relight = Callable[..., Outcome]


@pytest.fixture
def relight(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Relight]:
    """Runs a command in this process, in which no worker may start."""

    def started(*arguments: object, **keywords: object) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(os, "_exit", sys.exit)
    monkeypatch.setattr(Worker, "__init__", started)
    monkeypatch.delenv("RELIGHT_PRETEND", raising=False)
    interrupt = signal.getsignal(signal.SIGINT)

    def run(*arguments: object) -> Outcome:
        status = 0
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        return Outcome(status, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGINT, interrupt)


@pytest.fixture
def generate(relight: Relight, tiny_files: ModelFiles, tmp_path: Path) -> Relight:
    """`relight generate` with what is right; arguments given win. Nothing is left behind."""
    folder = tiny_files.of("diffusion")[0].parent

    def run(*arguments: object) -> Outcome:
        before = set(tmp_path.rglob("*"))
        sizes = ("--width", 64, "--height", 64, "--steps", 1, "--seed", 1, "--backend", "ggml-cpu")
        outcome = relight("generate", "a cat", "--model", folder, *sizes, "--out", tmp_path / "cat.png", *arguments)
        assert set(tmp_path.rglob("*")) == before
        return outcome

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("bogus",),
        ("generate",),
        ("generate", "a cat", "--bogus"),
        ("generate", "a cat", "--width"),
        ("generate", "a cat", "--width", "1e9"),
        ("generate", "a cat", "--steps", "four"),
        ("generate", "a cat", "--attention", "none"),
        ("generate", "a", "cat"),
        ("inspect",),
        ("devices", "here"),
    ],
)
def test_wrong_usage_is_one_line_that_names_help_and_status_2(relight: Relight, arguments: tuple[str, ...]) -> None:
    outcome = relight(*arguments)
    assert outcome.status == 2 and "--help lists what there is" in outcome.line and outcome.out == ""


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--width", 100, "100x64 cannot be made; width and height are multiples of 16 from 64 to 4096: .* 96x64"),
        ("--height", 0, "size: 0 pixels; 64 to 4096 can be made"),
        ("--width", -64, "size: -64 pixels"),
        ("--width", 10**30, "pixels; 64 to 4096 can be made"),
        ("--steps", 0, "steps 0: 1 to 1000"),
        ("--steps", -1, "steps -1: 1 to 1000"),
        ("--steps", 10**6, "steps 1000000: 1 to 1000"),
        ("--seed", -1, "seed -1: 0 to"),
        ("--seed", 2**63, f"seed {2**63}: 0 to"),
        ("--batch", 0, "batch 0: 1 to 64"),
        ("--batch", 65, "batch 65: 1 to 64"),
        ("--guidance", "nan", "guidance nan: 0 to 100"),
        ("--guidance", "inf", "guidance inf: 0 to 100"),
        ("--guidance", -1, "guidance -1: 0 to 100"),
        ("--cfg-scale", "nan", "cfg scale nan: 0 to 100"),
        ("--cfg-rescale", 2, "cfg rescale 2: 0 to 1"),
        ("--clip-skip", 0, "clip skip 0: 1 to 12"),
        ("--sigmas", "1,x", "--sigmas 1,x: give numbers with commas"),
        ("--sigmas", "", "--sigmas : give numbers with commas"),
        ("--sigmas", "1,nan", "number 2 is nan"),
        ("--sigmas", "0.5,0.7", "number 2, 0.7, is not smaller than 0.5"),
        ("--sigmas", "2,1", "number 1 is 2, and a flow model takes 1 to 0"),
        ("--sampler", "dpm", "sampler: 'dpm' is not one of euler, .*; did you mean dpm_2"),
        ("--sampler", "DPM++ 2MM", r"sampler: 'DPM\+\+ 2MM' is not one of .*; did you mean dpmpp_2m"),
        ("--schedule", "karas", "schedule: 'karas' is not one of .*; did you mean karras"),
        ("--lora", "ink:100", "weight of LoRA ink 100: -20 to 20"),
        ("--lora-dir", "/nonexistent", "/nonexistent: no such folder of LoRA files"),
        ("--hires", 0.5, r"hires scale 0\.5: 1 to 8"),
        ("--hires", "nan", "hires scale nan"),
        ("--upscale", 2, "what is asked for needs a model file that is not there; give it with --upscaler"),
        ("--decode-with", "taesd", "needs a model file that is not there; give it with --taesd"),
        ("--init-image", "/nonexistent.png", "--init-image: '/nonexistent.png' cannot be read: No such file"),
        ("--mask", "/nonexistent.png", "--mask does nothing without --init-image: give that too, or leave it out"),
        ("--strength", 0, "--strength does nothing without --init-image"),
        ("--only-masked", None, "--only-masked does nothing without --mask"),
        ("--mask-blur", 0, "--mask-blur does nothing without --mask"),
        ("--hires-steps", 5, "--hires-steps does nothing without --hires"),
        ("--hires-upscaler", "lanczos", "--hires-upscaler does nothing without --hires"),
        ("--control-image", "/nonexistent.png", "--control-image does nothing without --controlnet"),
        ("--canny", None, "--canny does nothing without --controlnet"),
        ("--controlnet", "c.safetensors", "--controlnet is given 1 times and --control-image 0: each needs the other"),
        ("--preview-every", 2, "--preview-every does nothing without --preview-dir"),
        ("--rng", "dice", "rng: 'dice' is not one of cuda"),
        ("--vae-tile-size", 8, "vae tile size 8: 16 to 512"),
        ("--threads", 0, "--threads 0: 1 to 1024"),
        ("--max-vram", "nan", "--max-vram nan"),
        ("--max-vram", 0, "--max-vram 0"),
        ("--backend", "cuda0", "--backend cuda0: devices are vulkan0"),
        ("--backend", "unet=cpu", "--backend unet=cpu: components are"),
        ("--model", "/nonexistent", "--model /nonexistent: no such folder"),
        ("--diffusion", "/nonexistent.gguf", "--diffusion /nonexistent.gguf: no such file"),
        ("--clip-l", "x" * 300, "no such file"),
        ("--t5-tokenizer", "/nonexistent.json", "--t5-tokenizer /nonexistent.json: no such file"),
        ("--out", "cat.jpg", "--out cat.jpg: the name must end in .png"),
        ("--out", "/nonexistent/cat.png", "--out /nonexistent/cat.png: there is no folder /nonexistent"),
        ("--out", "/", "must end in .png"),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_may_be(generate: Relight, flag: str, value: object, said: str) -> None:
    outcome = generate(flag if value is None else f"{flag}={value}")
    assert outcome.status == 2
    assert re.search(said, outcome.line), outcome.line


def test_a_prompt_that_is_not_unicode_is_refused(relight: Relight, tiny_files: ModelFiles, tmp_path: Path) -> None:
    folder = tiny_files.of("diffusion")[0].parent
    outcome = relight(
        "generate", "a \udcff cat", "--model", folder, "--width=64", "--height=64", "--out", tmp_path / "a.png"
    )
    assert outcome.status == 2 and "not valid Unicode; give it as UTF-8" in outcome.line


def test_missing_files_are_listed_by_their_flags(relight: Relight, tiny_files: ModelFiles, tmp_path: Path) -> None:
    outcome = relight("generate", "a cat", "--vae", tiny_files.of("vae")[0], "--out", tmp_path / "a.png")
    assert outcome.status == 2 and outcome.line.endswith("still missing: --clip-l, --t5xxl, --diffusion")


def test_a_folder_without_a_component_says_what_to_add(
    relight: Relight, tiny_files: ModelFiles, tmp_path: Path
) -> None:
    shutil.copy(tiny_files.of("diffusion")[0], tmp_path)
    outcome = relight("generate", "a cat", "--model", tmp_path, "--out", tmp_path / "a.png")
    assert outcome.status == 1 and "no clip_l here: add a CLIP-L text encoder (clip_l.safetensors)" in outcome.line


BROKEN = {
    "html.safetensors": (b"<!DOCTYPE html><html>", "is a web page"),
    "picture.safetensors": (b"\x89PNG\r\n\x1a\n" + bytes(100), "neither safetensors nor GGUF"),
    "pickle.ckpt": (b"PK\x03\x04" + bytes(100), "is a PyTorch pickle"),
    "empty.gguf": (b"", "is empty"),
    "header.safetensors": (b"\xff" * 7 + b"\x7f{", "header"),
    "magic.gguf": (b"GGUF\x03\0\0\0" + b"\xff" * 16, "damaged"),
    "short.gguf": (b"GGUF\x03\0\0\0", "damaged|cut short"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("flag", ["--diffusion", "--clip-l", "--t5xxl", "--vae"])
def test_what_is_no_weights_file_is_named(generate: Relight, tmp_path: Path, name: str, flag: str) -> None:
    content, said = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    outcome = generate(flag, tmp_path / name)
    assert outcome.status == 1
    assert str(tmp_path / name) in outcome.line and re.search(said, outcome.line)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no fifos here")
def test_a_fifo_is_refused_and_does_not_hang(generate: Relight, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.gguf")
    assert "is not a regular file" in generate("--diffusion", tmp_path / "fifo.gguf").line


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_truncated_file_is_named_with_the_missing_bytes(
    generate: Relight, tiny_files: ModelFiles, tmp_path: Path, share: float
) -> None:
    whole = tiny_files.of("diffusion")[0].read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: int(len(whole) * share)])
    outcome = generate("--diffusion", cut)
    assert outcome.status == 1 and str(cut) in outcome.line
    assert "missing" in outcome.line or "states a header of" in outcome.line


@pytest.mark.parametrize(
    ("flag", "given"), [("t5xxl", "vae"), ("vae", "clip_l"), ("clip_l", "diffusion"), ("diffusion", "t5xxl")]
)
def test_a_file_given_as_another_component_is_told_its_flag(
    generate: Relight, tiny_files: ModelFiles, tmp_path: Path, flag: str, given: str
) -> None:
    renamed = Path(shutil.copy(tiny_files.of(given)[0], tmp_path / "renamed.safetensors"))
    outcome = generate("--" + flag.replace("_", "-"), renamed)
    assert outcome.status == 1
    assert str(renamed) in outcome.line and "give it with --" + given.replace("_", "-") in outcome.line


def test_files_of_two_flux_sizes_do_not_go_together(generate: Relight, tiny_files: ModelFiles, tmp_path: Path) -> None:
    wide = checkpoints.safetensors(tmp_path / "t5_wide.safetensors", checkpoints.arrays("t5xxl", hidden=128), "F16")
    outcome = generate("--t5xxl", wide, "--t5-tokenizer", tiny_files.t5_tokenizer)
    assert outcome.status == 1
    assert outcome.line == f"{wide}: is a t5xxl of width 128; flux1-schnell-tiny.safetensors was made for 64"


def test_a_clip_with_too_few_tokens_is_named(generate: Relight, tmp_path: Path) -> None:
    small = checkpoints.safetensors(tmp_path / "clip_small.safetensors", checkpoints.arrays("clip_l"), "F16")
    outcome = generate("--clip-l", small)
    assert outcome.status == 1 and f"{small}: has 100 tokens, and the tokenizer gives number 49407" in outcome.line


def test_tensors_of_sizes_that_do_not_agree_name_the_file(generate: Relight, tmp_path: Path) -> None:
    arrays = checkpoints.arrays("diffusion")
    arrays["double_blocks.0.img_mlp.2.weight"] = np.zeros((256, 512), np.float32)
    odd = checkpoints.safetensors(tmp_path / "odd.safetensors", arrays, "F16")
    outcome = generate("--diffusion", odd)
    assert outcome.status == 1 and outcome.line.startswith(f"{odd}: its tensors do not make a whole network (linear")


def test_a_t5_without_a_tokenizer_says_where_one_is_looked_for(
    relight: Relight, tiny_files: ModelFiles, tmp_path: Path
) -> None:
    for path in tiny_files.of("diffusion")[0].parent.glob("*.safetensors"):
        shutil.copy(path, tmp_path)
    outcome = relight("generate", "a cat", "--model", tmp_path, "--out", tmp_path / "a.png")
    assert outcome.status == 1 and "no T5 tokenizer in it or beside it (looked for tokenizer.json" in outcome.line


@pytest.mark.parametrize("out", ["dir.png", "file.txt/cat.png"])
def test_an_output_that_can_be_no_file_is_refused(generate: Relight, tmp_path: Path, out: str) -> None:
    (tmp_path / "dir.png").mkdir()
    (tmp_path / "file.txt").write_text("")
    outcome = generate("--out", tmp_path / out)
    assert outcome.status == 2 and f"--out {tmp_path / out}" in outcome.line


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
def test_an_output_that_cannot_be_written_is_refused_before_the_work(generate: Relight) -> None:
    outcome = generate("--out", "/proc/cat.png")
    assert outcome.status == 1 and outcome.line.startswith("/proc/cat.png cannot be written: ")


def test_an_unknown_card_to_pretend_is_refused(generate: Relight, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELIGHT_PRETEND", "rx580")
    outcome = generate()
    assert outcome.status == 2 and "did you mean rx580-8g" in outcome.line


def test_with_json_a_refusal_is_one_object_on_stdout(generate: Relight) -> None:
    outcome = generate("--json", "--steps", 0)
    assert outcome.status == 2 and outcome.line == "steps 0: 1 to 1000"
    assert json.loads(outcome.out) == {"error": "steps 0: 1 to 1000", "status": 2}


def test_debug_shows_the_traceback(generate: Relight, caplog: pytest.LogCaptureFixture) -> None:
    generate("--debug", "--steps", 0)
    assert "Traceback" in caplog.text and "RequestError" in caplog.text


# --- inspect


def test_inspect_says_what_a_file_is(relight: Relight, tiny_files: ModelFiles) -> None:
    outcome = relight("inspect", tiny_files.of("diffusion")[0])
    assert outcome.status == 0 and "FLUX" in outcome.out and "nothing missing" in outcome.out


@pytest.mark.parametrize("kind", ["diffusion", "clip_l", "t5xxl", "vae"])
def test_inspect_json_is_one_object(relight: Relight, tiny_files: ModelFiles, kind: str) -> None:
    outcome = relight("inspect", tiny_files.of(kind)[0], "--json")
    found = json.loads(outcome.out)
    assert outcome.status == 0 and found["kinds"] == [kind]
    assert found["components"][0]["missing"] == [] and found["tensors"] > 0


def test_inspect_says_what_model_a_folder_makes(relight: Relight, tiny_files: ModelFiles) -> None:
    folder = tiny_files.of("diffusion")[0].parent
    outcome = relight("inspect", folder)
    assert outcome.status == 0 and f"{folder}: FLUX.1 model, complete" in outcome.out
    found = json.loads(relight("inspect", folder, "--json").out)
    assert found["model"] == "flux" and found["complete"] and set(found["files"]) == set(tiny_files.paths)


def test_inspect_says_what_a_folder_lacks(relight: Relight, tiny_files: ModelFiles, tmp_path: Path) -> None:
    assert "no model" in relight("inspect", tmp_path).out
    shutil.copy(tiny_files.of("diffusion")[0], tmp_path)
    outcome = relight("inspect", tmp_path)
    assert outcome.status == 0 and "lacks" in outcome.out and "vae is missing: add" in outcome.out


@pytest.mark.parametrize("name", BROKEN)
def test_inspect_refuses_what_is_no_weights_file(relight: Relight, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BROKEN[name][0])
    outcome = relight("inspect", tmp_path / name)
    assert outcome.status == 1 and str(tmp_path / name) in outcome.line


def test_inspect_of_nothing_names_what_is_beside(relight: Relight, tmp_path: Path) -> None:
    (tmp_path / "there.gguf").write_bytes(b"")
    assert "beside it are there.gguf" in relight("inspect", tmp_path / "here.gguf").line


# --- real processes


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-P", "-m", "relight", *map(str, arguments)]


def in_process(*arguments: object, **environment: str) -> Outcome:
    env = child_environment(os.environ | environment, {})
    done = subprocess.run(command(*arguments), capture_output=True, text=True, env=env, timeout=100)
    return Outcome(done.returncode, done.stdout, done.stderr)


SMALL = (
    "--width",
    64,
    "--height",
    64,
    "--seed",
    7,
    "--backend",
    "ggml-cpu",
    "--threads",
    1,
    "--no-checks",
    "--no-prompt-cache",
)


def test_a_picture_from_one_command(tiny_files: ModelFiles, tmp_path: Path) -> None:
    """Two pictures, so that names and seeds count up; the report is the last line, and a single one."""
    folder, out = tiny_files.of("diffusion")[0].parent, tmp_path / "cat.png"
    outcome = in_process(
        "generate", "a cat", "--model", folder, *SMALL, "--steps", 2, "--batch", 2, "--out", out, "--json"
    )
    assert outcome.status == 0, outcome.err
    report = json.loads(outcome.out)
    assert set(report) == REPORT_KEYS
    assert report["seeds"] == [7, 8] and len(report["seconds"]["steps"]) == 2
    assert report["files"] == [str(tmp_path / "cat-1.png"), str(tmp_path / "cat-2.png")]
    assert set(report["components"]) == {"clip_l", "t5xxl", "modulation", "diffusion", "vae"}
    assert {name.name for name in tmp_path.iterdir()} == {"cat-1.png", "cat-2.png"}
    pictures = [Image.open(path) for path in report["files"]]
    assert all(picture.size == (64, 64) for picture in pictures)
    assert np.asarray(pictures[0]).tobytes() != np.asarray(pictures[1]).tobytes()
    assert "denoise: 2 step(s) done" in outcome.err and "\r" not in outcome.err


def test_stable_diffusion_with_everything_from_one_command(tmp_path: Path) -> None:
    """Part of a photograph anew, led by its edges, in ink, gone over at twice the size."""
    shelf = making.shelf(tmp_path)
    photograph, mask = tmp_path / "photograph.png", tmp_path / "mask.png"
    redraw = making.masked()
    assert redraw.mask is not None
    Image.fromarray(redraw.image).save(photograph)
    Image.fromarray((redraw.mask * 255).astype(np.uint8)).save(mask)
    outcome = in_process(
        *("generate", "a (cat:1.2) <lora:ink:0.5>", "--model", shelf / "sd15.safetensors", *SMALL),
        *("--negative", "dog", "--steps", 4, "--cfg-scale", 5, "--sampler", "DPM++ 2M SDE", "--schedule", "karras"),
        *("--clip-skip", 2, "--lora-dir", shelf, "--init-image", photograph, "--strength", 0.8, "--mask", mask),
        *("--controlnet", shelf / "control1.safetensors", "--control-image", photograph, "--canny"),
        *("--hires", 1.5, "--hires-upscaler", "lanczos", "--hires-strength", 0.5, "--upscale", 2),
        *("--upscaler", shelf / "x2.safetensors", "--taesd", shelf / "taesd.safetensors"),
        *("--preview-dir", tmp_path / "previews", "--preview-every", 2, "--out", tmp_path / "cat.png", "--json"),
    )
    assert outcome.status == 0, outcome.err
    report = json.loads(outcome.out)
    assert set(report) == REPORT_KEYS
    assert (report["family"], report["sampler"], report["schedule"]) == ("sd1", "dpmpp_2m_sde", "karras")
    assert (report["cfg_scale"], report["clip_skip"], report["strength"]) == (5, 2, 0.8)
    assert report["loras"] == [{"name": "ink", "weight": 0.5}]
    assert report["hires"]["from_size"] == [64, 64] and report["hires"]["strength"] == 0.5
    assert report["controls"] == [{"model": "control1", "strength": 1.0, "start": 0.0, "end": 1.0}]
    assert [path.name for path in (tmp_path / "previews").iterdir()] == ["cat-preview-1.png"]
    with Image.open(tmp_path / "cat.png") as picture:
        assert picture.size == (192, 192)
        read = parse_parameters(picture.info["parameters"])
    assert read["Prompt"] == "a (cat:1.2) <lora:ink:0.5>" and read["Negative prompt"] == "dog"
    assert (read["Steps"], read["Size"], read["Hires upscaler"]) == ("4", "64x64", "Lanczos")


REPORT_KEYS = {
    "prompt",
    "negative_prompt",
    "model",
    "family",
    "width",
    "height",
    "seeds",
    "rng",
    "sampler",
    "schedule",
    "steps",
    "sigmas",
    "cfg_scale",
    "cfg_rescale",
    "clip_skip",
    "guidance",
    "strength",
    "hires",
    "controls",
    "upscale",
    "decoder",
    "loras",
    "vae_tile",
    "batch_rows",
    "components",
    "devices",
    "seconds",
    "files",
}


DOCS = Path(__file__).parent.parent.joinpath("docs/cli.md").read_text()


def test_docs_name_every_key_of_the_report() -> None:
    assert {key for key in REPORT_KEYS if f"`{key}`" not in DOCS} == set()


def options_of_generate() -> set[str]:
    parser = argparse.ArgumentParser()
    cli.add_generate(parser)
    return {option for action in parser._actions for option in action.option_strings if option != "-h"}


def test_docs_name_every_option_of_generate_and_no_other() -> None:
    named = set(re.findall(r"`(--[a-z0-9-]+)[` ]", DOCS.partition("## `generate --json`")[0]))
    assert named - {"--config", "--debug", "--help"} == options_of_generate() - {"--help"}


def commands_in_docs() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL)
    lines = re.sub(r" *\\\n *", " ", "\n".join(blocks)).splitlines()
    return [line for line in lines if line.startswith("./relight")]


@pytest.mark.parametrize("line", commands_in_docs())
def test_the_docs_commands_parse_and_their_options_go_together(line: str) -> None:
    arguments = cli.parser().parse_args(shlex.split(line)[1:])
    options.check_together(arguments)


def test_an_empty_prompt_and_one_too_long_both_make_a_picture(tiny_files: ModelFiles, tmp_path: Path) -> None:
    folder = tiny_files.of("diffusion")[0].parent
    common = ("--model", folder, *SMALL, "--steps", 1, "--out", tmp_path / "a.png")
    assert in_process("generate", "", *common).status == 0
    long = in_process("generate", "one two three " * 200, *common)
    assert long.status == 0
    assert "the prompt has 600 tokens, 255 fit; left out from here on: 'one two three" in long.err


def test_without_a_vulkan_driver_a_named_gpu_is_an_error_and_devices_say_so(
    tiny_files: ModelFiles, tmp_path: Path
) -> None:
    folder, out = tiny_files.of("diffusion")[0].parent, tmp_path / "a.png"
    no_driver = {"VK_DRIVER_FILES": "/nonexistent", "VK_ICD_FILENAMES": "/nonexistent"}
    arguments = ("generate", "a cat", "--model", folder, *SMALL, "--backend", "vulkan0", "--out", out)
    outcome = in_process(*arguments, **no_driver)
    assert outcome.status == 2 and "no device vulkan0; no Vulkan driver was found, only ggml-cpu" in outcome.line
    listed = in_process("devices", **no_driver)
    assert listed.status == 0 and "ggml-cpu" in listed.out and "No Vulkan GPU" in listed.out
    assert not out.exists()


def test_devices_json_is_one_object() -> None:
    outcome = in_process("devices", "--json")
    found = json.loads(outcome.out)
    assert outcome.status == 0 and found["devices"][-1]["name"] == "ggml-cpu"
    assert found["devices"][-1]["memory_total"] > 0 and found["ggml"].startswith("0.27")


def test_libraries_that_are_not_there_are_named(tiny_files: ModelFiles) -> None:
    outcome = in_process("devices", RELIGHT_GGML_DIR="/nonexistent")
    assert outcome.status == 1 and "no library ggml-base in /nonexistent" in outcome.line


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal, and sends SIGINT to a process group")
def test_ctrl_c_amid_denoising_ends_everything_at_once(tiny_files: ModelFiles, tmp_path: Path) -> None:
    folder, out = tiny_files.of("diffusion")[0].parent, tmp_path / "a.png"
    arguments = ("generate", "a cat", "--model", folder, *SMALL, "--steps", 1000, "--out", out)
    terminal, side = os.openpty()
    running = subprocess.Popen(
        command(*arguments), stderr=side, env=child_environment(os.environ, {}), start_new_session=True
    )
    os.close(side)
    try:
        shown = read_until(terminal, re.compile(rb"denoise: .* \d+/1000 "))
        workers = psutil.Process(running.pid).children(recursive=True)
        pressed = time.monotonic()
        os.killpg(running.pid, signal.SIGINT)
        shown += read_until(terminal, re.compile(rb"relight: stopped\r\n"))
        assert running.wait(20) == 130
        assert time.monotonic() - pressed < 3
    finally:
        running.kill()
        running.wait()
        os.close(terminal)
    gone, alive = psutil.wait_procs(workers, timeout=2)
    assert gone and not alive
    assert list(tmp_path.iterdir()) == [] and b"Traceback" not in shown


def read_until(terminal: int, wanted: re.Pattern[bytes]) -> bytes:
    """What a program shows on its terminal up to `wanted`; it is killed by the test's deadline when it never does."""
    shown = b""
    while not wanted.search(shown):
        try:
            shown += os.read(terminal, 4096)
        except OSError as error:  # the program has closed its side
            raise AssertionError(f"ended after {shown[-500:]!r}") from error
    return shown
