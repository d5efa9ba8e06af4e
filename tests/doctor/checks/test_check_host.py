"""Processor, memory, disk, cache, and what surrounds relight."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from doctor import machines
from doctor.boxes import MODELS, flux
from doctor.healthy import environ, healthy, level, only
from relight.doctor.checks import cache, disk, memory, processor, recipe, surroundings
from relight.doctor.facts.disks import Mount
from relight.doctor.facts.host import Memory, MemoryController
from relight.doctor.finding import GIB, MIB, Level
from relight.doctor.machine import Asked, Machine
from relight.doctor.measure import ColdRead
from relight.doctor.models import ModelFile, ModelSet

OK, WARN, FAIL = Level
OVERLAY = Mount("/", "0:50", "overlay", "overlay", ("rw",))


def on_disk(**changes: Any) -> Machine:
    place = healthy().model_place
    assert place.disk is not None
    return replace(healthy(), model_place=replace(place, disk=replace(place.disk, **changes)))


def on_mount(**changes: Any) -> Machine:
    place = healthy().model_place
    assert place.mount is not None
    return replace(healthy(), model_place=replace(place, mount=replace(place.mount, **changes)))


def with_cache(**changes: Any) -> Machine:
    return replace(healthy(), caches=(replace(healthy().caches[0], **changes),))


def read(rate: float, *, cached: bool = False) -> Machine:
    done = ColdRead(f"{MODELS}/flux/diffusion.gguf", 256 * MIB, 256 * MIB / rate, cached)
    return replace(healthy(), models=(flux(),), cold_reads=(done,))


def test_instructions_that_the_library_needs() -> None:
    assert level(processor.instructions, healthy()) is OK
    old = replace(healthy().processor, flags=frozenset({"avx", "f16c"}))
    assert only(processor.instructions, replace(healthy(), processor=old)).numbers["missing"] == ["AVX2", "FMA"]
    assert level(processor.instructions, replace(healthy(), processor=old)) is FAIL
    built = replace(environ(RELIGHT_GGML_DIR="/opt/ggml"), processor=old)
    assert level(processor.instructions, built) is OK


@pytest.mark.parametrize(("cores", "expected"), [(2, WARN), (4, OK)])
def test_cores(cores: int, expected: Level) -> None:
    changed = replace(healthy().processor, cores=cores)
    assert level(processor.cores, replace(healthy(), processor=changed)) is expected


@pytest.mark.parametrize(
    ("total", "available", "swap", "expected"),
    [(32, 28, 8, OK), (32, 4, 8, WARN), (6, 5, 8, WARN), (6, 5, 0, FAIL)],
)
def test_memory_against_a_model(total: int, available: int, swap: int, expected: Level) -> None:
    has = Memory(total * GIB, available * GIB, swap * GIB, 0)
    assert level(memory.for_models, replace(healthy(), models=(flux(),), memory=has)) is expected


def test_a_control_groups_limit_counts_as_the_memory() -> None:
    has = Memory(64 * GIB, 60 * GIB, 8 * GIB, 0, limit=4 * GIB)
    found = only(memory.for_models, replace(healthy(), models=(flux(),), memory=has))
    assert found.level is FAIL and "4.0 GiB by this control group's limit" in found.seen


def test_a_model_without_t5_is_told_to_take_a_smaller_format() -> None:
    model = ModelSet("chat", (ModelFile("model", Path("/models/llama-8b.gguf"), 12 * GIB),))
    blind = replace(healthy(), models=(model,), engine=replace(healthy().engine, devices=()))
    found = only(memory.for_models, replace(blind, memory=Memory(12 * GIB, 10 * GIB, 8 * GIB, 0)))
    assert found.level is WARN and "quantize llama-8b.gguf" in found.remedies[0].do


def test_without_a_model_little_memory_is_still_said() -> None:
    assert level(memory.for_models, healthy()) is OK
    assert level(memory.for_models, replace(healthy(), memory=Memory(4 * GIB, 3 * GIB, 0, 0))) is WARN


@pytest.mark.parametrize(
    ("total", "swap", "used", "expected"),
    [(32, 8, 0, OK), (32, 8, 5, WARN), (16, 0, 0, WARN), (64, 0, 0, OK)],
)
def test_swap(total: int, swap: int, used: int, expected: Level) -> None:
    has = Memory(total * GIB, total * GIB // 2, swap * GIB, used * GIB)
    assert level(memory.swap, replace(healthy(), memory=has)) is expected


@pytest.mark.parametrize(("rate", "expected"), [(25e9, OK), (8e9, WARN)])
def test_memory_bandwidth(rate: float, expected: Level) -> None:
    assert level(memory.bandwidth, replace(healthy(), bandwidth=rate)) is expected


@pytest.mark.parametrize(
    ("controllers", "expected", "words"),
    [
        ((), OK, "unknown"),
        ((MemoryController("mc0", "Haswell", ("SECDED",), 0, 0),), OK, "active"),
        ((MemoryController("mc0", "Ryzen", ("None",), 0, 0),), OK, "not active"),
        ((MemoryController("mc0", "Haswell", ("SECDED",), 3, 0),), WARN, "3 corrected"),
        ((MemoryController("mc0", "Haswell", ("SECDED",), 3, 1),), FAIL, "1 uncorrected"),
    ],
)
def test_error_correction(controllers: tuple[MemoryController, ...], expected: Level, words: str) -> None:
    found = only(memory.error_correction, replace(healthy(), controllers=controllers))
    assert found.level is expected and words in found.seen


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, OK),
        ({"kind": "hdd", "name": "sda"}, WARN),
        ({"kind": "usb", "usb_speed": 5000}, WARN),
        ({"kind": "usb", "usb_speed": 480}, FAIL),
        ({"kind": "ssd", "encrypted": True}, OK),
    ],
)
def test_kinds_of_disks(changes: dict[str, Any], expected: Level) -> None:
    assert level(disk.kind, on_disk(**changes)) is expected


@pytest.mark.parametrize(
    ("type", "expected"),
    [("ext4", OK), ("nfs4", WARN), ("cifs", WARN), ("fuseblk", WARN), ("virtiofs", WARN), ("btrfs", OK)],
)
def test_file_systems(type: str, expected: Level) -> None:
    assert level(disk.file_system, on_mount(type=type)) is expected


def test_windows_disk_seen_from_wsl2_is_a_failure() -> None:
    machine = replace(on_mount(type="9p", point="/mnt/c"), kernel="5.15.153.1-microsoft-standard-WSL2")
    assert level(disk.file_system, machine) is FAIL


@pytest.mark.parametrize(
    ("changes", "expected", "do"),
    [
        ({}, OK, ""),
        ({"scheduler": "mq-deadline"}, WARN, "echo none | sudo tee /sys/block/nvme0n1/queue/scheduler"),
        ({"kind": "hdd", "name": "sda", "scheduler": "none"}, WARN, "echo mq-deadline | sudo tee /sys/block/sda"),
        (
            {"kind": "hdd", "name": "sda", "scheduler": "bfq"},
            WARN,
            "echo 4096 | sudo tee /sys/block/sda/queue/read_ahead",
        ),
        ({"kind": "hdd", "name": "sda", "scheduler": "bfq", "read_ahead_kib": 4096}, OK, ""),
    ],
)
def test_queues(changes: dict[str, Any], expected: Level, do: str) -> None:
    found = only(disk.queue, on_disk(**changes))
    assert found.level is expected and (not do or found.remedies[0].do.startswith(do))


@pytest.mark.parametrize(("rate", "expected"), [(2e9, OK), (100e6, WARN), (10e6, FAIL)])
def test_a_cold_read_and_the_load_time_that_follows(rate: float, expected: Level) -> None:
    found = only(disk.cold_read, read(rate))
    assert found.level is expected and found.numbers["load_s"] == pytest.approx(flux().bytes / rate)


def test_a_read_from_memory_says_nothing_of_the_disk() -> None:
    assert "the disk was not measured" in only(disk.cold_read, read(10e6, cached=True)).seen
    unreadable = replace(read(2e9), cold_reads=("/models/flux: Permission denied",))
    assert level(disk.cold_read, unreadable) is FAIL


@pytest.mark.parametrize(
    ("free", "models", "expected"), [(100, 0, OK), (8, 0, WARN), (8, 1, OK), (2, 1, WARN), (0, 1, FAIL)]
)
def test_room(free: int, models: int, expected: Level) -> None:
    place = replace(healthy().model_place, free=free * GIB)
    machine = replace(healthy(), model_place=place, result_place=place, models=(flux(),) * models)
    assert only(disk.room, machine).level is expected


def test_room_on_two_disks_is_two_findings() -> None:
    other = replace(healthy().result_place, mount=OVERLAY, free=GIB // 2)
    found = list(disk.room(replace(healthy(), result_place=other)))
    assert [each.level for each in found] == [OK, FAIL] and "free for results" in found[1].seen


def test_the_pipeline_cache() -> None:
    assert only(cache.pipelines, healthy()).numbers["bytes"] == 1001
    assert level(cache.pipelines, with_cache(writable=False)) is FAIL
    assert level(cache.pipelines, with_cache(max_bytes=64 * MIB)) is WARN
    off = only(
        cache.pipelines,
        replace(with_cache(off="MESA_SHADER_CACHE_DISABLE"), environ={"MESA_SHADER_CACHE_DISABLE": "1"}),
    )
    assert off.level is WARN and off.remedies[0].undo == "export MESA_SHADER_CACHE_DISABLE=1"


def test_a_cache_inside_a_container_goes_with_it() -> None:
    place = replace(healthy().cache_places[0], mount=OVERLAY)
    inside = replace(healthy(), container="Docker", cache_places=(place,))
    assert level(cache.pipelines, inside) is WARN
    assert level(cache.pipelines, replace(inside, container=None)) is OK


def test_containers_with_and_without_the_card() -> None:
    assert level(surroundings.container, replace(healthy(), container="Docker")) is OK
    blind = replace(healthy(), container="Docker", has_dri=False, engine=replace(healthy().engine, devices=()))
    assert level(surroundings.container, blind) is WARN
    assert list(surroundings.container(healthy())) == []


def test_wsl2_with_a_card_and_without() -> None:
    inside = replace(healthy(), kernel="5.15.153.1-microsoft-standard-WSL2")
    assert level(surroundings.wsl, inside) is OK
    assert level(surroundings.wsl, replace(inside, engine=replace(inside.engine, devices=()))) is WARN


def test_other_ways_to_the_card_are_seen_by_their_traces(tmp_path: Path) -> None:
    box = machines.rx470_rebar(tmp_path)
    box.environ |= {"HSA_OVERRIDE_GFX_VERSION": "8.0.3", "PATH": "/usr/bin:/opt/ZLUDA"}
    box.folder("/opt/rocm-5.7.1")
    box.folder("/users/anna/webui/venv/lib/python3.10/site-packages/torch_directml")
    box.folders = ("/users/anna/webui/models",)
    found = {each.check: each for each in surroundings.other_stacks(box.machine())}
    assert {each.level for each in found.values()} == {WARN} and set(found) == {"rocm", "zluda", "directml"}
    assert found["rocm"].seen == "HSA_OVERRIDE_GFX_VERSION=8.0.3, /opt/rocm-5.7.1"
    assert found["rocm"].remedies[0].do == "unset HSA_OVERRIDE_GFX_VERSION" and "Polaris" in found["rocm"].why
    assert level(surroundings.other_stacks, healthy()) is OK


def test_rocm_that_is_only_installed_is_no_trouble(tmp_path: Path) -> None:
    box = machines.rx470_rebar(tmp_path)
    box.folder("/opt/rocm")
    assert level(surroundings.other_stacks, box.machine()) is OK


def test_sqlite_that_is_too_old() -> None:
    assert level(surroundings.sqlite, healthy()) is OK
    assert level(surroundings.sqlite, replace(healthy(), sqlite=(3, 34, 1))) is FAIL


def test_the_recipes_wrong_advice(tmp_path: Path) -> None:
    assert level(recipe.wrong_advice, healthy()) is OK
    box = machines.rx470_rebar(tmp_path)
    box.environ["VK_PIPELINE_CACHE_DIR"] = "/var/cache/vk"
    box.file("/etc/udev/rules.d/60-io.rules", 'ACTION=="add", KERNEL=="nvme0n1", ATTR{queue/scheduler}="mq-deadline"')
    box.file("/etc/systemd/system/nvme.service", "[Service]\nExecStart=nvme set-feature /dev/nvme0 -f 0x07 -v 64")
    box.file("/etc/udev/rules.d/61-ok.rules", '# KERNEL=="nvme0n1", ATTR{queue/scheduler}="mq-deadline"')
    found = list(recipe.wrong_advice(box.machine()))
    assert [each.level for each in found] == [WARN] * 3
    assert "VK_PIPELINE_CACHE_DIR" in found[0].seen
    assert ["60-io.rules" in found[1].seen, "nvme set-feature" in found[2].seen] == [True, True]


@pytest.mark.parametrize(
    ("asked", "expected", "words"),
    [
        (Asked(), OK, "defaults"),
        (Asked("relight.yaml"), OK, "relight.yaml"),
        (Asked(error="relight.yaml:3: runtime.step is no setting"), FAIL, "runtime.step"),
        (Asked("relight.yaml", scheduler="none"), OK, "nvme0n1 has none"),
        (Asked("relight.yaml", scheduler="mq-deadline"), WARN, "io_scheduler mq-deadline"),
        (Asked("relight.yaml", queue_depth=64), WARN, "takes 1023 requests"),
        (Asked("relight.yaml", queue_depth=1023), OK, "takes 1023 requests"),
    ],
)
def test_storage_settings_are_compared_and_never_written(asked: Asked, expected: Level, words: str) -> None:
    found = only(recipe.settings, replace(healthy(), asked=asked))
    assert found.level is expected and words in found.seen
