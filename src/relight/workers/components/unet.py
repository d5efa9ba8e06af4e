"""The UNet of Stable Diffusion 1.x, 2.x and SDXL, with ControlNets recorded into its graph."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from relight.executors.base import LoadedWeights, Progress
from relight.graph import Graph, Weights
from relight.models import controlnet, unet
from relight.weights.checkpoint import Checkpoint, open_component
from relight.weights.renamed import Prefixed
from relight.workers.components.backbone import Backbone, Level
from relight.workers.components.base import Arrays, Opening, Sizes, Values
from relight.workers.components.place import Place


class ControlNet:
    """A ControlNet beside the UNet on its device: its weights are under `control0`, `control1`, ... in the graph."""

    def __init__(self, name: str, checkpoint: Checkpoint) -> None:
        self.name, self.checkpoint = name, checkpoint
        self.source = Prefixed(checkpoint, name)
        self.w = Weights(self.source) / name
        self.weights: LoadedWeights | None = None

    def close(self) -> None:
        if self.weights is not None:
            self.weights.close()
            self.weights = None
        self.checkpoint.close()


class UnetBackbone(Backbone):
    """Conditions: `context` [K T D] and, for SDXL, `label` [K L]. `concat` [N c h w] goes beside the latents of
    networks with more than 4 channels in. `hint_0` [3 8h 8w] ... are what the ControlNets follow, each from `start` to
    `end` of the steps at its `strength` (values `controls`)."""

    def __init__(self, opening: Opening, place: Place) -> None:
        super().__init__(opening, place)
        self.config = unet.UnetConfig.from_weights(self.base)
        self.controls = [
            ControlNet(f"control{i}", open_component("controlnet", paths))
            for i, (_, paths) in enumerate(sorted(opening.extras.items()))
        ]

    def graph(self, sizes: Sizes) -> Graph:
        controls = [controlnet.Control(c.w, unet.UnetConfig.from_weights(c.w)) for c in self.controls]
        shape = sizes["latent_height"], sizes["latent_width"], sizes["text_tokens"], sizes.get("batch", 1)
        if controls and sizes.get("controlled", 1):
            return controlnet.record(self.w, self.config, controls, *shape)
        return unet.record(self.w, self.config, *shape)

    def shape_key(self, sizes: Sizes) -> Hashable:
        controlled = bool(self.controls) and sizes.get("controlled", 1)
        return sizes["latent_height"], sizes["latent_width"], sizes["text_tokens"], sizes.get("batch", 1), controlled

    def load(self, sizes: Sizes, progress: Progress | None = None) -> None:
        super().load(sizes, progress)
        for control in self.controls:
            if control.weights is None:
                with self._memory_explained():
                    control.weights = self.place.executor.load((self.graph(sizes),), control.source)

    def loaded(self) -> list[LoadedWeights]:
        return super().loaded() + [control.weights for control in self.controls if control.weights is not None]

    def begin(self, sizes: Sizes, arrays: Arrays, values: Values) -> None:
        super().begin(sizes, arrays, values)
        self.steps = len(values["denoising"]["sigmas"]) - 1

    def predict(self, sizes: Sizes, latents: np.ndarray, level: Level, conditions: Sequence[int]) -> np.ndarray:
        """All rows at once: noise (or v) [B 4 h w]."""
        rows, picked = len(latents), list(conditions)
        if "concat" in self.arrays:
            beside = self.arrays["concat"]
            latents = np.concatenate([latents, np.resize(beside, (rows, *beside.shape[1:]))], axis=1)
        inputs = {
            "latents": latents,
            "timesteps": np.full(rows, level.timestep, np.float32),
            "context": self.arrays["context"][picked],
        }
        if self.config.label_dim:
            inputs["label"] = self.arrays["label"][picked]
        strengths = self._strengths(level.step)
        if any(strengths):
            for i, strength in enumerate(strengths):
                inputs[f"hint_{i}"] = self.arrays[f"hint_{i}"][None]
                inputs[f"strength_{i}"] = np.array([strength], np.float32)
        return self.program({**sizes, "controlled": int(any(strengths))}).run(inputs)["noise"]

    def _strengths(self, step: int) -> list[float]:
        """Of each ControlNet at a step: 0 outside the part of the run it is for."""
        place = step / self.steps
        controls = self.values.get("controls", [])
        return [c["strength"] if c["start"] <= place < max(c["end"], 1e-9) else 0.0 for c in controls]

    def close(self) -> None:
        super().close()
        for control in self.controls:
            control.close()
