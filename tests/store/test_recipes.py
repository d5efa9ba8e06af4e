"""The data file of sets, and addresses of single files."""

from __future__ import annotations

import re

import pytest

from relight.errors import RequestError
from relight.store import recipes
from relight.store.recipes import GIB, hub_file, named_set, set_names, t5_for, t5_variants

ALL = [named_set(name, t5) for name in set_names() for t5 in t5_variants()]
FILES = {file.path: file for recipe in ALL for file in recipe.files}


def test_the_sets_the_documentation_promises_are_there() -> None:
    language = {"llama-1b", "llama-3b", "qwen-4b", "qwen-8b"}
    assert set(set_names()) == {"flux-schnell-q4", "flux-schnell-q2", "flux-dev-q4", "sd15", "sdxl-turbo"} | language


@pytest.mark.parametrize("file", FILES.values(), ids=lambda file: file.name)
def test_every_file_states_origin_size_and_licence(file: recipes.RemoteFile) -> None:
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", file.repository) and file.path and file.licence
    assert file.role in recipes.ROLES and (file.size > 100_000_000 or file.role == "tokenizer")
    assert file.revision == "main" or re.fullmatch(r"[0-9a-f]{40}", file.revision)
    assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)


def test_every_table_of_a_file_is_used() -> None:
    assert {table["path"] for table in recipes._table()["files"].values()} == set(FILES)


@pytest.mark.parametrize("name", [name for name in set_names() if name.startswith("flux")])
def test_a_flux_set_has_each_component_and_a_tokenizer(name: str) -> None:
    for t5 in t5_variants():
        roles = sorted(file.role for file in named_set(name, t5).files)
        assert roles == ["clip_l", "diffusion", "t5xxl", "tokenizer", "vae"]


def test_t5_follows_the_memory() -> None:
    assert [t5_for(gib * GIB) for gib in (4, 8, 16, 24, 32, 64)] == ["Q4_K", "Q4_K", "Q8_0", "Q8_0", "F16", "F16"]


def test_a_machine_sold_with_32_gib_counts_as_such() -> None:
    assert t5_for(int(31.2 * GIB)) == "F16"  # the kernel and the graphics keep some


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(RequestError, match="did you mean flux-schnell-q4"):
        named_set("flux-schnel-q4", "F16")


@pytest.mark.parametrize(
    ("text", "repository", "path", "revision"),
    [
        ("hf:a/b/c.gguf", "a/b", "c.gguf", "main"),
        ("hf:a-b/c.d/sub/dir/e.safetensors@v1.0", "a-b/c.d", "sub/dir/e.safetensors", "v1.0"),
    ],
)
def test_an_address_is_taken_apart(text: str, repository: str, path: str, revision: str) -> None:
    (file,) = hub_file(text).files
    assert (file.repository, file.path, file.revision) == (repository, path, revision)


@pytest.mark.parametrize(
    "text",
    [
        "hf:",
        "hf:a",
        "hf:a/b",
        "hf:a/b/",
        "a/b/c",
        "hf:a/b/../c",
        "hf:a/../../b/c",
        "hf:../x/c",
        "hf:a/b//etc/x",
        "hf:a/b/c\\d",
    ],
)
def test_an_address_of_another_form_or_that_climbs_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="hf:OWNER/REPO/FILE"):
        hub_file(text)
