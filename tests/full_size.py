"""Model files of full size whose headers are whole and whose weights are holes: they take a few kilobytes of disk."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flux_shapes import PRESETS as FLUX
from flux_shapes import clip_shapes, flux_shapes, t5_shapes, vae_shapes
from relight.weights.formats import FORMATS, nbytes
from relight.weights.gguf import MAGIC
from relight.weights.safetensors import DTYPES
from sd_shapes import PRESETS as SD
from sd_shapes import checkpoint_shapes

Shapes = Mapping[str, tuple[int, ...]]
KEPT_WIDE = ("img_in", "txt_in", "time_in", "vector_in", "guidance_in", "final_layer")


def flux(folder: Path, format_name: str = "Q4_K", t5: str = "F16") -> Path:
    """FLUX.1 schnell as city96 quantises it, with CLIP-L, T5 XXL and the autoencoder beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = FLUX["full"]
    write_flux(folder / f"flux1-schnell-{format_name}.gguf", format_name)
    safetensors(folder / "clip_l.safetensors", clip_shapes(), "F16")
    if t5 in ("F16", "F8_E4M3"):
        safetensors(folder / "t5xxl.safetensors", t5_shapes(sizes), t5)
    safetensors(folder / "ae.safetensors", vae_shapes(sizes.vae_channels), "F32")
    return folder


def write_flux(path: Path, format_name: str) -> None:
    def chosen(name: str, shape: tuple[int, ...]) -> str:
        if len(shape) == 1:
            return "F32"
        return "F16" if name.startswith(KEPT_WIDE) else format_name

    shapes = flux_shapes(FLUX["full"])
    gguf(path, {name: (shape, chosen(name, shape)) for name, shape in shapes.items()}, {"general.architecture": "flux"})


def stable_diffusion(path: Path, preset: str = "sd15") -> Path:
    """One checkpoint in F16 with UNet, text encoders and autoencoder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors(path, checkpoint_shapes(SD[preset]), "F16")
    return path


def language_model(path: Path, *, layers: int = 32, width: int = 4096, heads: int = 32, kv_heads: int = 8) -> Path:
    """A Llama-like model of 8 billion weights in Q4_K."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kv, inner, vocabulary = width // heads * kv_heads, 14336 * width // 4096, 128256
    tensors = {"token_embd.weight": ((vocabulary, width), "Q4_K"), "output.weight": ((vocabulary, width), "Q6_K")}
    for i in range(layers):
        for name, shape in {
            "attn_q": (width, width),
            "attn_k": (kv, width),
            "attn_v": (kv, width),
            "attn_output": (width, width),
            "ffn_gate": (inner, width),
            "ffn_up": (inner, width),
            "ffn_down": (width, inner),
        }.items():
            tensors[f"blk.{i}.{name}.weight"] = (shape, "Q4_K")
        tensors[f"blk.{i}.attn_norm.weight"] = ((width,), "F32")
    tensors["output_norm.weight"] = ((width,), "F32")
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": layers,
        "llama.embedding_length": width,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.context_length": 131072,
    }
    gguf(path, tensors, metadata)
    return path


def safetensors(path: Path, shapes: Shapes, format_name: str) -> None:
    dtype = {name: dtype for dtype, name in DTYPES.items()}[format_name]
    header: dict[str, Any] = {}
    offset = 0
    for name, shape in shapes.items():
        end = offset + nbytes(format_name, shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        out.truncate(out.tell() + offset)


def gguf(path: Path, tensors: Mapping[str, tuple[tuple[int, ...], str]], metadata: Mapping[str, str | int]) -> None:
    head = [MAGIC, struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        typed = struct.pack("<I", 8) + _string(value) if isinstance(value, str) else struct.pack("<II", 4, value)
        head.append(_string(key) + typed)
    offset = 0
    for name, (shape, form) in tensors.items():
        kind = FORMATS[form].ggml_type
        head.append(_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, offset))
        offset += -(-nbytes(form, shape) // 32) * 32
    whole = b"".join(head)
    with path.open("wb") as out:
        out.write(whole + bytes(-len(whole) % 32))
        out.truncate(out.tell() + offset)


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()
