"""Every setting there is: its place in the file, kind, default, flag and what it means. All else is derived from this.

`backend`, `model_routing` and `runtime` are the published recipe's sections with its names; the rest is relight's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from relight.configuration.kinds import (
    Choice,
    Kind,
    Many,
    Model,
    Place,
    Real,
    Resolution,
    Share,
    Size,
    Switch,
    Text,
    Tiling,
    Whole,
)
from relight.planner.backends import parse as check_backend
from relight.planner.profiles import find_profile
from relight.sampling import latents, names

MIB, GIB = 1 << 20, 1 << 30
NO_FLAG = ""


def setting(default: Any, kind: Kind, words: str, *, flag: str = NO_FLAG, variable: str = "") -> Any:
    """A field of a section. `variable` where it has a name of its own; otherwise it is made of the setting's place."""
    return field(default=default, metadata={"kind": kind, "words": words, "flag": flag, "variable": variable})


def section(made: type, words: str, flag: str = NO_FLAG) -> Any:
    """A section; `flag` is the one that names the file of a part."""
    return field(default_factory=made, metadata={"section": made, "words": words, "flag": flag})


@dataclass(frozen=True, kw_only=True)
class Backend:
    type: str = setting(
        "ggml-vulkan",
        Choice(("ggml-vulkan", "cpu"), (("vulkan", "ggml-vulkan"), ("ggml-cpu", "cpu"))),
        "what computes; `cpu` leaves the card alone",
    )
    device_index: int | None = setting(
        None, Whole(0, 63), "the card: 0 is `vulkan0` of `relight devices`; default: the first real GPU"
    )
    compute_shaders: str = setting(
        "on_demand",
        Choice(("on_demand", "precompiled"), (("on-demand", "on_demand"), ("lazy", "on_demand"))),
        "`precompiled` runs the warm-up before the first picture",
    )
    pipeline_cache: Path | None = setting(
        None,
        Place("folder"),
        "where the driver keeps compiled shaders; default: relight/pipelines in the user's cache folder",
    )


TARGET = Choice(("auto", "gpu", "cpu"))
PRECISIONS = "F32 F16 BF16 F8_E4M3 Q8_0 Q6_K Q5_K Q5_0 Q5_1 Q4_K Q4_0 Q4_1 Q3_K Q2_K IQ4_NL IQ4_XS auto".lower().split()
SPELLINGS = {
    "fp32": "f32",
    "float32": "f32",
    "fp16": "f16",
    "float16": "f16",
    "half": "f16",
    "bfloat16": "bf16",
    "fp8": "f8_e4m3",
    "f8": "f8_e4m3",
    "fp8_e4m3fn": "f8_e4m3",
    "q8": "q8_0",
    "none": "auto",
} | {f"q{bits}_k_{size}": f"q{bits}_k" for bits in (2, 3, 4, 5) for size in "sml"}


@dataclass(frozen=True, kw_only=True)
class Part:
    path: Path | None = setting(None, Place(), "its weights; found by name under the model folder too")
    target: str = setting("auto", TARGET, "where it computes; obeyed")
    quantization: str = setting(
        "auto", Choice(tuple(PRECISIONS), tuple(SPELLINGS.items())), "what the file is in; checked against it"
    )
    vram_budget: int | None = setting(None, Size(), "most it may take of the card, weights and buffer")
    ram_budget: int | None = setting(None, Size(), "most it may take of the memory, weights and buffer")
    tiling: str | bool | int = setting("auto", Tiling(), "how it is cut; only the decoder is", flag="")


@dataclass(frozen=True, kw_only=True)
class Routing:
    diffusion: Part = section(Part, "the backbone: FLUX.1's transformer or a UNet", "--diffusion")
    text_encoder: Part = section(Part, "CLIP-L; target and budgets also hold for CLIP-G and CLIP-H", "--clip-l")
    context_encoder: Part = section(Part, "T5 XXL", "--t5xxl")
    decoder: Part = section(Part, "the autoencoder (VAE)", "--vae")


@dataclass(frozen=True, kw_only=True)
class Runtime:
    cfg_scale: float | None = setting(
        None, Real(0, 100), "how strongly prompts steer; 1 is a single pass; default: the model's", flag="--cfg-scale"
    )
    denoise_steps: int | None = setting(
        None, Whole(1, 1000), "4 for FLUX.1 schnell, 1 for SDXL Turbo; default: the model's", flag="--steps"
    )
    resolution: tuple[int, int] | None = setting(
        None, Resolution(latents.SMALLEST, latents.LARGEST), "default: what the model is for"
    )
    offload_threshold: float | int | None = setting(
        None, Share(), "how much of the card may be filled before components go to the CPU; default: what is free"
    )
    io_scheduler: str | None = setting(
        None,
        Choice(("none", "mq-deadline", "bfq", "kyber")),
        "what the model disk should have; `relight doctor` compares, relight never sets it",
    )
    nvme_queue_depth: int | None = setting(
        None, Whole(1, 65535), "as above; the kernel fixes it when the disk is found"
    )


