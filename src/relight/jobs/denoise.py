"""The sampler's passes over groups of pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from relight.errors import RuinedPicture
from relight.images import verdict
from relight.jobs.events import Advanced, Checkpointed, Previewed, Warned
from relight.jobs.run import Run, shaped
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

    part = f"{run.settled.passes.index(which)}.{first}"
    steps = len(which.levels) - 1
    saved = run.resume.get(part)
    if saved and len(saved.arrays["latents"]) != len(seeds):
        saved = None  # of a run that took more pictures at a time

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
            first_step=saved.step if saved else 0,
            checkpoints=run.checkpoints,
        )
        values: dict[str, Any] = {
            "denoising": asdict(asked),
            "levels": run.settled.evaluated(which),
            "controls": [
                {"strength": control.strength, "start": control.start, "end": control.end}
                for control in run.request.controls
            ],
        }
        arrays = {**prompt.arrays, **start(), **(saved.arrays if saved else {})}
        on_event = on_step(run, first, part)
        answer = run.call("denoise", "diffusion", run.sizes(which), arrays, on_event, **values)
        latents = shaped(answer["latents"], arrays["latents"].shape, "latents")
        if run.fleet.settings.check_results:
            for i, one in enumerate(latents):
                look_at(run, first + i, one)
        if run.checkpoints:
            run.tell(Checkpointed(part, steps, {"latents": latents}, whole=True))
        return latents

    if saved and saved.step == steps:
        run.denoising.append(finished(saved.arrays["latents"]))
        return run.denoising[-1]
    run.denoising.append(run.submit("diffusion", task))
    return run.denoising[-1]


def look_at(run: Run, picture: int, latents: np.ndarray) -> None:
    """Raises RuinedPicture for what no picture can come of; tells what is odd."""
    judged = verdict.judge_latents(latents)
    if judged is None:
        return
    if judged.certain:
        raise RuinedPicture(
            f"picture {picture + 1} is ruined: {judged.message}. The weights are damaged, the settings ask for it "
            "(steps, sampler, cfg scale), or the device computes wrongly: --backend diffusion=cpu tells which"
        )
    run.tell(Warned(f"picture {picture + 1} looks odd: {judged.message}"))


def finished(latents: np.ndarray) -> Future[np.ndarray]:
    """A pass that was done before the request was broken off."""
    future: Future[np.ndarray] = Future()
    future.set_result(latents)
    return future


def on_step(run: Run, first: int, part: str) -> Callable[[dict[str, Any]], None]:
    """Tells of each step, and shows what the pictures are taken for where that was asked."""
    seconds = run.clock.steps_of(first)

    def on_event(values: dict[str, Any]) -> None:
        seconds.append(values["seconds"])
        if "latents" in values and np.isfinite(values["latents"]).all():  # else it would go on from nothing
            arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
            arrays.pop("denoised", None)
            run.tell(Checkpointed(part, values["done"], arrays))
        if "denoised" in values:
            show(run, first, values["done"], values["total"], values["denoised"])
        run.tell(Advanced(values["stage"], values["done"], values["total"], values["seconds"], first))

    return on_event


def show(run: Run, first: int, done: int, total: int, latents: np.ndarray) -> None:
    """Pictures `first` and on, latents [N C h w]: by the tiny autoencoder where there is one, on a worker that is not
    denoising and is free; else by a matrix."""
    height, width = (side * latent_space.SCALE for side in latents.shape[2:])

    def by_matrix(one: np.ndarray) -> np.ndarray:
        return previews.enlarged(previews.preview(one, run.fleet.files.family.name), width, height)

    def decoded(one: np.ndarray) -> np.ndarray:
        which = next(p for p in run.settled.passes if p.latent_size == one.shape[1:])
        sizes, device = run.sizes(which), run.device["taesd"]
        return run.fleet.call("taesd", "run", sizes, {"latents": one}, owner=run, device=device).arrays["image"]

    def tell(how: Callable[[np.ndarray], np.ndarray]) -> None:
        for i, one in enumerate(latents):
            run.tell(Previewed(first + i, done, total, how(one)))

    if not run.can_decode_previews:
        tell(by_matrix)
    elif run.preview is None or run.preview.done():
        run.preview = run.fleet.submit_beside(partial(tell, decoded))  # its worker's lane may wait for these latents
