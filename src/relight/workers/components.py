"""The networks of FLUX.1, each on one executor: what it needs, how it is loaded, how it is run."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from relight.errors import ExecutorError, OutOfDeviceMemory
from relight.executors.base import CompileOptions, Executor, LoadedWeights, MemoryUse, Program, Progress
from relight.graph import Graph, Weights
from relight.models import clip, flux, t5, tiling, vae
from relight.sampling import samplers
from relight.weights.checkpoint import open_component

Sizes = Mapping[str, int]
"""What a picture asks of a component: `text_tokens`, `latent_height`, `latent_width`, `steps`, `tile`."""
StepDone = Callable[[int, int, float], None]
"""Called with (steps or tiles done, in all, seconds of the last)."""


@dataclass
class Place:
    """An executor and the programs compiled on it, one for each component: that of the last sizes asked for. With
    `keep_programs` off, one program's buffers exist at a time."""

    executor: Executor
    keep_programs: bool = True
    programs: dict[str, tuple[Hashable, Program]] = field(default_factory=dict)

    def program(self, name: str, shape: Hashable, compile_it: Callable[[], Program]) -> Program:
        """The program of component `name` for a shape, compiled by `compile_it` if it is not there yet."""
        known = self.programs.get(name)
        if known and known[0] == shape:
            return known[1]
        if not self.keep_programs:
            self.release()
        elif known:
            self.programs.pop(name)[1].close()
        try:
            program = compile_it()
        except OutOfDeviceMemory:
            if not self.programs:
                raise
            self.release()
            program = compile_it()
        self.programs[name] = (shape, program)
        return program

    def release(self) -> None:
        """Give back the buffers of every program; weights stay."""
        while self.programs:
            _, (_, program) = self.programs.popitem()
            program.close()


class Component(ABC):
    """One network of a checkpoint. Loading and compiling are separate from running, and can be measured before."""

    file_kind: ClassVar[str]

    def __init__(self, name: str, paths: Sequence[Path], place: Place, options: CompileOptions) -> None:
        self.name, self.place, self.options = name, place, options
        self.checkpoint = open_component(self.file_kind, paths)
        self.w = Weights(self.checkpoint)
        self.weights: LoadedWeights | None = None
        self.buffer_bytes = 0

    @abstractmethod
    def graph(self, sizes: Sizes) -> Graph:
        """The graph for one picture of these sizes."""

    def shape_key(self, sizes: Sizes) -> Hashable:
        """Sizes that need graphs of their own have keys of their own."""
        return tuple(sorted(sizes.items()))

    def measure(self, sizes: Sizes) -> MemoryUse:
        return self.place.executor.measure(self.graph(sizes), self.options)

    def load(self, sizes: Sizes, progress: Progress | None = None) -> None:
        """Bring the weights to the device; once."""
        if self.weights is None:
            with self._memory_explained():
                self.weights = self.place.executor.load((self.graph(sizes),), self.checkpoint, progress)

    def program(self, sizes: Sizes) -> Program:
        """The compiled graph for these sizes; compiled now if it is not there yet."""
        self.load(sizes)

        def compile_it() -> Program:
            with self._memory_explained():
                return self.place.executor.compile(self.graph(sizes), self.weights, self.options)

        program = self.place.program(self.name, self.shape_key(sizes), compile_it)
        self.buffer_bytes = program.memory.compute
        return program

    @contextmanager
    def _memory_explained(self) -> Iterator[None]:
        """A refusal names the component and what may help."""
        executor = self.place.executor.name
        try:
            yield
        except OutOfDeviceMemory as error:
            raise OutOfDeviceMemory(f"{self.name}: {error}; {way_out(self.name, executor)}") from error

    def report(self) -> dict[str, Any]:
        return {
            "executor": self.place.executor.name,
            "weight_bytes": self.weights.nbytes if self.weights else 0,
            "buffer_bytes": self.buffer_bytes,
        }

    def close(self) -> None:
        self.place.release()
        if self.weights is not None:
            self.weights.close()
            self.weights = None
        self.checkpoint.close()


def way_out(component: str, executor: str) -> str:
    if executor.startswith("vulkan"):
        return f"try --backend {component}=cpu, a smaller picture or a smaller quantisation"
    return "take a smaller file of it (Q8_0, Q4_K) or a smaller picture, or close other programs"


class ClipL(Component):
    file_kind = "clip_l"

    def graph(self, sizes: Sizes) -> Graph:
        return clip.record(self.w, clip.ClipConfig.from_weights(self.w))

    def shape_key(self, sizes: Sizes) -> Hashable:
        return None

    def encode(self, sizes: Sizes, ids: np.ndarray, eos: int) -> np.ndarray:
        """Token ids [77] -> pooled text [1 768]."""
        return self.program(sizes).run(clip.host_inputs(clip.ClipConfig.from_weights(self.w), ids, eos))["pooled"]


