"""Make the golden samplers and schedules: `python tests/golden/make_samplers.py COMFYUI K_DIFFUSION`.

Runs the published functions of a ComfyUI checkout (January 2026), of the k_diffusion 0.1.1 package folder and of
diffusers 0.42 on a toy network, in float64, with the noise given. Needs torch, scipy, torchsde, torchdiffeq and
diffusers, which nothing else here does. What ComfyUI has from k-diffusion must agree between the two.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

SAMPLING = Path(__file__).parent.parent / "sampling"
SHAPE = (1, 2, 3, 4)
DRAWS = 24
STEPS = [1, 2, 3, 4, 7, 12]
SCHEDULE_STEPS = [1, 2, 4, 7, 10, 20, 33, 150]
SCHEDULES = ["simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal", "kl_optimal"]
MU = 1.15
SAMPLERS = [
    "euler", "euler_ancestral", "heun", "dpm_2", "dpm_2_ancestral", "lms", "dpmpp_2s_ancestral", "dpmpp_sde",
    "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde", "lcm", "res_multistep",
]  # fmt: skip
ETA = ["euler_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"]


class Empty(types.ModuleType):
    """A module of the user interface that the arithmetic does not need."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Empty(name)


def load(comfyui: Path, k_diffusion: Path) -> None:
    """Let the files be imported without the programs around them."""
    from tqdm import trange

    for name in ("model_management", "sampler_helpers", "model_patcher", "patcher_extension", "hooks", "utils"):
        sys.modules[f"comfy.{name}"] = Empty(name)
    for name in ("context_windows", "memory_management"):
        sys.modules[f"comfy.{name}"] = Empty(name)
    sys.modules["comfy.utils"].model_trange = trange
    for package, folder in {
        "comfy": comfyui / "comfy",
        "comfy.k_diffusion": comfyui / "comfy/k_diffusion",
        "comfy.extra_samplers": comfyui / "comfy/extra_samplers",
        "comfy.ldm": comfyui / "comfy/ldm",
        "comfy.ldm.modules": comfyui / "comfy/ldm/modules",
        "comfy.ldm.modules.diffusionmodules": comfyui / "comfy/ldm/modules/diffusionmodules",
        "comfy_extras": comfyui / "comfy_extras",
        "k_diffusion": k_diffusion,
    }.items():
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = [str(folder)]
    sys.modules["comfy.ldm.modules.diffusionmodules.util"] = betas = types.ModuleType("util")
    betas.make_beta_schedule = make_betas
    sys.modules["k_diffusion.utils"] = utils = types.ModuleType("utils")
    utils.append_dims = lambda x, count: x[(...,) + (None,) * (count - x.ndim)]
    sys.modules["comfy_api"] = Empty("comfy_api")
    sys.modules["comfy_api.latest"] = latest = types.ModuleType("latest")
    latest.ComfyExtension, latest.io = object, types.SimpleNamespace(ComfyNode=object, NodeOutput=Result, Schema=None)


class Result:
    def __init__(self, *result: Any) -> None:
        self.result = result


def make_betas(schedule: str, count: int, linear_start: float, linear_end: float, **_: Any) -> torch.Tensor:
    assert schedule == "linear"
    return torch.linspace(linear_start**0.5, linear_end**0.5, count, dtype=torch.float64) ** 2


def spaces() -> dict[str, Any]:
    sampling = importlib.import_module("comfy.model_sampling")

    class Discrete(sampling.ModelSamplingDiscrete, sampling.EPS):
        pass

    class V(sampling.ModelSamplingDiscrete, sampling.V_PREDICTION):
        pass

    class Dev(sampling.ModelSamplingFlux, sampling.CONST):
        pass

    class Schnell(sampling.ModelSamplingDiscreteFlow, sampling.CONST):
        pass

    settings = {
        "discrete": (Discrete, {}),
        "v": (V, {}),
        "zero_snr": (Discrete, {"zsnr": True}),
        "dev": (Dev, {"shift": MU}),
        "schnell": (Schnell, {"shift": 1.0, "multiplier": 1.0}),
    }
    return {name: kind(types.SimpleNamespace(sampling_settings=fields)) for name, (kind, fields) in settings.items()}


