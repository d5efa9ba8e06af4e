"""Whole plans of real sizes: what they take, where things go, and what is said of what was not chosen."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from planner.conftest import GIB, XEON, PlanOf
from relight.errors import DoesNotFit
from relight.executors.base import CompileOptions
from relight.jobs import models
from relight.jobs.checks import Checked
from relight.jobs.request import GenerateRequest
from relight.planner import explain
from relight.planner.choices import Chooser
from relight.planner.estimate import Estimator, NoTimings
from relight.planner.machine import Machine, of_profile
from relight.planner.networks import Networks
from relight.planner.plan import Ask, Plan, as_dict
from relight.planner.profiles import PROFILES
from relight.planner.workload import workload


def devices(plan: Plan) -> dict[str, str]:
    return {component.part.name: component.part.executor for component in plan.components}


def alternative(plan: Plan, choice: str) -> tuple[str, float | None, str]:
    (found,) = [each for each in plan.alternatives if each.choice == choice]
    return found.other, found.lost_s, found.why


def test_flux_on_8_gb_takes_what_was_measured_on_a_card(plan_of: PlanOf) -> None:
    """docs/measurements.md, Memory: 6.693 GB said before, on an H100 held to an RX 580."""
    found = plan_of("flux", side=1024)
    assert max(stage.peak["vulkan0"] for stage in found.stages) == pytest.approx(6.693e9, rel=0.001)
    assert found.outcome.placement.tile == 72 and found.outcome.placement.keep_programs
    on_gpu = {"clip_l", "diffusion", "vae"}
    assert devices(found) == {
        name: "vulkan0" if name in on_gpu else "ggml-cpu"
        for name in ("clip_l", "t5xxl", "modulation", "diffusion", "vae")
    }


@pytest.mark.parametrize(("side", "said"), [(768, 6.147e9), (512, 6.194e9)])
def test_smaller_pictures_take_what_was_measured_too(plan_of: PlanOf, side: int, said: float) -> None:
    assert max(stage.peak["vulkan0"] for stage in plan_of("flux", side=side).stages) == pytest.approx(said, rel=0.001)


@pytest.mark.parametrize("model", ["flux", "sd15.safetensors", "sdxl.safetensors"])
def test_no_plan_passes_the_budget_of_its_card(full_models: Path, model: str) -> None:
    checked = Checked(models.model_files(str(full_models / model), {}))
    work = workload(checked, GenerateRequest(prompt="", seed=0))
    with Networks(checked.files) as networks:
        for profile in PROFILES.values():
            estimator = Estimator(networks, Machine(XEON, of_profile(profile)), NoTimings())
            found = Chooser(work, estimator, dict.fromkeys(work.names, "auto")).choose()
            peaks = [stage.peak.get("vulkan0", 0) for stage in found.course.stages]
            assert 0 < max(peaks) <= profile.limit_bytes


def test_a_card_of_4_gb_takes_the_smaller_file_of_two(plan_of: PlanOf) -> None:
    small, large = plan_of("both", "rx470-4g"), plan_of("both", "rx580-8g")
    assert small.components[3].format == "Q2_K" and small.components[3].part.executor == "vulkan0"
    assert large.components[3].format == "Q4_K"
    other, lost, _ = alternative(small, "file of diffusion")
    assert other == "flux1-schnell-Q4_K.gguf (Q4_K)" and lost is not None and lost > 60


def test_where_nothing_fits_the_cpu_is_taken_and_what_would_fit_is_named(plan_of: PlanOf) -> None:
    found = plan_of("flux", "rx470-4g")
    assert devices(found)["diffusion"] == "ggml-cpu" and "diffusion runs on the CPU" in found.notes[0]
    assert found.pulls == ("flux-schnell-q2",)
    text = "\n".join(explain.lines(found))
    assert (
        "would fit: relight pull flux-schnell-q2" in text
        and "a smaller quantisation (relight quantize), with at most" in text
    )


def test_what_is_told_to_go_where_it_does_not_fit_is_refused(plan_of: PlanOf) -> None:
    with pytest.raises(DoesNotFit, match=r"4\.95 GiB are needed on vulkan0"):
        plan_of("flux", "rx470-4g", ask=Ask(backend="diffusion=vulkan0"))


def test_attention_in_chunks_keeps_the_limit_of_one_allocation(plan_of: PlanOf) -> None:
    """A card of 2 GiB an allocation takes no tile whose convolution by columns is larger than that."""
    ask = Ask(options=CompileOptions(convolution="im2col"), backend="vae=vulkan0")
    found = plan_of("flux", "name=odd,memory=24G,max_allocation=1G", ask=ask, side=1024)
    assert found.outcome.placement.tile < 56
    free = plan_of("flux", "name=odd,memory=24G,max_allocation=8G", ask=ask, side=1024)
    assert free.outcome.placement.tile >= found.outcome.placement.tile


def test_a_processor_with_bfloat16_decodes_where_the_card_is_slower(plan_of: PlanOf) -> None:
    xeon = replace(XEON, cores=16, avx512=True, bf16=True, amx=True)
    slow = plan_of("flux", "memory=8G,tflops=2", cpu=xeon, side=1024)
    assert devices(slow)["vae"] == "openvino" and devices(slow)["t5xxl"] == "openvino"
    other, lost, _ = alternative(slow, "vae on")
    assert other == "vulkan0" and lost is not None and lost > 0
    assert devices(plan_of("flux", "memory=8G,tflops=60,bandwidth=3000", cpu=xeon, side=1024))["vae"] == "vulkan0"


def test_throughput_decodes_on_the_cpu_where_that_hides_behind_the_next_picture(plan_of: PlanOf) -> None:
    quick, many = (plan_of("flux", side=512, ask=Ask(objective=o)) for o in ("latency", "throughput"))
    assert devices(quick)["vae"] == "vulkan0" and devices(many)["vae"] == "openvino"
    assert many.pictures_per_hour > quick.pictures_per_hour
    assert many.outcome.course.total.value > quick.outcome.course.total.value


def test_both_passes_of_guidance_go_together_and_batches_as_many_as_fit(plan_of: PlanOf) -> None:
    assert plan_of("sd15.safetensors", "rx470-4g").outcome.placement.batch == 2
    eight = plan_of("sd15.safetensors", "rx580-8g", batch=8)
    assert eight.outcome.placement.batch == 16
    other, lost, _ = alternative(eight, "rows a call of the UNet")
    assert lost is not None and lost >= 0 and other != "16"


def test_buffers_take_turns_on_a_card_that_holds_one_at_a_time(plan_of: PlanOf) -> None:
    found = plan_of("both", "rx470-4g", side=1024)
    assert not found.outcome.placement.keep_programs and found.outcome.course.swap_s > 0
    denoise, decode = found.stages[-2], found.stages[-1]
    assert denoise.peak["vulkan0"] < decode.peak["vulkan0"] <= 3.75 * GIB
    assert any("buffers one at a time" in line for line in explain.lines(found))


def test_memory_that_cannot_hold_t5_costs_reading_it_again(plan_of: PlanOf) -> None:
    small = plan_of("flux", cpu=replace(XEON, available=6 * GIB, total=8 * GIB))
    assert "each picture reads" in small.notes[0] and "--t5 Q8_0" in small.notes[0]
    assert plan_of("flux").notes == ()


def test_without_a_gpu_everything_is_on_the_cpu(plan_of: PlanOf) -> None:
    found = plan_of("sd15.safetensors", None)
    assert set(devices(found).values()) == {"ggml-cpu", "openvino"}
    assert found.fits and "no Vulkan GPU" in "\n".join(explain.lines(found))


def test_the_settings_of_a_plan_reproduce_it(plan_of: PlanOf) -> None:
    found = plan_of("flux", side=1024)
    again = plan_of("flux", side=1024, tile=found.outcome.placement.tile, ask=Ask(backend=found.backend))
    assert again.outcome.placement.device == found.outcome.placement.device
    assert again.outcome.course.total == found.outcome.course.total


def test_seconds_of_the_stages_add_up_to_the_request(plan_of: PlanOf) -> None:
    found = plan_of("sdxl.safetensors", "vega56-8g")
    course = found.outcome.course
    assert course.total.value == pytest.approx(sum(stage.seconds.value for stage in course.stages) + course.swap_s)
    assert course.total.source == "estimated"
    assert found.pictures_per_hour == pytest.approx(3600 / course.total.value)


def test_a_plan_is_told_in_words_and_as_json(plan_of: PlanOf) -> None:
    found = plan_of("flux", side=1024)
    text = "\n".join(explain.lines(found))
    for word in (
        "flux1-schnell-Q4_K.gguf",
        "6.23 GiB",
        "of 7.75 GiB",
        "estimated",
        "pictures an hour",
        "--backend clip_l",
    ):
        assert word in text
    values = json.loads(json.dumps(as_dict(found)))
    assert values["components"][3]["weight_bytes"] == 4875268352
    assert values["stages"][2]["budget_bytes"]["vulkan0"] == PROFILES["rx580-8g"].limit_bytes
    assert values["seconds"]["source"] == "estimated" and values["alternatives"]


def test_choices_are_told_by_what_they_come_to(plan_of: PlanOf) -> None:
    text = "\n".join(explain.lines(plan_of("flux", side=1024)))
    assert re.search(r"attention of diffusion +flash +not chunked", text)
    assert re.search(r"convolution of vae +direct.* +not im2col", text)
    assert "auto" not in text and "rows a call" not in text  # FLUX.1 takes one picture at a time
    assert "row a call of the UNet" not in text and "(used in place)" in text


def test_what_cannot_be_is_not_followed_by_the_way_that_was_taken(plan_of: PlanOf) -> None:
    found = plan_of("flux", "rx470-4g")
    reasons = [each.why for each in found.alternatives if each.lost_s is None]
    assert reasons and all("are allowed" in why and "What would fit" not in why for why in reasons)
    assert "or --backend diffusion=cpu" not in found.notes[0]


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.04, "0.0 s"), (119.9, "119.9 s"), (136.6, "2.3 min"), (2400, "40 min"), (9000, "2.5 h")]
)
def test_durations_have_two_or_three_figures(seconds: float, told: str) -> None:
    assert explain.duration(seconds) == told


def test_few_pictures_an_hour_have_a_decimal() -> None:
    assert (explain.rate(1.46), explain.rate(34.4)) == ("1.5", "34")
