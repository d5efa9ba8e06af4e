"""stable-diffusion.cpp, as it comes inside the wheel cyllama-vulkan, answering for `side.Side`.

Settings that make its pictures equal to relight's: `custom_sigmas`, the same sampler, rng `cuda` (Philox by seed), no
VAE tiling; for FLUX.1 one chunk of 256 T5 tokens (so prompts of at most 255), for SDXL a negative prompt that is not
empty or cfg_scale 1; prompts without a comma among the last 20 tokens before a chunk of 75 is full.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from sdcpp_log import PictureLog
from side import Values, serve

SAMPLERS = {"euler": "EULER", "euler_ancestral": "EULER_A", "dpmpp_2m": "DPMPP2M", "heun": "HEUN", "dpm2": "DPM2"}


class StableDiffusionCpp:
    """Settings: `files` by component (FLUX.1) or `model`, a checkpoint; `threads`, `backend`, `max_vram`, `flash`,
    `conv_direct` (of the autoencoder), `unet_direct`, `tile` (latent pixels), `prediction` (`EPS`, `V`).

    Weights are loaded with the first picture, as that library does.
    """

    def __init__(self, settings: Values) -> None:
        from cyllama import sd

        self.sd = sd
        self.log = PictureLog()
        sd.set_log_callback(self._on_line)
        sd.set_progress_callback(lambda step, steps, seconds: self.log.on_progress(step))
        self.tile: int | None = settings.get("tile")
        self.context = sd.SDContext(self._parameters(settings))

    def _parameters(self, settings: Values) -> Any:
        p = self.sd.SDContextParams()
        if "model" in settings:
            p.model_path = settings["model"]
        else:
            files = settings["files"]
            p.diffusion_model_path = files["diffusion"]
            p.clip_l_path, p.t5xxl_path, p.vae_path = files["clip_l"], files["t5xxl"], files["vae"]
        if "prediction" in settings:
            p.prediction = self.sd.Prediction[settings["prediction"]]
        p.n_threads = settings["threads"]
        p.rng_type = self.sd.RngType.CUDA
        p.auto_fit = False
        p.backend = settings["backend"]
        p.diffusion_flash_attn = settings.get("flash", False)
        p.vae_conv_direct = settings.get("conv_direct", False)
        p.diffusion_conv_direct = settings.get("unet_direct", False)
        if settings.get("max_vram"):
            p.max_vram = str(settings["max_vram"])
        return p

    def _on_line(self, level: Any, text: str) -> None:
        self.log.on_line(text)
        print(text, end="", file=sys.stderr)

    def picture(self, values: Values) -> Values:
        self.log = PictureLog()
        started = time.perf_counter()
        images = self.context.generate_with_params(self._request(values))
        seconds = time.perf_counter() - started
        if values.get("save"):
            images[0].save(values["save"])
        memory = {"compute_bytes": self.log.compute_bytes, "params_bytes": self.log.params_bytes}
        return {"seconds": self.log.seconds | {"total": round(seconds, 4)}, "memory": memory}

    def _request(self, values: Values) -> Any:
        g = self.sd.SDImageGenParams()
        g.prompt, g.width, g.height, g.seed = values["prompt"], values["width"], values["height"], values["seed"]
        g.negative_prompt, g.batch_count = values.get("negative_prompt", ""), values.get("batch", 1)
        g.clip_skip = values.get("clip_skip", -1)
        sample = g.sample_params
        sample.sample_method = getattr(self.sd.SampleMethod, SAMPLERS[values.get("sampler", "euler")])
        sample.cfg_scale = values.get("cfg_scale", 1.0)
        sample.sample_steps = len(values["sigmas"]) - 1
        sample.custom_sigmas = values["sigmas"]
        if self.tile:
            g.vae_tiling_enabled = True
            g.vae_tile_size = (self.tile, self.tile)
        return g


def start(settings: Values) -> tuple[Values, Any]:
    side = StableDiffusionCpp(settings)
    devices = [list(device) for device in side.sd.list_devices()]
    return {"devices": devices, "params_bytes": side.log.planned_bytes}, side.picture


if __name__ == "__main__":
    serve(start)