class Network:
    """A denoiser any sampler can be run on: the weights and the noise are in the fixture."""

    def __init__(self, arrays: dict[str, np.ndarray], space: Any) -> None:
        self.mix, self.bias = (torch.tensor(arrays[name], dtype=torch.float64) for name in ("mix", "bias"))
        model_sampling = types.SimpleNamespace(model_sampling=space)
        patcher = types.SimpleNamespace(get_model_object=lambda name: space)
        self.inner_model = types.SimpleNamespace(inner_model=model_sampling, model_patcher=patcher)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, **_: Any) -> torch.Tensor:
        level = float(sigma.reshape(-1)[0])
        flat = x.reshape(-1)
        return torch.tanh(self.mix @ flat / (1 + level) + self.bias * (1 + level / (1 + level))).reshape(x.shape)


class Noise:
    """Draws in order. Of a Brownian path over sigma where a step asks for a part of it before the whole."""

    def __init__(self, draws: np.ndarray) -> None:
        self.draws: Iterator[torch.Tensor] = iter(torch.tensor(draws, dtype=torch.float64))
        self.begin, self.reached, self.path = -1.0, -1.0, torch.zeros(SHAPE, dtype=torch.float64)

    def __call__(self, sigma: Any, target: Any) -> torch.Tensor:
        begin, end = float(sigma), float(target)
        if begin != self.begin:
            self.begin, self.reached, self.path = begin, begin, torch.zeros(SHAPE, dtype=torch.float64)
        self.path = self.path + next(self.draws) * (self.reached - end) ** 0.5
        self.reached = end
        return self.path / (begin - end) ** 0.5


