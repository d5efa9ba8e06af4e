"""Each kind of value: what is read as what, what is refused, and that it reads back what it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relight.configuration.kinds import (
    Choice,
    Kind,
    Many,
    Model,
    Place,
    Real,
    Resolution,
    Share,
    Size,
    Switch,
    Text,
    Tiling,
    Whole,
)

MIB, GIB = 1 << 20, 1 << 30
HERE = Path("/somewhere")

READ: list[tuple[Kind, Any, Any]] = [
    (Size(), "6.5GB", 6.5 * GIB),
    (Size(), "235MB", 235 * MIB),
    (Size(), "235 MiB", 235 * MIB),
    (Size(), "512k", 512 << 10),
    (Size(), "1.5t", 1.5 * 1024 * GIB),
    (Size(), 6, 6 * GIB),
    (Size(), 0.5, GIB // 2),
    (Share(), 0.85, 0.85),
    (Share(), "85%", 0.85),
    (Share(), 1, 1.0),
    (Share(), "7GB", 7 * GIB),
    (Resolution(64, 4096), "1024x768", (1024, 768)),
    (Resolution(64, 4096), "1024 X 768", (1024, 768)),
    (Resolution(64, 4096), 512, (512, 512)),
    (Resolution(64, 4096), "512", (512, 512)),
    (Resolution(64, 4096), [640, 480], (640, 480)),
    (Tiling(), True, True),
    (Tiling(), "off", False),
    (Tiling(), "auto", "auto"),
    (Tiling(), 64, 64),
    (Tiling(), "64", 64),
    (Whole(0, 9), "7", 7),
    (Whole(0, 9, ("auto",)), "auto", "auto"),
    (Real(0, 100), "1e1", 10.0),
    (Real(0, 100), 7, 7.0),
    (Switch(), "no", False),
    (Switch(), True, True),
    (Choice(("f16", "q4_k"), (("fp16", "f16"),)), "FP16", "f16"),
    (Place(), "models/a.gguf", HERE / "models/a.gguf"),
    (Place(), "../a.gguf", Path("/a.gguf")),
    (Place(), "/models/a.gguf", Path("/models/a.gguf")),
    (Place(), "~/a.gguf", Path.home() / "a.gguf"),
    (Place(), "E:\\models\\a.gguf", Path("E:\\models\\a.gguf")),
    (Model(), "flux-schnell-q4", "flux-schnell-q4"),
    (Model(), "./flux", str(HERE / "flux")),
    (Many(Place()), ["a", "/b"], (HERE / "a", Path("/b"))),
    (Many(Text()), "a, b,", ("a", "b")),
    (Many(Text()), [1, 2], ("1", "2")),
]


@pytest.mark.parametrize(("kind", "given", "value"), READ)
def test_is_read_and_reads_back_what_it_writes(kind: Kind, given: Any, value: Any) -> None:
    assert kind.parse(given, HERE) == value
    assert type(kind.parse(given, HERE)) is type(value) or isinstance(kind, Size)
    assert kind.parse(kind.plain(kind.parse(given, HERE)), HERE) == value


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (Size(), "much"),
        (Size(), 0),
        (Size(), "-1GB"),
        (Size(), True),
        (Size(), "6.5XB"),
        (Size(), "6.5 i"),
        (Share(), 0),
        (Share(), 1.5),
        (Share(), "150%"),
        (Share(), True),
        (Resolution(64, 4096), "1024"[:2]),
        (Resolution(64, 4096), [1024]),
        (Resolution(64, 4096), "1024x"),
        (Tiling(), 8),
        (Tiling(), "sometimes"),
        (Whole(0, 9), 10),
        (Whole(0, 9), 1.0),
        (Whole(0, 9), True),
        (Whole(0, 9), "auto"),
        (Real(0, 1), "nan"),
        (Real(0, 1), True),
        (Switch(), "maybe"),
        (Choice(("gpu", "cpu")), "tpu"),
        (Place(), "  "),
        (Model(), ""),
        (Text(), 5),
        (Many(Text()), 5),
    ],
)
def test_what_is_wrong_is_refused_with_what_would_be_right(kind: Kind, given: Any) -> None:
    with pytest.raises(ValueError, match="should be "):
        kind.parse(given, HERE)


@given(st.integers(1, 1 << 50))
def test_every_size_reads_back_as_the_same_bytes(nbytes: int) -> None:
    assert Size().parse(Size().plain(nbytes), HERE) == nbytes


@pytest.mark.parametrize("text", ["9.3GB", "6.5GB", "235MB", "1TB"])
def test_a_size_is_written_as_people_write_it(text: str) -> None:
    kind = Size()
    assert kind.plain(kind.parse(text, Path("/"))) == text