@dataclass(frozen=True, kw_only=True)
class Models:
    model: str | None = setting(
        None, Model(), "what pictures are made with; files named above take the place of its own", flag="--model"
    )
    directory: Path | None = setting(
        None, Place("folder"), "the model folder; default: the platform's folder for data", variable="RELIGHT_MODELS"
    )
    folders: tuple[Path, ...] = setting(
        (), Many(Place("folder")), "more folders, such as ComfyUI's", variable="RELIGHT_MODEL_PATHS"
    )
    clip_g: Path | None = setting(None, Place(), "CLIP-G (SDXL)", flag="--clip-g")
    clip_h: Path | None = setting(None, Place(), "CLIP-H (Stable Diffusion 2)", flag="--clip-h")
    t5_tokenizer: Path | None = setting(None, Place(), "where it is neither beside T5 nor in it", flag="--t5-tokenizer")
    taesd: Path | None = setting(None, Place(), "tiny autoencoder, for previews", flag="--taesd")
    upscaler: Path | None = setting(None, Place(), "ESRGAN-family upscaler", flag="--upscaler")
    prediction: str | None = setting(
        None, Choice(("eps", "v")), "of a UNet whose file does not say it", flag="--prediction"
    )
    lora_dir: tuple[Path, ...] = setting((), Many(Place("folder")), "folders of LoRA files", flag="--lora-dir")
    embedding_dir: tuple[Path, ...] = setting(
        (), Many(Place("folder")), "folders of textual inversions", flag="--embedding-dir"
    )


@dataclass(frozen=True, kw_only=True)
class Engine:
    backend: str | None = setting(
        None, Text("as --backend takes it", check_backend), "over the targets of `model_routing`", flag="--backend"
    )
    max_vram: int | None = setting(None, Size(), "most that is taken of the card in all", flag="--max-vram")
    threads: int | None = setting(None, Whole(1, 1024), "of the CPU; default: physical cores", flag="--threads")
    attention: str = setting("auto", Choice(("auto", "flash", "chunked")), "how ggml computes it", flag="--attention")
    convolution: str = setting(
        "auto", Choice(("auto", "direct", "im2col")), "how ggml computes it", flag="--convolution"
    )
    precision: str = setting(
        "auto", Choice(("auto", "f32", "bf16", "int8", "int4")), "of OpenVINO's arithmetic", flag="--precision"
    )
    profile: str | None = setting(
        None,
        Text("name of a card's profile", lambda name: find_profile(name, name)),
        "hold the card to another's limits",
        variable="RELIGHT_PRETEND",
    )
    prompt_cache: bool = setting(True, Switch(), "keep what text encoders gave on disk", flag="--no-prompt-cache")
    checks: bool = setting(True, Switch(), "look at what came out", flag="--no-checks")
    hang_seconds: float = setting(
        60.0, Real(0, 1e6), "a worker that gives no sign for so long is ended; much longer for what is new; 0: never"
    )


@dataclass(frozen=True, kw_only=True)
class Picture:
    negative: str = setting("", Text(), "what pictures should not show", flag="--negative")
    sampler: str | None = setting(
        None, Text("name of a sampler", names.sampler), "default: the model's", flag="--sampler"
    )
    schedule: str | None = setting(
        None, Text("name of a schedule", names.schedule), "default: the sampler's", flag="--schedule"
    )
    clip_skip: int | None = setting(None, Whole(1, 12), "counted from 1; default: the model's", flag="--clip-skip")
    guidance: float | None = setting(None, Real(0, 100), "FLUX.1 dev's; default 3.5", flag="--guidance")
    cfg_rescale: float = setting(0.0, Real(0, 1), "tames the contrast of high scales", flag="--cfg-rescale")
    rng: str = setting(
        "cuda",
        Choice(("cuda", "cpu"), (("philox", "cuda"), ("gpu", "cuda"))),
        "whose noise: A1111's GPU, or ComfyUI's",
        flag="--rng",
    )
    decode_with: str = setting("vae", Choice(("vae", "taesd")), "`taesd` is quick and blurred", flag="--decode-with")


