"""Cards pretended to, and the settings that old cards get."""

from __future__ import annotations

import pytest

from relight.errors import ConfigError
from relight.planner.profiles import GIB, PROFILES, VARIABLE, find_profile, pretended, submission_environment


@pytest.mark.parametrize("environment", [{}, {VARIABLE: ""}])
def test_nothing_is_pretended_unless_asked(environment: dict[str, str]) -> None:
    assert pretended(environment) is None


def test_a_pretended_card_limits_memory_allocations_features_and_submissions() -> None:
    profile = pretended({VARIABLE: "rx580-8g"})
    assert profile is not None and profile.limit_bytes == 8 * GIB - GIB // 4
    assert profile.environment["GGML_VK_FORCE_MAX_ALLOCATION_SIZE"] == str(4 * GIB - 4)
    assert profile.environment["GGML_VK_DISABLE_F16"] == "1"
    assert profile.environment["GGML_VK_MAX_NODES_PER_SUBMIT"] == "16"


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_profiles_are_possible_cards(profile: object) -> None:
    found = PROFILES[profile.name]  # type: ignore[attr-defined]
    assert 0 < found.max_allocation_bytes <= found.memory_bytes and found.limit_bytes > 0


@pytest.mark.parametrize(("name", "near"), [("rx580", "rx580-8g"), ("rx470-4gb", "rx470-4g"), ("RX590-8G", "rx590-8g")])
def test_an_unknown_card_is_refused_with_the_nearest_name(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"{VARIABLE}={name} is no profile; did you mean {near}"):
        pretended({VARIABLE: name})


def test_a_card_like_no_other_is_refused_with_all_names() -> None:
    with pytest.raises(ConfigError, match=", ".join(PROFILES)):
        pretended({VARIABLE: "h100"})


@pytest.mark.parametrize(
    "description",
    [
        "AMD Radeon RX 580 Series (RADV POLARIS10)",
        "AMD Radeon RX 470 Graphics",
        "Radeon (TM) RX 480 Graphics",
        "Radeon RX 580 2048SP",
        "AMD Radeon R9 200 Series (RADV HAWAII)",
        "AMD Radeon RX Vega (RADV VEGA10)",
        "Radeon RX 550X",
        "AMD Radeon Vega 8 Graphics (RADV RAVEN)",
    ],
)
def test_old_amd_cards_get_small_submissions(description: str) -> None:
    assert submission_environment(["llvmpipe", description]) == {"GGML_VK_MAX_NODES_PER_SUBMIT": "16"}


@pytest.mark.parametrize(
    "description",
    [
        "AMD Radeon RX 5700 XT (RADV NAVI10)",
        "AMD Radeon RX 6800 (RADV NAVI21)",
        "AMD Radeon RX 7900 XTX",
        "NVIDIA H100 80GB HBM3",
        "NVIDIA GeForce GTX 1080",
        "Intel(R) Arc(tm) A750 Graphics (DG2)",
        "llvmpipe (LLVM 15.0.6, 256 bits)",
        "AMD EPYC 9B14",
    ],
)
def test_other_devices_keep_the_engines_submissions(description: str) -> None:
    assert submission_environment([description]) == {}


def test_a_card_of_ones_own_is_given_by_its_figures() -> None:
    found = find_profile("name=mine,like=vega56-8g,memory=12G,tflops=3.5,bandwidth=100,max_allocation=2GiB", "here")
    assert (found.name, found.memory_bytes, found.max_allocation_bytes) == ("mine", 12 * GIB, 2 * GIB)
    assert found.flops == 3.5e12 and found.bandwidth == 100e9 and found.lacking == PROFILES["vega56-8g"].lacking
    assert find_profile("memory=3", "here").max_allocation_bytes == 3 * GIB


@pytest.mark.parametrize("spec", ["tflops=3", "memory=8X", "memory=8G,tflops=fast", "memory=8G,shaders=3", "memory=-1"])
def test_wrong_figures_are_refused_with_what_was_said(spec: str) -> None:
    with pytest.raises(ConfigError, match="^--device-profile: "):
        find_profile(spec, "--device-profile")
