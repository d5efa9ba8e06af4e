"""Settings from a file, the environment and flags: which counts, where it came from, and what is said of mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relight.configuration.document import LARGEST_BYTES, read
from relight.configuration.load import Loaded, load, user_folder
from relight.configuration.schema import entries
from relight.errors import ConfigError

GIB = 1 << 30
LoadText = Callable[..., Loaded]


@pytest.fixture
def load_text(tmp_path: Path) -> LoadText:
    def loaded(text: str, environ: dict[str, str] | None = None, **flags: object) -> Loaded:
        (tmp_path / "relight.yaml").write_text(text)
        by_place = {place.replace("__", "."): value for place, value in flags.items()}
        return load(flags=by_place, environ=environ or {}, folder=tmp_path)

    return loaded


def refusal(load_text: LoadText, text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_text(text, environ)
    return str(caught.value)


def test_flags_go_over_the_environment_and_that_over_the_file(load_text: LoadText) -> None:
    text = "runtime:\n  cfg_scale: 1\n  denoise_steps: 2\n  resolution: 512x512\n"
    environ = {"RELIGHT_RUNTIME_DENOISE_STEPS": "3", "RELIGHT_RUNTIME_CFG_SCALE": "2"}
    loaded = load_text(text, environ, runtime__cfg_scale=3.0)
    runtime = loaded.settings.runtime
    assert (runtime.cfg_scale, runtime.denoise_steps, runtime.resolution) == (3.0, 3, (512, 512))
    assert {place: origin.where for place, origin in loaded.origins.items()} == {
        "runtime.cfg_scale": "--cfg-scale",
        "runtime.denoise_steps": "RELIGHT_RUNTIME_DENOISE_STEPS",
        "runtime.resolution": "relight.yaml:4",
    }


def test_every_setting_has_a_variable_of_its_own() -> None:
    variables = [entry.variable for entry in entries().values()]
    assert len(set(variables)) == len(variables)
    assert all(variable.startswith("RELIGHT_") for variable in variables)


def test_the_variables_there_were_before_still_count(load_text: LoadText) -> None:
    environ = {"RELIGHT_MODELS": "/m", "RELIGHT_MODEL_PATHS": "/a:/b", "RELIGHT_PRETEND": "rx580-8g"}
    settings = load_text("", environ).settings
    assert settings.models.directory == Path("/m")
    assert settings.models.folders == (Path("/a"), Path("/b"))
    assert settings.engine.profile == "rx580-8g"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("backend:\n  typ: cpu\n", 2, "backend.typ is no setting; did you mean type?"),
        ("runtim:\n  cfg_scale: 1\n", 1, "runtim is no setting; did you mean runtime?"),
        ("steps: 4\n", 1, "did you mean runtime.denoise_steps?"),
        ("backend:\n  cfg_scale: 4\n", 2, "did you mean runtime.cfg_scale?"),
        ("model_routing:\n  diffusion:\n    pfad: x\n", 3, "diffusion has path, target, quantization"),
        ("runtime:\n  cfg_scale: high\n", 2, "runtime.cfg_scale should be a number, 0 to 100, not 'high'"),
        ("runtime:\n  denoise_steps: 0\n", 2, "should be a whole number, 1 to 1000, not 0"),
        ("runtime:\n  cfg_scale: [1, 2]\n", 2, "runtime.cfg_scale should be a number"),
        ("runtime:\n  cfg_scale: {a: 1}\n", 2, "should be one value"),
        ("runtime:\n  cfg_scale: 1\n  cfg_scale: 2\n", 3, "is there twice, in line 2 too"),
        ("models: [a]\n", 1, "models should hold `name: value` lines"),
        ("- a\n", 1, "the file should hold `name: value` lines"),
        ("? [a]\n: b\n", 1, "? is no setting"),
        ("backend:\n  type: rocm\n", 2, "backend.type should be one of ggml-vulkan, cpu, not 'rocm'"),
        ("picture:\n  sampler: eulre\n", 2, "picture.sampler"),
        ("engine:\n  profile: rx58-8g\n", 2, "did you mean rx580-8g?"),
        ("engine:\n  backend: diffusion=tpu\n", 2, "devices are vulkan0"),
        ("a: b: c\n", 1, "is no YAML: mapping values are not allowed here"),
        ("runtime:\n\tcfg_scale: 1\n", 2, "is no YAML"),
        ("a: !!python/object:os.system x\n", 1, "a is no setting"),
        ("models:\n  model: ${NOT_SET}\n", 2, "needs the variable NOT_SET, which is not set"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_what_would_be_right(
    load_text: LoadText, text: str, line: int, said: str
) -> None:
    message = refusal(load_text, text)
    assert message.startswith(f"relight.yaml:{line}: ")
    assert said in message


def test_all_mistakes_are_named_at_once(load_text: LoadText) -> None:
    message = refusal(load_text, "a: 1\nruntime:\n  cfg_scale: x\n", {"RELIGHT_SERVER_PORT": "0"})
    assert "relight.yaml:1: a " in message and "relight.yaml:3: " in message and "RELIGHT_SERVER_PORT: " in message


def test_a_misspelt_variable_is_named_with_the_nearest(load_text: LoadText) -> None:
    message = refusal(load_text, "", {"RELIGHT_ENGINE_MAX_VRM": "3"})
    assert message == "RELIGHT_ENGINE_MAX_VRM is no setting; did you mean RELIGHT_ENGINE_MAX_VRAM?"


@pytest.mark.parametrize("text", ["", "# nothing\n", "backend:\n", "backend:\n  type:\n", "---\n", "null\n"])
def test_what_is_left_out_is_the_default(load_text: LoadText, text: str) -> None:
    assert load_text(text).origins == {}


def test_plain_words_of_yaml_stay_the_text_they_are(load_text: LoadText) -> None:
    settings = load_text("models:\n  model: 1.50\npicture:\n  negative: no\nruntime:\n  io_scheduler: none\n").settings
    assert (settings.models.model, settings.picture.negative) == ("1.50", "no")
    assert settings.runtime.io_scheduler == "none"


def test_anchors_and_merged_sections_are_read(load_text: LoadText) -> None:
    text = (
        "model_routing:\n  text_encoder: &small\n    target: cpu\n    ram_budget: 1GB\n"
        "  context_encoder:\n    <<: *small\n    ram_budget: 9GB\n"
    )
    routing = load_text(text).settings.model_routing
    assert (routing.context_encoder.target, routing.context_encoder.ram_budget) == ("cpu", 9 * GIB)


def test_variables_in_values_are_filled_in(load_text: LoadText) -> None:
    text = "models:\n  model: ${M}\n  folders: ['${A:-/a}', '${B:-/b}']\nserver:\n  port: ${PORT:-9000}\n"
    settings = load_text(text, {"M": "sd15", "B": "/mine"}).settings
    assert settings.models.model == "sd15"
    assert settings.models.folders == (Path("/a"), Path("/mine"))
    assert settings.server.port == 9000


def test_a_variable_that_may_be_empty_leaves_the_default_and_a_double_sign_is_one(load_text: LoadText) -> None:
    loaded = load_text("models:\n  model: ${M:-}\npicture:\n  negative: a $${M} b\n")
    assert loaded.settings.models.model is None
    assert loaded.settings.picture.negative == "a ${M} b"


def test_paths_begin_from_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    file = tmp_path / "inner/mine.yaml"
    file.write_text("models:\n  lora_dir: [loras, ../more]\n  taesd: taesd.safetensors\n")
    models = load(Path("inner/mine.yaml"), environ={}, folder=tmp_path).settings.models
    assert models.lora_dir == (tmp_path / "inner/loras", tmp_path / "more")
    assert models.taesd == tmp_path / "inner/taesd.safetensors"


def test_the_file_named_counts_before_that_of_the_variable_before_the_one_here(tmp_path: Path) -> None:
    for name in ("relight", "named", "variable"):
        (tmp_path / f"{name}.yaml").write_text(f"models:\n  model: {name}\n")
    home = {"XDG_CONFIG_HOME": str(tmp_path / "home")}
    mine = user_folder(home, "linux")
    mine.mkdir(parents=True)
    (mine / "relight.yaml").write_text("models:\n  model: home\n")

    def model(folder: Path, file: Path | None = None, **environ: str) -> str | None:
        return load(file, environ=home | environ, folder=folder).settings.models.model

    assert model(tmp_path, Path("named.yaml"), RELIGHT_CONFIG="variable.yaml") == "named"
    assert model(tmp_path, RELIGHT_CONFIG="variable.yaml") == "variable"
    assert model(tmp_path) == "relight"
    assert model(tmp_path / "home") == "home"


@pytest.mark.parametrize("named", [{"file": Path("no.yaml")}, {"environ": {"RELIGHT_CONFIG": "no.yaml"}}])
def test_a_file_that_is_named_must_be_there(tmp_path: Path, named: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml: no such file; relight config init"):
        load(**({"environ": {}, "folder": tmp_path} | named))  # type: ignore[arg-type]


def test_the_users_folder_is_the_platforms() -> None:
    assert user_folder({"APPDATA": "/roaming"}, "win32") == Path("/roaming/relight")
    assert user_folder({}, "linux") == Path.home() / ".config/relight"
    assert user_folder({}, "darwin") == Path.home() / "Library/Application Support/relight"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "relight.yaml"
    file.write_bytes(b"models:\xff\xfe")
    with pytest.raises(ConfigError, match="is no text in UTF-8"):
        load(file, environ={})


@pytest.mark.parametrize("text", ["a: &a {<<: *a}", "[" * 5000])
def test_a_file_without_end_is_a_mistake_like_others(load_text: LoadText, text: str) -> None:
    assert "relight.yaml:1: " in refusal(load_text, text)


def test_a_huge_file_is_not_read() -> None:
    assert "settings take" in read("#" * (LARGEST_BYTES + 1)).problems[0][1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("backend: {type: cpu}\nmodel_routing:\n  decoder: {target: gpu}\n", "and backend.type is cpu"),
        ("model_routing:\n  decoder: {target: cpu, vram_budget: 1GB}\n", "take ram_budget"),
        ("model_routing:\n  decoder: {target: gpu, ram_budget: 1GB}\n", "take vram_budget"),
        ("backend: {type: cpu}\nengine: {max_vram: 1GB}\n", "bounds the card"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(load_text: LoadText, text: str, said: str) -> None:
    message = refusal(load_text, text)
    assert message.startswith("relight.yaml:") and said in message


def test_storage_keys_come_with_the_reason_why_they_are_not_set(load_text: LoadText) -> None:
    loaded = load_text("runtime:\n  io_scheduler: mq-deadline\n  nvme_queue_depth: 64\n")
    scheduler, depth = loaded.notes
    assert scheduler.startswith("relight.yaml:2: runtime.io_scheduler is not set by relight, which never changes")
    assert depth.startswith("relight.yaml:3: ") and "sets the number of queues" in depth


def test_tiling_of_what_is_not_tiled_is_noted(load_text: LoadText) -> None:
    (note,) = load_text("model_routing:\n  diffusion:\n    tiling: true\n  decoder:\n    tiling: true\n").notes
    assert note == (
        "relight.yaml:3: model_routing.diffusion.tiling does nothing here: only the decoder is computed in tiles"
    )


@given(st.text(alphabet="abt: -[]{}&*!|>'\"#\n%@`,?<~0", max_size=60))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    document = read(text)
    assert all(line >= 1 and what for line, what in document.problems)