class T5(Component):
    file_kind = "t5xxl"

    def graph(self, sizes: Sizes) -> Graph:
        return t5.record(self.w, t5.T5Config.from_weights(self.w), sizes["text_tokens"])

    def shape_key(self, sizes: Sizes) -> Hashable:
        return sizes["text_tokens"]

    def encode(self, sizes: Sizes, ids: np.ndarray) -> np.ndarray:
        """Token ids [T] -> text [T 4096]."""
        return self.program(sizes).run(t5.host_inputs(t5.T5Config.from_weights(self.w), ids))["text"]


class FluxComponent(Component):
    file_kind = "diffusion"

    def __init__(self, name: str, paths: Sequence[Path], place: Place, options: CompileOptions) -> None:
        super().__init__(name, paths, place, options)
        self.config = flux.FluxConfig.from_weights(self.w)


class Modulation(FluxComponent):
    """How timestep, guidance and pooled text steer every block: a quarter of FLUX's weights, used once per picture."""

    def graph(self, sizes: Sizes) -> Graph:
        return flux.record_modulation(self.w, self.config, sizes["steps"])

    def shape_key(self, sizes: Sizes) -> Hashable:
        return sizes["steps"]

    def compute(self, sizes: Sizes, timesteps: np.ndarray, pooled: np.ndarray, guidance: float) -> np.ndarray:
        """timesteps [N] in 0..1, pooled [1 768] -> modulation [N M]."""
        inputs = {"timesteps": timesteps, "pooled": pooled}
        if self.config.guidance_embed:
            inputs["guidance"] = np.full(timesteps.shape, guidance, np.float32)
        return self.program(sizes).run(inputs)["modulation"]


class Diffusion(FluxComponent):
    """The FLUX transformer, run once a step."""

    def graph(self, sizes: Sizes) -> Graph:
        return flux.record(self.w, self.config, sizes["text_tokens"], sizes["latent_height"], sizes["latent_width"])

    def shape_key(self, sizes: Sizes) -> Hashable:
        return sizes["text_tokens"], sizes["latent_height"], sizes["latent_width"]

    def denoise(
        self,
        sizes: Sizes,
        *,
        latents: np.ndarray,
        text: np.ndarray,
        modulation: np.ndarray,
        sigmas: Sequence[float],
        sampler: str,
        on_step: StepDone,
    ) -> np.ndarray:
        """latents [I 64], noise at sigmas[0] -> latents [I 64] at sigmas[-1]. on_step may raise to stop."""
        program, step = self.program(sizes), samplers.sampler(sampler)
        positions = flux.positions(sizes["text_tokens"], sizes["latent_height"] // 2, sizes["latent_width"] // 2)
        total = len(sigmas) - 1
        for i in range(total):
            started = time.perf_counter()
            velocity = program.run(
                {
                    "latents": latents[None],
                    "text": text[None],
                    "modulation": modulation[i : i + 1],
                    "positions": positions,
                }
            )["velocity"][0]
            latents = step(latents, velocity, sigmas[i], sigmas[i + 1])
            on_step(i + 1, total, time.perf_counter() - started)
        return latents


class VaeDecoder(Component):
    file_kind = "vae"

    def tiles(self, sizes: Sizes) -> list[tiling.Tile]:
        return tiling.tile_plan(sizes["latent_height"], sizes["latent_width"], sizes["tile"])

    def graph(self, sizes: Sizes) -> Graph:
        tile = self.tiles(sizes)[0]
        return vae.record_decoder(self.w, vae.VaeConfig.from_weights(self.w), tile.height, tile.width)

    def shape_key(self, sizes: Sizes) -> Hashable:
        tile = self.tiles(sizes)[0]
        return tile.height, tile.width

    def decode(self, sizes: Sizes, latents: np.ndarray, on_tile: StepDone) -> np.ndarray:
        """latents [C h w], unscaled -> picture [8h 8w 3] uint8. on_tile may raise to stop."""
        program = self.program(sizes)
        started = time.perf_counter()

        def decode_tile(tile: np.ndarray) -> np.ndarray:
            return program.run({"latents": tile})["image"]

        def progress(done: int, total: int) -> None:
            nonlocal started
            now = time.perf_counter()
            on_tile(done, total, now - started)
            started = now

        image = tiling.decode_tiled(latents[None], self.tiles(sizes), decode_tile, progress)[0]
        if not np.isfinite(image).all():
            raise ExecutorError(
                "the decoded picture has values that are not numbers; decode it elsewhere (--backend vae=cpu)"
            )
        pixels: np.ndarray = np.round(np.clip((image + 1) / 2, 0, 1) * 255).astype(np.uint8)
        return pixels.transpose(1, 2, 0)


COMPONENTS: dict[str, type[Component]] = {
    "clip_l": ClipL,
    "t5xxl": T5,
    "modulation": Modulation,
    "diffusion": Diffusion,
    "vae": VaeDecoder,
}
