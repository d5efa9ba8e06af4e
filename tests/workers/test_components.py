"""Components on an executor: what they hold, what they give back, and how a refusal reads."""

from __future__ import annotations

import numpy as np
import pytest

from executors_present import EXECUTORS
from relight.errors import ExecutorError, OutOfDeviceMemory
from relight.executors.base import CompileOptions
from relight.executors.limit import MemoryLimit
from relight.jobs.request import ModelFiles
from relight.workers import child
from relight.workers.components import ClipText, VaeDecoder
from relight.workers.components.base import Opening, way_out
from relight.workers.components.place import Place

SIZES = {"text_tokens": 16, "latent_height": 8, "latent_width": 8, "tile": 8}
OPTIONS = CompileOptions(precision="f32")


def place() -> Place:
    return Place(EXECUTORS["ggml-cpu"]())


def decoder(files: ModelFiles, place: Place) -> VaeDecoder:
    return VaeDecoder(Opening("vae", "vae", files.of("vae"), OPTIONS), place)


def clip_l(files: ModelFiles, place: Place) -> ClipText:
    return ClipText(Opening("clip_l", "clip_l", files.of("clip_l"), OPTIONS), place)


def nobody(done: int, total: int, seconds: float = 0.0, arrays: object = None, /) -> None:
    """Whom progress is told."""


def limited(place: Place, nbytes: int | None) -> MemoryLimit:
    limit: MemoryLimit = place.executor.limit  # type: ignore[attr-defined]
    limit.limit = nbytes if nbytes is None else limit.used + nbytes
    return limit


def test_ram_that_is_short_is_told_with_component_numbers_and_way_out(tiny_files: ModelFiles) -> None:
    here = place()
    vae = decoder(tiny_files, here)
    limit = limited(here, 1 << 16)
    before = limit.used
    try:
        with pytest.raises(OutOfDeviceMemory) as caught:
            vae.program(SIZES)
        message = str(caught.value)
        assert message.startswith("vae: ") and "GiB on ggml-cpu" in message
        assert message.endswith("take a smaller file of it (Q8_0, Q4_K) or a smaller picture, or close other programs")
        assert message.count("vae: ") == 1 and limit.used - before <= 1 << 16
    finally:
        limited(here, None)
        vae.close()
    assert limit.used == before


def test_on_a_gpu_the_way_out_is_the_cpu() -> None:
    assert way_out("vae", "vulkan0").startswith("try --backend vae=cpu")


def test_the_cpu_executor_is_held_to_the_ram_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    EXECUTORS["ggml-cpu"]()
    monkeypatch.setattr(child, "available_ram", lambda: 123)
    assert child.make_executor("ggml-cpu", None, None).limit.limit == 123  # type: ignore[attr-defined]
    assert child.make_executor("ggml-cpu", None, 456).limit.limit == 456  # type: ignore[attr-defined]


def test_one_program_is_kept_for_each_component(tiny_files: ModelFiles) -> None:
    here = place()
    vae = decoder(tiny_files, here)
    clip = clip_l(tiny_files, here)
    limit = limited(here, None)
    try:
        clip_program, small = clip.program(SIZES), vae.program(SIZES)
        held = limit.used
        assert vae.program(SIZES) is small
        large = vae.program(SIZES | {"latent_width": 16, "tile": 16})
        assert large is not small and limit.used > held
        assert vae.program(SIZES) is not small and limit.used == held
        assert clip.program(SIZES) is clip_program
    finally:
        vae.close()
        clip.close()


def test_without_room_for_all_programs_one_exists_at_a_time(tiny_files: ModelFiles) -> None:
    here = place()
    here.keep_programs = False
    vae = decoder(tiny_files, here)
    clip = clip_l(tiny_files, here)
    try:
        vae.program(SIZES)
        clip.program(SIZES)
        assert list(here.programs) == ["clip_l"]
        picture = vae.run(SIZES, {"latents": np.zeros((16, 8, 8), np.float32)}, {}, nobody)["image"]
        assert picture.shape == (64, 64, 3) and list(here.programs) == ["vae"]
    finally:
        vae.close()
        clip.close()


def test_a_program_that_does_not_fit_beside_others_takes_their_place(tiny_files: ModelFiles) -> None:
    here = place()
    vae = decoder(tiny_files, here)
    clip = clip_l(tiny_files, here)
    try:
        clip.load(SIZES)
        vae.program(SIZES)
        limited(here, 1 << 10)
        clip.program(SIZES)
        assert list(here.programs) == ["clip_l"]
    finally:
        limited(here, None)
        vae.close()
        clip.close()


def test_a_closed_component_leaves_nothing_on_the_device(tiny_files: ModelFiles) -> None:
    here = place()
    limit = limited(here, None)
    before = limit.used
    vae = decoder(tiny_files, here)
    vae.program(SIZES)
    assert limit.used > before
    vae.close()
    assert limit.used == before and not here.programs


def test_the_peak_reported_is_the_one_since_the_last_report(tiny_files: ModelFiles) -> None:
    here = place()
    vae = decoder(tiny_files, here)
    vae.program(SIZES)
    held = child.used(here.executor)["used_bytes"]
    vae.close()
    assert child.used(here.executor)["peak_bytes"] >= held
    after = child.used(here.executor)
    assert after["peak_bytes"] == after["used_bytes"] < held


def test_a_picture_that_is_no_numbers_is_refused(tiny_files: ModelFiles) -> None:
    here = place()
    vae = decoder(tiny_files, here)
    try:
        with pytest.raises(ExecutorError, match=r"values that are not numbers; decode it elsewhere"):
            vae.run(SIZES, {"latents": np.full((16, 8, 8), np.nan, np.float32)}, {}, nobody)
    finally:
        vae.close()
