"""Measurements on disk: found again by who made them, and by nobody else; the quickest way wins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from relight.executors.base import CompileOptions
from relight.tuning import tables
from relight.tuning.identity import Identity
from relight.tuning.tables import Table, Timed
from relight.tuning.tuned import Tuned

RADV = Identity("AMD Radeon RX 580 Series (RADV POLARIS10)", "radv Mesa 25.2.1", "cyllama-vulkan 0.7.0")
AUTO, CHUNKED = CompileOptions(), CompileOptions(attention="chunked")
IM2COL = CompileOptions(convolution="im2col")
SMALL, LARGE = {"latent_height": 64}, {"latent_height": 128}


def timed(
    seconds: float,
    options: CompileOptions = AUTO,
    sizes: Mapping[str, int] = SMALL,
    executor: str = "vulkan0",
    signature: str = "net",
) -> Timed:
    return Timed("diffusion", signature, executor, sizes, options, seconds)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = Table(
        RADV, [timed(1.5), timed(1.2, CHUNKED)], submit={"net": 32}, threads=8, made="2026-11-23T01:00:00+00:00"
    )
    path = tables.save(table, tmp_path)
    assert tables.load(RADV, tmp_path) == table
    assert [found.name for found in tmp_path.iterdir()] == [path.name] and tables.exists(tmp_path)


@pytest.mark.parametrize(
    "other",
    [
        replace(RADV, driver="radv Mesa 25.2.2"),
        replace(RADV, engine="cyllama-vulkan 0.8.0"),
        replace(RADV, device="AMD Radeon RX 570 Series (RADV POLARIS10)"),
    ],
)
def test_a_table_of_another_driver_engine_or_card_is_not_used(tmp_path: Path, other: Identity) -> None:
    tables.save(Table(RADV, [timed(1.0)]), tmp_path)
    assert tables.load(other, tmp_path).timed == []


def test_a_table_renamed_to_another_driver_is_not_used(tmp_path: Path) -> None:
    newer = replace(RADV, driver="radv Mesa 26.0.0")
    tables.save(Table(RADV, [timed(1.0)]), tmp_path).rename(tmp_path / f"{newer.name}.json")
    assert tables.load(newer, tmp_path).timed == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 99}'])
def test_a_damaged_table_is_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / f"{RADV.name}.json").write_text(text)
    assert tables.load(RADV, tmp_path) == Table(RADV)


def test_a_new_measurement_takes_the_place_of_the_old_one_of_the_same_kernels() -> None:
    table = Table(RADV, [timed(1.0), timed(2.0, CHUNKED), timed(3.0, sizes=LARGE)])
    table.add([timed(0.5)])
    assert sorted(each.seconds for each in table.timed) == [0.5, 2.0, 3.0]


def test_the_winner_is_quickest_over_all_sizes_in_relation() -> None:
    table = Table(RADV, [timed(1.0), timed(1.1, CHUNKED), timed(20, sizes=LARGE), timed(12, CHUNKED, LARGE)])
    assert table.winner("net", "vulkan0", AUTO) == CHUNKED
    assert table.winner("other", "vulkan0", AUTO) is None and table.winner("net", "ggml-cpu", AUTO) is None


def test_what_was_timed_at_fewer_sizes_does_not_win() -> None:
    table = Table(RADV, [timed(1.0), timed(0.1, IM2COL), timed(20, sizes=LARGE)])
    assert table.winner("net", "vulkan0", AUTO) == AUTO


def test_what_the_user_said_stays() -> None:
    table = Table(RADV, [timed(1.0), timed(0.5, CHUNKED), timed(2.0, IM2COL)])
    said = CompileOptions(convolution="im2col", scores_bytes=1 << 20)
    assert table.winner("net", "vulkan0", said) == replace(IM2COL, scores_bytes=1 << 20)
    assert table.winner("net", "vulkan0", CompileOptions(convolution="direct")) is None


def test_the_quicker_executor_of_the_cpu_is_named_where_both_were_timed() -> None:
    cpu = Table(replace(RADV, device="cpu", driver=""))
    found = Tuned(cpu, None, lambda component: "net")
    cpu.add([timed(2.0, executor="ggml-cpu")])
    assert found.cpu_executor("vae") is None
    cpu.add([timed(0.5, executor="openvino", sizes=LARGE)])
    assert found.cpu_executor("vae") is None  # not at one size
    cpu.add([timed(0.5, executor="openvino"), timed(0.4, CHUNKED, executor="ggml-cpu", signature="other")])
    assert found.cpu_executor("vae") == "openvino"


def test_submissions_are_as_large_as_was_found_quickest_for_this_very_model() -> None:
    cpu = Table(replace(RADV, device="cpu", driver=""))
    card = Table(RADV, submit={"net": 64})
    assert Tuned(cpu, card, lambda component: "net").environment == {"GGML_VK_MAX_NODES_PER_SUBMIT": "64"}
    assert Tuned(cpu, card, lambda component: "larger").environment == {}
    assert Tuned(cpu, card).environment == {} and Tuned(cpu, None, lambda component: "net").environment == {}
