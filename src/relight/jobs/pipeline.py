"""FLUX.1 from prompt to picture: Prompt -> Conditioning -> Latents -> Picture, each stage where the plan put it.

What different workers do for one picture runs side by side where nothing waits for it: the GPU takes its weights while
the CPU encodes the text, and one picture is decoded while the next is denoised.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np

from relight.errors import RelightError
from relight.executors.base import MemoryUse
from relight.jobs.checks import Checked, Tokens
from relight.jobs.clock import Clock
from relight.jobs.events import Advanced, Listener, Planned, Warned
from relight.jobs.fleet import EngineSettings, Fleet
from relight.jobs.request import GenerateRequest, ModelFiles
from relight.models.tiling import tile_candidates
from relight.models.tokenizers import TokenIds
from relight.planner.backends import COMPONENTS, parse
from relight.planner.placement import GIB, Placement, place
from relight.sampling import latents as latent_space
from relight.sampling import noise, sigmas

SCHNELL_STEPS, DEV_STEPS = 4, 20
SCHNELL_TEXT_TOKENS, DEV_TEXT_TOKENS = 256, 512
DEV_GUIDANCE = 3.5
WAIT_S = 0.2
CUT_SHOWN = 200

Sizes = dict[str, int]


@dataclass(frozen=True)
class Picture:
    """`image` [height width 3] uint8."""

    image: np.ndarray
    seed: int


@dataclass
class Result:
    """`report` is what `relight generate --json` prints."""

    pictures: list[Picture]
    report: dict[str, Any]


class Pipeline(AbstractContextManager["Pipeline"]):
    """Keeps workers and weights between pictures. Raises RelightError for files that do not belong together."""

    def __init__(self, files: ModelFiles, settings: EngineSettings | None = None) -> None:
        self.settings = settings or EngineSettings()
        self.wanted = parse(self.settings.backend)
        self.checked = Checked(files)
        self.config = self.checked.flux
        self.fleet = Fleet(files, self.settings)
        self._placements: dict[tuple[int, ...], Placement] = {}
        self._unfinished: list[Future[Any]] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.fleet.close(at_once=error is not None)

    def generate(self, request: GenerateRequest, tell: Listener = lambda event: None) -> Result:
        """All pictures of a request. `tell` is called from several threads. Raises RelightError."""
        request = request.with_seed()
        clock = Clock()
        levels = self._levels(request)
        sizes = self._sizes(request, len(levels) - 1)
        tokens = self.checked.tokens(request.prompt, sizes["text_tokens"])
        warn_if_cut(tokens.t5, sizes["text_tokens"], tell)
        wait([task for task in self._unfinished if not task.cancelled()])
        if self.fleet.drop_lost():
            self._placements.clear()
        with clock.measure("plan"):
            placement = self._place(sizes, request.tile)
        sizes["tile"] = placement.tile
        tell(Planned(placement.device, self._predicted(placement), explain(placement)))
        run = Run(self, request, tokens, sizes, levels, clock, tell)
        self._unfinished = run.tasks
        pictures = run.pictures()
        self._unfinished = []
        return Result(pictures, self._report(request, placement, clock, levels))

    def _levels(self, request: GenerateRequest) -> np.ndarray:
        if request.sigmas is not None:
            return sigmas.given(request.sigmas)
        distilled = self.config.guidance_embed
        steps = request.steps or (DEV_STEPS if distilled else SCHNELL_STEPS)
        tokens = latent_space.image_tokens(request.width, request.height)
        return sigmas.schedule(request.schedule, steps, tokens, distilled_guidance=distilled)

    def _sizes(self, request: GenerateRequest, steps: int) -> Sizes:
        _, height, width = latent_space.latent_shape(request.width, request.height)
        usual = DEV_TEXT_TOKENS if self.config.guidance_embed else SCHNELL_TEXT_TOKENS
        sizes = {"text_tokens": request.text_tokens or usual, "latent_height": height, "latent_width": width}
        return sizes | {"steps": steps, "tile": request.tile or max(height, width)}

    def _place(self, sizes: Sizes, tile: int | None) -> Placement:
        """Settle where everything goes and open it there. Raises DoesNotFit."""
        key = (*sizes.values(), tile or 0)
        fleet = self.fleet
        named = {device for device in self.wanted.values() if device.startswith("vulkan")}
        gpu = fleet.find_gpu(named, needed="auto" in self.wanted.values())
        if key not in self._placements:

            def measure(component: str, device: str, tile: int) -> MemoryUse:
                return fleet.measure(component, device, sizes | {"tile": tile})

            tiles = tile_candidates(sizes["latent_height"], sizes["latent_width"])
            self._placements[key] = place(
                self.wanted,
                gpu=gpu.name if gpu else None,
                budget=gpu.budget if gpu else 0,
                tiles=tiles,
                tile=tile,
                measure=measure,
            )
        placement = self._placements[key]
        for component, device in placement.device.items():
            fleet.open(component, device)
        if gpu:
            fleet.worker(gpu.name).call("keep_programs", {"executor": gpu.name, "keep": placement.keep_programs})
        return placement

    def _predicted(self, placement: Placement) -> dict[str, int]:
        gpu = self.fleet.gpu
        return {gpu.name: placement.peak_bytes(gpu.name)} if gpu else {}

    def _report(
        self, request: GenerateRequest, placement: Placement, clock: Clock, levels: np.ndarray
    ) -> dict[str, Any]:
        components, devices = self.fleet.report()
        gpu = self.fleet.gpu
        for name, used in devices.items():
            if gpu and name == gpu.name:
                used["predicted_bytes"] = placement.peak_bytes(name)
                used["budget_bytes"] = gpu.budget
                used["driver_bytes"] = gpu.free_bytes - used["free_bytes"]
        return {
            "prompt": request.prompt,
            "model": self.fleet.files.diffusion[0].stem,
            "width": request.width,
            "height": request.height,
            "seeds": [request.seed + i for i in range(request.batch)] if request.seed is not None else [],
            "rng": request.rng,
            "sampler": request.sampler,
            "sigmas": [float(level) for level in levels],
            "guidance": self.guidance(request),
            "vae_tile": placement.tile,
            "components": components,
            "devices": devices,
            "seconds": clock.report(),
        }

    def guidance(self, request: GenerateRequest) -> float | None:
        """The distilled guidance in force; None for a model that takes none."""
        if not self.config.guidance_embed:
            return None
        return DEV_GUIDANCE if request.guidance is None else request.guidance


class Run:
    """One request on its way through the lanes."""

    def __init__(
        self,
        pipeline: Pipeline,
        request: GenerateRequest,
        tokens: Tokens,
        sizes: Sizes,
        levels: np.ndarray,
        clock: Clock,
        tell: Listener,
    ) -> None:
        self.pipeline, self.fleet = pipeline, pipeline.fleet
        self.request, self.tokens, self.sizes, self.levels = request, tokens, sizes, levels
        self.clock, self.tell = clock, tell
        self.tasks: list[Future[Any]] = []

    def pictures(self) -> list[Picture]:
        """Tasks are given to the lanes in the order of the stages, so none waits for one behind it in its own lane."""
        submit = self.fleet.submit
        assert self.request.seed is not None
        seeds = [self.request.seed + i for i in range(self.request.batch)]
        pooled = submit("clip_l", self._pooled)
        text = submit("t5xxl", self._text)
        modulation = submit("modulation", lambda: self._modulation(pooled.result()))
        loaded = submit("diffusion", lambda: self._load("diffusion"))
        denoised = [
            submit("diffusion", partial(self._latents, i, seed, text, modulation)) for i, seed in enumerate(seeds)
        ]
        ready = submit("vae", lambda: self._load("vae"))
        decoded = [submit("vae", partial(self._image, i, latents)) for i, latents in enumerate(denoised)]
        self.tasks += [pooled, text, modulation, loaded, *denoised, ready, *decoded]
        try:
            all_done(self.tasks)
        except BaseException:
            self.fleet.cancel()
            raise
        return [Picture(image.result(), seed) for image, seed in zip(decoded, seeds, strict=True)]

    def _load(self, component: str) -> None:
        with self.clock.measure("load", component):
            self.fleet.call(component, "load", self.sizes, on_event=self._advanced())
        with self.clock.measure("compile", component):
            self.fleet.call(component, "compile", self.sizes)

    def _pooled(self) -> np.ndarray:
        tokens = self.tokens.clip
        self._load("clip_l")
        with self.clock.measure("encode", "clip_l"):
            answer = self.fleet.call("clip_l", "clip_l", self.sizes, {"ids": tokens.ids}, eos=int(tokens.eos))
        return answer.arrays["pooled"]

    def _text(self) -> np.ndarray:
        self._load("t5xxl")
        with self.clock.measure("encode", "t5xxl"):
            return self.fleet.call("t5xxl", "t5xxl", self.sizes, {"ids": self.tokens.t5.ids}).arrays["text"]

    def _modulation(self, pooled: np.ndarray) -> np.ndarray:
        self._load("modulation")
        with self.clock.measure("encode", "modulation"):
            arrays = {"timesteps": self.levels[:-1].astype(np.float32), "pooled": pooled}
            guidance = self.pipeline.guidance(self.request) or 0.0
            answer = self.fleet.call("modulation", "modulation", self.sizes, arrays, guidance=guidance)
        return answer.arrays["modulation"]

    def _latents(self, index: int, seed: int, text: Future[np.ndarray], modulation: Future[np.ndarray]) -> np.ndarray:
        """Noise by seed -> latents [C h w] as the VAE takes them."""
        shape = latent_space.latent_shape(self.request.width, self.request.height)
        start = latent_space.start(noise.rng(self.request.rng, seed).normal(shape), float(self.levels[0]))
        arrays = {"latents": latent_space.pack(start), "text": text.result(), "modulation": modulation.result()}
        with self.clock.measure("denoise"):
            answer = self.fleet.call(
                "diffusion",
                "denoise",
                self.sizes,
                arrays,
                self._advanced(index, self.clock.steps_of(index)),
                sigmas=[float(level) for level in self.levels],
                sampler=self.request.sampler,
            )
        tokens = answer.arrays["latents"]
        if not np.isfinite(tokens).all():
            raise RelightError(
                "denoising gave values that are not numbers: the weights are damaged or the device computes wrongly "
                "(try --backend diffusion=cpu to tell which)"
            )
        return latent_space.to_vae(latent_space.unpack(tokens, *shape[1:]))

    def _image(self, index: int, latents: Future[np.ndarray]) -> np.ndarray:
        arrays = {"latents": latents.result()}
        with self.clock.measure("decode"):
            answer = self.fleet.call("vae", "decode", self.sizes, arrays, self._advanced(index))
        return answer.arrays["image"]

    def _advanced(self, picture: int = 0, seconds: list[float] | None = None) -> Any:
        def on_event(values: dict[str, Any]) -> None:
            if seconds is not None:
                seconds.append(values["seconds"])
            self.tell(Advanced(values["stage"], values["done"], values["total"], values["seconds"], picture))

        return on_event


def all_done(tasks: Sequence[Future[Any]]) -> None:
    """Wait for tasks given in the order in which they need one another; raise the first failure as soon as it is there,
    with those that have not begun cancelled."""
    pending: set[Future[Any]] = set(tasks)
    try:
        while pending:
            # In short waits: on Windows, Ctrl-C does not end a long one.
            done, pending = wait(pending, WAIT_S, return_when=FIRST_EXCEPTION)
            for task in tasks:
                if task in done:
                    task.result()
    except BaseException:
        for task in pending:
            task.cancel()
        raise


def warn_if_cut(tokens: TokenIds, length: int, tell: Listener) -> None:
    """CLIP sees 77 tokens and gives one pooled vector, T5 carries the prompt: only what T5 loses is worth a word."""
    if tokens.cut:
        begin = tokens.cut if len(tokens.cut) <= CUT_SHOWN else tokens.cut[:CUT_SHOWN] + " ..."
        tell(Warned(f"the prompt has {tokens.count} tokens, {length - 1} fit; left out from here on: {begin!r}"))


def explain(placement: Placement) -> str:
    """One line: what goes where, with bytes where they were measured."""
    parts = []
    for component in COMPONENTS:
        use = placement.use.get(component)
        size = f" ({use.weights / GIB:.2f} GiB + {use.compute / GIB:.2f} GiB buffer)" if use else ""
        parts.append(f"{component} on {placement.device[component]}{size}")
    return ", ".join(parts)
