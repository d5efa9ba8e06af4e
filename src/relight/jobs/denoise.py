"""The sampler's passes over groups of pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

import numpy as np

from relight.errors import RuinedPicture
from relight.images import verdict
from relight.jobs.events import Advanced, Previewed
from relight.jobs.run import Run
from relight.jobs.settle import Pass
from relight.jobs.text import Conditions
from relight.sampling import latents as latent_space
from relight.sampling import previews
from relight.sampling.parameterisation import values_of
from relight.workers.components.backbone import Denoising


def denoise(
    run: Run,
    first: int,
    seeds: Sequence[int],
    which: Pass,
    conditions: Future[Conditions],
    start: Callable[[], Mapping[str, np.ndarray]],
) -> Future[np.ndarray]:
    """Pictures `first` and on, one for each seed, through one pass; latents [N C h w]."""

    def task() -> np.ndarray:
        prompt = conditions.result()
        asked = Denoising(
            sampler=run.settled.sampler,
            sigmas=[float(level) for level in which.levels],
            seeds=list(seeds),
            rng=run.request.rng,
            parameterisation=values_of(which.space),
            positive=prompt.positive,
            negative=prompt.negative,
            cfg_scale=run.settled.cfg_scale,
            cfg_rescale=run.request.cfg_rescale,
            preview_every=run.request.preview_every,
        )
        values = {
            "denoising": asdict(asked),
            "levels": run.settled.evaluated(which),
            "controls": [
                {"strength": control.strength, "start": control.start, "end": control.end}
                for control in run.request.controls
            ],
        }
        with run.clock.measure("denoise"):
            answer = run.fleet.call(
                "diffusion",
                "run",
                run.sizes(which),
                {**prompt.arrays, **start()},
                on_step(run, first, len(seeds)),
                **values,
            )
        latents = answer.arrays["latents"]
        for one in latents:
            if (judged := verdict.judge_latents(one)).certain:
                raise RuinedPicture(
                    f"denoising gave {judged.message}: the weights are damaged or the device computes wrongly (try "
                    "--backend diffusion=cpu to tell which)"
                )
        return latents

    return run.submit("diffusion", task)


def on_step(run: Run, first: int, pictures: int) -> Callable[[dict[str, Any]], None]:
    """Tells of each step, and shows what the pictures are taken for where that was asked."""
    seconds = run.clock.steps_of(first)

    def on_event(values: dict[str, Any]) -> None:
        seconds.append(values["seconds"])
        for i, latents in enumerate(values.get("denoised", ())):
            show(run, first + i, values["done"], values["total"], latents)
        run.tell(Advanced(values["stage"], values["done"], values["total"], values["seconds"], first))

    return on_event


def show(run: Run, picture: int, done: int, total: int, latents: np.ndarray) -> None:
    """By the tiny autoencoder where there is one, on a worker that is not denoising and is free; else by a matrix."""
    if not run.can_decode_previews:
        shown = previews.preview(latents, run.fleet.files.family.name)
        width, height = (side * latent_space.SCALE for side in reversed(shown.shape[:2]))
        run.tell(Previewed(picture, done, total, previews.enlarged(shown, width, height)))
        return
    if run.preview is not None and not run.preview.done():
        return

    def decode() -> None:
        which = next(p for p in run.settled.passes if p.latent_size == latents.shape[1:])
        sizes = run.sizes(which)
        image = run.fleet.call("taesd", "run", sizes, {"latents": latents}).arrays["image"]
        run.tell(Previewed(picture, done, total, image))

    run.preview = run.submit("taesd", decode)