@dataclass(frozen=True, kw_only=True)
class Server:
    address: str = setting("127.0.0.1", Text("address"), "another than this machine's own needs a key")
    port: int = setting(8188, Whole(1, 65535), "of the HTTP server")
    keys_file: Path | None = setting(None, Place(), "hashed keys of those who may ask; default: beside the jobs")
    open_to_network: bool = setting(False, Switch(), "let anybody who reaches the address in, without a key")
    hostnames: tuple[str, ...] = setting((), Many(Text("name")), "names that this machine is reached by")
    origins: tuple[str, ...] = setting((), Many(Text("name")), "web pages whose scripts may ask (CORS)")
    directory: Path | None = setting(None, Place("folder"), "jobs and results; default: the platform's folder for data")
    max_queue: int = setting(256, Whole(1, 100_000), "jobs that may wait")
    max_body: int = setting(64 * MIB, Size(), "of one request; twice as much with files")
    max_pixels: int = setting(4096 * 4096, Whole(64 * 64, 1 << 30), "of the pictures of one request together")
    max_batch: int = setting(16, Whole(1, 64), "pictures of one request")
    keep_days: float = setting(7.0, Real(0, 3650), "results are kept so long")
    keep_jobs: int = setting(10_000, Whole(1, 1_000_000), "so many of them")
    keep_size: int = setting(8 * GIB, Size(), "and so much")
    idle_seconds: float = setting(600.0, Real(0, 1e7), "after which an unused model leaves the card; 0: never")
    drain_seconds: float = setting(20.0, Real(0, 3600), "that what runs may go on after the order to stop")
    pinned: tuple[str, ...] = setting((), Many(Model()), "models that stay: at most one of pictures and one that talks")
    warm: bool = setting(True, Switch(), "time models in use while nobody asks for anything")


@dataclass(frozen=True, kw_only=True)
class Language:
    model: str | None = setting(None, Model(), "a GGUF language model")
    ctx: int = setting(4096, Whole(256, 1 << 21), "tokens of one conversation")
    slots: int = setting(4, Whole(1, 64), "conversations at once")
    n_gpu_layers: int | str = setting("auto", Whole(0, 1000, ("auto",)), "layers on the card; `auto`: as many as fit")
    cache_type: str = setting("f16", Choice(("f16", "q8_0", "q4_0")), "of the KV cache")
    state_ram: int = setting(GIB, Size(), "for conversations that left the card")
    state_disk: int = setting(8 * GIB, Size(), "for those that left the memory")


@dataclass(frozen=True, kw_only=True)
class Settings:
    backend: Backend = section(Backend, "what computes")
    model_routing: Routing = section(Routing, "which file each component is in, and where it runs")
    runtime: Runtime = section(Runtime, "how pictures are made")
    models: Models = section(Models, "where models are")
    engine: Engine = section(Engine, "how it is computed")
    picture: Picture = section(Picture, "what pictures are made like where a request does not say")
    server: Server = section(Server, "`relight serve`")
    language_model: Language = section(Language, "the language model beside the pictures")


@dataclass(frozen=True)
class Entry:
    """One setting. `place` is its dotted name, `default` its value where nothing is said."""

    place: str
    kind: Kind
    default: Any
    words: str
    flag: str
    variable: str

    @property
    def key(self) -> str:
        return self.place.rpartition(".")[2]

    @property
    def section(self) -> str:
        return self.place.rpartition(".")[0]

    @property
    def plain_default(self) -> Any:
        return None if self.default is None else self.kind.plain(self.default)


@cache
def entries() -> Mapping[str, Entry]:
    """All settings by place, in the order of the file."""
    return {entry.place: entry for entry in _walk(Settings, "", NO_FLAG)}


@cache
def sections() -> Mapping[str, str]:
    """Every section's place and words, those within others after them."""
    return dict(_sections(Settings, ""))


def build(values: Mapping[str, Any]) -> Settings:
    """Settings with these values by place, and defaults."""
    made: Settings = _build(Settings, "", values)
    return made


def value_at(settings: Settings, place: str) -> Any:
    found: Any = settings
    for name in place.split("."):
        found = getattr(found, name)
    return found


def _walk(made: type, prefix: str, path_flag: str) -> Iterator[Entry]:
    for each in fields(made):
        about, place = each.metadata, prefix + each.name
        if "section" in about:
            yield from _walk(about["section"], f"{place}.", about["flag"])
            continue
        variable = about["variable"] or "RELIGHT_" + place.replace(".", "_").upper()
        flag = path_flag if each.name == "path" else about["flag"]
        yield Entry(place, about["kind"], each.default, about["words"], flag, variable)


def _sections(made: type, prefix: str) -> Iterator[tuple[str, str]]:
    for each in fields(made):
        if "section" in each.metadata:
            yield prefix + each.name, each.metadata["words"]
            yield from _sections(each.metadata["section"], f"{prefix}{each.name}.")


def _build(made: type, prefix: str, values: Mapping[str, Any]) -> Any:
    given = {}
    for each in fields(made):
        place = prefix + each.name
        if "section" in each.metadata:
            given[each.name] = _build(each.metadata["section"], f"{place}.", values)
        elif place in values:
            given[each.name] = values[place]
    return made(**given)