def samplers(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    comfy = importlib.import_module("comfy.k_diffusion.sampling")
    published = importlib.import_module("k_diffusion.sampling")
    uni_pc = importlib.import_module("comfy.extra_samplers.uni_pc")
    uni_pc.trange = comfy.trange = published.trange = lambda count, **_: range(count)
    out = {}
    for kind, space in {name: space for name, space in spaces().items() if name in ("discrete", "dev")}.items():
        for steps in STEPS:
            sigmas = arrays[f"sigmas/{kind}/{steps}"]

            def run(
                function: Callable[..., torch.Tensor], space: Any = space, levels: Any = sigmas, **more: Any
            ) -> Any:
                start = torch.tensor(arrays["start"], dtype=torch.float64) * float(levels[0])
                network = Network(arrays, space)
                return function(network, start, torch.tensor(levels, dtype=torch.float64), disable=True, **more).numpy()

            def noise() -> dict[str, Any]:
                return {"noise_sampler": Noise(arrays["draws"])}

            for name in SAMPLERS:
                function = getattr(comfy, f"sample_{name}")
                drawn = noise() if "noise_sampler" in inspect.signature(function).parameters else {}
                out[f"{name}/{kind}/{steps}"] = run(function, **drawn)
                # k-diffusion's lms has another last step, and its sde methods need two.
                both = kind == "discrete" and name != "lms" and (steps > 1 or "sde" not in name)
                if both and hasattr(published, f"sample_{name}"):
                    other = run(getattr(published, f"sample_{name}"), **(noise() if drawn else {}))
                    np.testing.assert_allclose(out[f"{name}/{kind}/{steps}"], other, rtol=1e-9, atol=1e-9, err_msg=name)
            for name in ETA:
                function = getattr(comfy, f"sample_{name}")
                out[f"{name}:0.6/{kind}/{steps}"] = run(function, eta=0.6, s_noise=0.9, **noise())
            if steps > 1:  # of one step ComfyUI's returns the noise
                out[f"uni_pc/{kind}/{steps}"] = run(uni_pc.sample_unipc, extra_args={})
                out[f"uni_pc_bh2/{kind}/{steps}"] = run(uni_pc.sample_unipc_bh2, extra_args={})
    return out


def schedules() -> dict[str, np.ndarray]:
    comfy = importlib.import_module("comfy.samplers")
    aligned = importlib.import_module("comfy_extras.nodes_align_your_steps").AlignYourStepsScheduler
    out = {}
    for kind, space in spaces().items():
        if kind == "v":
            continue
        for name in SCHEDULES:
            for steps in SCHEDULE_STEPS:
                if name != "kl_optimal" or steps > 1:  # of one step ComfyUI's is not a number
                    out[f"{name}/{kind}/{steps}"] = comfy.calculate_sigmas(space, name, steps).numpy()
    for family, kind in (("sd1", "SD1"), ("sdxl", "SDXL")):
        for steps in SCHEDULE_STEPS:
            out[f"align_your_steps/{family}/{steps}"] = aligned.execute(kind, steps, 1.0).result[0].numpy()
    return out


def spaces_numbers(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tables, and what a network's output means, for one x and output at a few sigmas."""
    out = {}
    x, output = (torch.tensor(arrays["draws"][i], dtype=torch.float64) for i in (0, 1))
    for kind, space in spaces().items():
        out[f"levels/{kind}"] = space.sigmas.numpy()[[0, 1, 2, 499, -2, -1]]
        for sigma in (0.03, 0.5, 1.0) if kind in ("dev", "schnell") else (0.03, 0.5, 5.0, 14.6):
            level = torch.tensor([sigma], dtype=torch.float64)
            out[f"denoised/{kind}/{sigma}"] = space.calculate_denoised(level, output, x).numpy()
            out[f"input/{kind}/{sigma}"] = space.calculate_input(level, x).numpy()
            out[f"noisy/{kind}/{sigma}"] = space.noise_scaling(level, output.clone(), x).numpy()
    return out


def diffusers_numbers(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Whole runs of diffusers' schedulers, whose steps are in the scaled space of the network's input."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

    sd = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    network = Network(arrays, None)
    made = {
        "euler": EulerDiscreteScheduler(**sd, timestep_spacing="linspace"),
        "ddim": DDIMScheduler(**sd, clip_sample=False, set_alpha_to_one=True, steps_offset=1),
        "dpmpp_2m": DPMSolverMultistepScheduler(**sd, use_karras_sigmas=True),
    }
    out = {}
    for name, scheduler in made.items():
        for steps in (4, 10, 20):
            scheduler.set_timesteps(steps)
            alphas = scheduler.alphas_cumprod.double()
            places = scheduler.timesteps
            sigmas = ((1 - alphas) / alphas).sqrt()[places] if name == "ddim" else scheduler.sigmas[:-1].double()
            scaled = name != "euler"  # diffusers' Euler steps x itself
            x = torch.tensor(arrays["start"], dtype=torch.float64) * sigmas[0]
            scheduler.is_scale_input_called = True  # no warning: the network here takes x as it is
            for sigma, following, t in zip(sigmas, [*sigmas[1:], torch.tensor(0.0)], places, strict=True):
                eps = (x - network(x, sigma)) / sigma
                scale = (sigma**2 + 1).sqrt() if scaled else torch.tensor(1.0)
                x = scheduler.step(eps, t, x / scale).prev_sample
                x = x.double() * ((following**2 + 1).sqrt() if scaled else 1)
            out[f"{name}/{steps}/sigmas"] = sigmas.numpy()
            out[f"{name}/{steps}"] = x.numpy()
    return out


def main() -> None:
    load(Path(sys.argv[1]), Path(sys.argv[2]))
    random = np.random.default_rng(0)
    size = int(np.prod(SHAPE))
    arrays = {
        "mix": random.standard_normal((size, size)).astype(np.float32) / 4,
        "bias": random.standard_normal(size).astype(np.float32),
        "start": random.standard_normal(SHAPE).astype(np.float32),
        "draws": random.standard_normal((DRAWS, *SHAPE)).astype(np.float32),
    }
    comfy = importlib.import_module("comfy.samplers")
    for kind, space in spaces().items():
        for steps in STEPS:
            sigmas = comfy.calculate_sigmas(space, "karras" if kind == "discrete" else "simple", steps)
            arrays[f"sigmas/{kind}/{steps}"] = sigmas.numpy()
    torch.set_default_dtype(torch.float64)  # UniPC's small matrices are of it
    runs = samplers(arrays)
    torch.set_default_dtype(torch.float32)
    made = {
        "samplers": arrays | runs,
        "schedules": schedules(),
        "spaces": spaces_numbers(arrays),
        "diffusers": diffusers_numbers(arrays),
    }
    for name, numbers in made.items():
        kept = {key: value.astype(np.float32) for key, value in numbers.items()}
        np.savez_compressed(SAMPLING / f"{name}.npz", **kept)
        print(name, len(kept), (SAMPLING / f"{name}.npz").stat().st_size)


if __name__ == "__main__":
    main()
