"""The options of `relight generate`, and the request and files they stand for."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from relight.errors import ConfigError, RequestError
from relight.images.canny import HIGH, LOW
from relight.images.mask import FILLS
from relight.images.read import read_image, read_mask
from relight.jobs import models
from relight.jobs.request import Control, GenerateRequest, Hires, Lora, ModelFiles, Redraw
from relight.jobs.upscalers import UPSCALERS

FILES = {
    "diffusion": "FLUX.1 transformer or UNet, .gguf or .safetensors",
    "clip_l": "CLIP-L text encoder",
    "clip_g": "CLIP-G text encoder (SDXL)",
    "clip_h": "CLIP-H text encoder (SD 2.x)",
    "t5xxl": "T5 XXL encoder (FLUX.1)",
    "vae": "autoencoder",
    "taesd": "tiny autoencoder, for --decode-with taesd and previews",
    "upscaler": "ESRGAN-family upscaler, for --upscale and --hires-upscaler model",
}


def add_files(g: Any) -> None:
    g.add_argument(
        "--model",
        metavar="NAME|DIR|FILE",
        help="a pulled model (relight models), a folder with its components, or a checkpoint that holds them all",
    )
    for component, what in FILES.items():
        g.add_argument(f"--{component.replace('_', '-')}", type=Path, metavar="FILE", help=what)
    g.add_argument(
        "--t5-tokenizer",
        type=Path,
        metavar="FILE",
        help="tokenizer.json of T5, where it is neither beside it nor in it",
    )
    g.add_argument("--prediction", choices=["eps", "v"], help="what a UNet predicts, where the file does not say")
    g.add_argument(
        "--lora-dir", type=Path, action="append", default=[], metavar="DIR", help="folder of LoRA files (repeatable)"
    )
    g.add_argument(
        "--embedding-dir", type=Path, action="append", default=[], metavar="DIR", help="folder of textual inversions"
    )


def add_picture(g: Any) -> None:
    g.add_argument("--negative", default="", metavar="PROMPT", help="what the picture should not show")
    g.add_argument(
        "--width",
        type=int,
        help="pixels, a multiple of 8 (FLUX.1: 16); default: those of the picture it begins from or follows, up to "
        "twice the model's usual area; without one what the model is for",
    )
    g.add_argument("--height", type=int, help="as --width")
    g.add_argument("--steps", type=int, help="default: 4 for schnell, 1 for SDXL Turbo, else 20")
    g.add_argument("--cfg-scale", type=float, metavar="X", help="how strongly the prompts steer; 1 is a single pass")
    g.add_argument(
        "--cfg-rescale", type=float, default=0.0, metavar="X", help="0 to 1: tame the contrast of high scales"
    )
    g.add_argument("--clip-skip", type=int, metavar="N", help="layers left out at the end, counted from 1 (SDXL: 2)")
    g.add_argument("--seed", type=int, help="default: random")
    g.add_argument("--rng", default="cuda", help="noise as A1111's GPU and stable-diffusion.cpp: cuda; as ComfyUI: cpu")
    g.add_argument("--guidance", type=float, help="distilled guidance, FLUX.1 dev only (default 3.5)")
    g.add_argument("--sampler", help="by ComfyUI's, A1111's or stable-diffusion.cpp's name; default: the model's")
    g.add_argument(
        "--schedule", help="normal, simple, karras, exponential, sgm_uniform, beta ...; default: the sampler's"
    )
    g.add_argument("--sigmas", metavar="A,B,C", help="noise levels instead of a schedule, falling to 0")
    g.add_argument("--batch", type=int, default=1, help="pictures, with seeds counting up (default 1)")
    g.add_argument(
        "--lora", action="append", default=[], metavar="NAME[:WEIGHT]", help="as <lora:NAME:WEIGHT> in the prompt"
    )
    g.add_argument(
        "--decode-with", choices=["vae", "taesd"], default="vae", help="taesd: the tiny one, quick and a little blurred"
    )


def add_redraw(g: Any) -> None:
    g.add_argument("--init-image", type=Path, metavar="FILE", help="begin from this picture")
    g.add_argument("--strength", type=float, metavar="X", help="how much of it is made anew (default 0.75)")
    g.add_argument(
        "--resize", choices=["stretch", "crop", "fill"], help="how it comes to the asked size (default crop)"
    )
    g.add_argument("--mask", type=Path, metavar="FILE", help="paint only where this is white")
    g.add_argument("--mask-blur", type=float, metavar="PIXELS", help="softens its edge (default 4)")
    g.add_argument("--inpaint-fill", choices=FILLS, help="what is under the mask first (default original)")
    g.add_argument("--only-masked", action="store_true", help="make the masked region at full size and put it back")
    g.add_argument("--mask-padding", type=int, metavar="PIXELS", help="around that region (default 32)")


def add_hires(g: Any) -> None:
    g.add_argument("--hires", type=float, metavar="SCALE", help="a second pass at so many times the size")
    g.add_argument("--hires-steps", type=int, metavar="N", help="default: those of the first pass")
    g.add_argument("--hires-strength", type=float, metavar="X", help="how much is made anew (default 0.7)")
    g.add_argument(
        "--hires-upscaler", choices=UPSCALERS, metavar="NAME", help=f"{', '.join(UPSCALERS)} (default latent)"
    )
    g.add_argument("--upscale", type=float, metavar="SCALE", help="make the finished picture larger with --upscaler")


def add_control(g: Any) -> None:
    g.add_argument("--controlnet", type=Path, action="append", default=[], metavar="FILE", help="its file (repeatable)")
    g.add_argument(
        "--control-image", type=Path, action="append", default=[], metavar="FILE", help="what it follows, one for each"
    )
    g.add_argument("--control-strength", type=float, metavar="X", help="of each of them (default 1)")
    g.add_argument("--control-start", type=float, metavar="X", help="share of the steps it begins at (default 0)")
    g.add_argument("--control-end", type=float, metavar="X", help="share of the steps it ends at (default 1)")
    g.add_argument(
        "--canny",
        nargs="?",
        const=f"{LOW},{HIGH}",
        metavar="LOW,HIGH",
        help=f"follow the picture's edges, by these thresholds (default {LOW},{HIGH})",
    )


def add_previews(g: Any) -> None:
    g.add_argument("--preview-dir", type=Path, metavar="DIR", help="write what the picture looks like on the way here")
    g.add_argument("--preview-every", type=int, metavar="N", help="steps between previews (default 1)")


BELONGS_TO = {
    "strength": "init_image",
    "resize": "init_image",
    "mask": "init_image",
    "mask_blur": "mask",
    "inpaint_fill": "mask",
    "only_masked": "mask",
    "mask_padding": "only_masked",
    "hires_steps": "hires",
    "hires_strength": "hires",
    "hires_upscaler": "hires",
    "control_image": "controlnet",
    "control_strength": "controlnet",
    "control_start": "controlnet",
    "control_end": "controlnet",
    "canny": "controlnet",
    "preview_every": "preview_dir",
}
"""Options that mean nothing without another one."""


def check_together(a: argparse.Namespace) -> None:
    """Raises ConfigError for an option without the one it belongs to."""
    for name, needed in BELONGS_TO.items():
        if is_given(a, name) and not is_given(a, needed):
            raise ConfigError(f"{flag(name)} does nothing without {flag(needed)}: give that too, or leave it out")


def is_given(a: argparse.Namespace, name: str) -> bool:
    value = getattr(a, name)
    return not (value is None or value is False or value == [])


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def settings(a: argparse.Namespace, **names: str) -> dict[str, Any]:
    """Those of the options that were given, as keywords: `names` says which keyword is which option."""
    return {keyword: getattr(a, name) for keyword, name in names.items() if getattr(a, name) is not None}


def request(a: argparse.Namespace) -> GenerateRequest:
    """Raises RequestError and ConfigError for what does not go together."""
    check_together(a)
    return GenerateRequest(
        prompt=a.prompt,
        negative_prompt=a.negative,
        width=a.width,
        height=a.height,
        steps=a.steps,
        seed=a.seed,
        rng=a.rng,
        guidance=a.guidance,
        cfg_scale=a.cfg_scale,
        cfg_rescale=a.cfg_rescale,
        clip_skip=a.clip_skip,
        sampler=a.sampler,
        schedule=a.schedule,
        sigmas=numbers("--sigmas", a.sigmas) if a.sigmas is not None else None,
        batch=a.batch,
        tile=a.vae_tile_size,
        redraw=redraw(a),
        hires=hires(a),
        loras=tuple(lora(text) for text in a.lora),
        controls=controls(a),
        upscale=a.upscale,
        decode_with=a.decode_with,
        preview_every=0 if a.preview_dir is None else 1 if a.preview_every is None else a.preview_every,
    )


def redraw(a: argparse.Namespace) -> Redraw | None:
    if a.init_image is None:
        return None
    return Redraw(
        image=read_image(a.init_image, "--init-image"),
        mask=read_mask(a.mask, "--mask") if a.mask is not None else None,
        only_masked=a.only_masked,
        **settings(
            a, strength="strength", fit="resize", mask_blur="mask_blur", fill="inpaint_fill", padding="mask_padding"
        ),
    )


def hires(a: argparse.Namespace) -> Hires | None:
    if a.hires is None:
        return None
    return Hires(
        scale=a.hires, **settings(a, steps="hires_steps", strength="hires_strength", upscaler="hires_upscaler")
    )


def lora(text: str) -> Lora:
    name, colon, weight = text.rpartition(":")
    try:
        return Lora(name, float(weight)) if colon else Lora(text)
    except ValueError:
        return Lora(text)


def controls(a: argparse.Namespace) -> tuple[Control, ...]:
    if len(a.controlnet) != len(a.control_image):
        raise ConfigError(
            f"--controlnet is given {len(a.controlnet)} times and --control-image {len(a.control_image)}: "
            "each needs the other"
        )
    shared = settings(a, strength="control_strength", start="control_start", end="control_end")
    return tuple(
        Control(
            path=path,
            image=read_image(image, "--control-image"),
            canny=thresholds(a.canny) if a.canny is not None else None,
            **shared,
        )
        for path, image in zip(a.controlnet, a.control_image, strict=True)
    )


def numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise RequestError(f"{option} {text}: give numbers with commas, such as 1,0.75,0.5,0.25,0") from error


def thresholds(text: str) -> tuple[int, int]:
    """Of `--canny`. Raises RequestError."""
    try:
        low, high = (int(part) for part in text.split(","))
    except ValueError as error:
        raise RequestError(f"--canny {text}: give two whole numbers with a comma, such as {LOW},{HIGH}") from error
    return low, high


def model_files(a: argparse.Namespace) -> ModelFiles:
    """The files named one by one, and from --model what is not named. Raises ConfigError for what is not there."""
    named = {name: path for name in (*FILES, "t5_tokenizer") if (path := getattr(a, name)) is not None}
    for name, path in named.items():
        if not os.path.exists(path):
            raise ConfigError(f"{flag(name)} {path}: no such file")
    for path in a.controlnet:
        if not os.path.exists(path):
            raise ConfigError(f"--controlnet {path}: no such file")
    tokenizer = named.pop("t5_tokenizer", None)
    return models.model_files(
        a.model,
        named,
        t5_tokenizer=tokenizer,
        prediction=a.prediction,
        lora_folders=a.lora_dir,
        embedding_folders=a.embedding_dir,
    )
