"""Make the golden files of networks with LoRAs, and the names of LoRAs' layers: `python tests/golden/make_lora.py`.

Needs torch, diffusers and peft, which nothing else here does. Made with torch 2.13, diffusers 0.42 and peft 0.21.
Inputs are those of the networks without LoRAs; the LoRAs' weights come from `weights.py`, by the names kept here.
"""

from __future__ import annotations

import json
import lzma
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import make
import numpy as np
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file

import weights as g

NAMES = Path(__file__).parent.parent / "weights/lora_names.json.xz"


def main() -> None:
    torch.set_grad_enabled(False)
    files = flux_files() | unet_files()
    make.save("lora_flux", velocity=flux(files))
    make.save("lora_unet", noise=unet(files))
    layers = {
        "SD 1.5": unet_layers("sd1"),
        "SD 2.1": unet_layers("sd2"),
        "SDXL": unet_layers("sdxl"),
        "FLUX": flux_layers(),
    }
    text = json.dumps({"files": files, "layers": layers})
    NAMES.write_bytes(lzma.compress(text.encode(), preset=9))


@dataclass
class Trained:
    """A LoRA that a trainer of diffusers would save: rank, strength and the layers it changes."""

    rank: int
    alpha: float
    layers: list[str]
    rslora: bool = False


FLUX = {
    "flux, all layers": Trained(
        4,
        8.0,
        "to_q to_k to_v to_out.0 add_q_proj add_k_proj add_v_proj to_add_out proj_mlp proj_out net.0.proj net.2 "
        "norm.linear norm1.linear norm1_context.linear norm_out.linear x_embedder context_embedder linear_1 "
        "linear_2".split(),
    ),
    "flux, queries": Trained(3, 3.0, ["to_q", "add_q_proj"], rslora=True),
}
UNET = {
    "unet, all layers": Trained(
        4,
        2.0,
        "to_q to_k to_v to_out.0 net.0.proj net.2 proj_in proj_out conv1 conv2 conv_shortcut time_emb_proj conv "
        "conv_in conv_out linear_1 linear_2".split(),
    ),
    "unet, keys": Trained(5, 5.0, ["to_k"]),
}
STRENGTHS = (0.5, -0.3)
PUBLISHED = {
    "sd1": g.UnetSpec((320, 640, 1280, 1280), (1, 1, 1, 0), 1, 768, linear_projection=False),
    "sd2": g.UnetSpec((320, 640, 1280, 1280), (1, 1, 1, 0), 1, 1024),
    "sdxl": g.UnetSpec((320, 640, 1280), (0, 2, 10), 10, 2048, label=2816),
}


def flux_files() -> dict[str, Any]:
    return {name: saved(new_flux(), trained, FluxPipeline, "transformer") for name, trained in FLUX.items()}


def unet_files() -> dict[str, Any]:
    return {
        name: saved(make.published_unet("sd1"), trained, StableDiffusionPipeline, "unet")
        for name, trained in UNET.items()
    }


def saved(model: Any, trained: Trained, pipeline: Any, part: str) -> dict[str, Any]:
    """Names, shapes and metadata of the file that diffusers writes."""
    config = LoraConfig(
        r=trained.rank, lora_alpha=trained.alpha, target_modules=trained.layers, use_rslora=trained.rslora
    )
    model.add_adapter(config)
    with tempfile.TemporaryDirectory() as folder:
        pipeline.save_lora_weights(
            folder,
            **{f"{part}_lora_layers": get_peft_model_state_dict(model)},
            **_collate_lora_metadata({part: model}),
        )
        with safe_open(next(Path(folder).iterdir()), "pt") as file:
            shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}
            return {"shapes": shapes, "metadata": file.metadata()}


def loaded(model: Any, files: dict[str, Any], names: list[str], load: Callable[..., None]) -> None:
    """Put LoRAs of random weights on a model, as diffusers reads them from files."""
    for i, name in enumerate(names):
        arrays = g.random_weights({key: tuple(shape) for key, shape in files[name]["shapes"].items()}, seed=20 + i)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "pytorch_lora_weights.safetensors")
            save_file({key: torch.from_numpy(array) for key, array in arrays.items()}, path, files[name]["metadata"])
            load(model, path, f"lora{i}")
    model.set_adapters([f"lora{i}" for i in range(len(names))], list(STRENGTHS))


def new_flux() -> FluxTransformer2DModel:
    model = FluxTransformer2DModel(
        in_channels=64,
        num_layers=g.FLUX_DOUBLE,
        num_single_layers=g.FLUX_SINGLE,
        attention_head_dim=g.FLUX_HIDDEN // g.FLUX_HEADS,
        num_attention_heads=g.FLUX_HEADS,
        joint_attention_dim=g.FLUX_TEXT,
        pooled_projection_dim=g.FLUX_POOLED,
        guidance_embeds=False,
        axes_dims_rope=(16, 56, 56),
    )
    make.load(model, make.diffusers_flux(g.random_weights(g.flux_shapes(False))))
    return model


def flux(files: dict[str, Any]) -> np.ndarray:
    """As `make.flux`, for its first timestep."""

    def load(model: Any, path: Path, adapter: str) -> None:
        state, metadata = FluxPipeline.lora_state_dict(path, return_lora_metadata=True)
        FluxPipeline.load_lora_into_transformer(state, None, model, adapter_name=adapter, metadata=metadata)

    model = new_flux()
    loaded(model, files, list(FLUX), load)
    with np.load(make.HERE / "flux_schnell.npz") as inputs:
        image_ids = np.zeros((35, 3), np.float32)
        image_ids[:, 1:] = np.mgrid[:5, :7].reshape(2, -1).T
        velocity: np.ndarray = model(
            hidden_states=torch.from_numpy(inputs["latents"]),
            encoder_hidden_states=torch.from_numpy(inputs["text"]),
            pooled_projections=torch.from_numpy(inputs["pooled"]),
            timestep=torch.tensor([float(inputs["timesteps"][0])]),
            img_ids=torch.from_numpy(image_ids),
            txt_ids=torch.zeros(11, 3),
        ).sample.numpy()
    return velocity


def unet(files: dict[str, Any]) -> np.ndarray:
    def load(model: Any, path: Path, adapter: str) -> None:
        state, alphas, metadata = StableDiffusionPipeline.lora_state_dict(path, return_lora_metadata=True)
        StableDiffusionPipeline.load_lora_into_unet(state, alphas, model, adapter_name=adapter, metadata=metadata)

    model = make.published_unet("sd1")
    loaded(model, files, list(UNET), load)
    with np.load(make.HERE / "unet_sd1.npz") as inputs:
        noise: np.ndarray = model(**make.called_with({k: v for k, v in inputs.items() if k != "noise"})).sample.numpy()
    return noise


def unet_layers(kind: str) -> dict[str, list[int]]:
    """Every layer with a matrix or kernel in diffusers' UNet of a published size."""
    spec = PUBLISHED[kind]
    up = tuple("CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(spec.depths))
    with torch.device("meta"):
        return layers_of(UNet2DConditionModel(**make.unet_settings(spec) | {"up_block_types": up}))


def flux_layers() -> dict[str, list[int]]:
    with torch.device("meta"):
        return layers_of(FluxTransformer2DModel(guidance_embeds=True))


def layers_of(model: torch.nn.Module) -> dict[str, list[int]]:
    return {
        name.removesuffix(".weight"): list(tensor.shape)
        for name, tensor in model.state_dict().items()
        if name.endswith(".weight") and tensor.ndim >= 2
    }


if __name__ == "__main__":
    main()
