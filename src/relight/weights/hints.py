"""What shapes cannot tell: what a UNet predicts, and whose small networks these are. From tensors that say it,
metadata, files beside, and at last the published file names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MAX_SIDE_FILE_BYTES = 1 << 16
PREDICTIONS = {"epsilon": "eps", "eps": "eps", "v_prediction": "v", "v": "v"}

OF_METADATA = (
    (re.compile(r"xl", re.I), "sdxl"),
    (re.compile(r"flux", re.I), "flux"),
    (re.compile(r"v2|sd_2|diffusion-2", re.I), "sd2"),
    (re.compile(r"v1|sd_1|diffusion-1", re.I), "sd1"),
)
OF_TAESD = (
    (re.compile(r"taesd_?xl|sdxl", re.I), "sdxl"),
    (re.compile(r"taef1|flux", re.I), "flux"),
    (re.compile(r"taesd(?!_?3)", re.I), "sd1"),
)
OF_VAE = (
    (re.compile(r"xl", re.I), "sdxl"),
    (re.compile(r"840000|560000|ft[-_](mse|ema)|kl-f8|sd[-_]?v?1|v1-5", re.I), "sd1"),
)


def prediction(names: Iterable[str], metadata: Mapping[str, Any]) -> str | None:
    """`eps`, `v`, or None where the file does not say. SD 1.x and SDXL predict noise unless something says v; SD 2.x at
    768 pixels predicts v, at 512 noise, and their shapes are the same."""
    if "v_pred" in names:
        return "v"
    stated = metadata.get("modelspec.prediction_type")
    if isinstance(stated, str) and stated in PREDICTIONS:
        return PREDICTIONS[stated]
    architecture = metadata.get("modelspec.architecture")
    return "v" if isinstance(architecture, str) and architecture.endswith("-768-v") else None


def prediction_beside(checkpoint: Path, model: str) -> str | None:
    """From diffusers' scheduler in the folder above, A1111's `.yaml` of the same name, or SD 2.x' published names."""
    scheduler = _text(checkpoint.parent.parent / "scheduler" / "scheduler_config.json")
    try:
        stated = json.loads(scheduler).get("prediction_type") if checkpoint.parent.name == "unet" else None
    except (ValueError, AttributeError, RecursionError):
        stated = None
    if isinstance(stated, str) and stated in PREDICTIONS:
        return PREDICTIONS[stated]
    if match := re.search(r"parameterization:\s*[\"']?(eps|v)\b", _text(checkpoint.with_suffix(".yaml"))):
        return match[1]
    if model == "sd2":
        return "v" if "768" in checkpoint.name else "eps" if "512" in checkpoint.name else None
    return None


def model_of(kind: str, path: Path, metadata: Mapping[str, Any]) -> str:
    """The family of models of a LoRA by its metadata, of a tiny autoencoder or VAE by its published name; else ""."""
    text = ""
    table: tuple[tuple[re.Pattern[str], str], ...] = OF_METADATA
    if kind in ("lora", "embedding"):
        stated = (metadata.get(key) for key in ("modelspec.architecture", "ss_base_model_version"))
        text = " ".join(value for value in stated if isinstance(value, str))
    elif kind in ("taesd", "vae"):
        table = OF_TAESD if kind == "taesd" else OF_VAE
        text = f"{path.parent.name}/{path.name}" if path.name.startswith("diffusion_pytorch") else path.name
    return next((model for pattern, model in table if pattern.search(text)), "")


def _text(path: Path) -> str:
    """The text of a small file, or nothing."""
    try:
        return path.read_text(encoding="utf-8") if path.stat().st_size <= MAX_SIDE_FILE_BYTES else ""
    except (OSError, ValueError):
        return ""
