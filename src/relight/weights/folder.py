"""The components in a directory, told by their tensors: a flat folder, ComfyUI's models tree or a diffusers folder."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from relight.errors import ModelFileError
from relight.weights.identify import Component, Identity, identify
from relight.weights.recognise import FAMILIES
from relight.weights.shards import ENDINGS, weight_files

MAX_DEPTH = 4
MAX_FILES = 2000
MAX_TOKENIZER_BYTES = 64 << 20
PICKLES = (".ckpt", ".pt", ".pth", ".bin")

WHAT_TO_ADD = {
    "clip_l": "a CLIP-L text encoder (clip_l.safetensors)",
    "t5xxl": "a T5 XXL encoder (t5xxl_fp16.safetensors, or a GGUF such as t5-v1_1-xxl-encoder-Q8_0.gguf)",
    "diffusion": "a FLUX.1 transformer (flux1-schnell-Q4_K_S.gguf or flux1-schnell.safetensors)",
    "vae": "the FLUX autoencoder (ae.safetensors)",
}
IDEAL_BITS = {"diffusion": 4.5, "t5xxl": 8.5, "clip_l": 16.0, "vae": 16.0}
"""Bits a weight that the choice leans to: FLUX.1 fits 8 GB at 4.5; T5 loses nothing at 8.5 and halves its memory."""

Files = tuple[Path, ...]


@dataclass(frozen=True)
class Components:
    """What was chosen for each component (None where nothing is there), and what else was found.

    `tokenizers` are T5 `tokenizer.json` files, the likeliest first. `unreadable` says why a file was passed over.
    """

    directory: Path
    clip_l: Files | None = None
    t5xxl: Files | None = None
    diffusion: Files | None = None
    vae: Files | None = None
    tokenizers: Files = ()
    others: dict[str, tuple[Files, ...]] = field(default_factory=dict)
    unreadable: dict[Path, str] = field(default_factory=dict)

    @property
    def tokenizer(self) -> Path | None:
        return self.tokenizers[0] if self.tokenizers else None

    @property
    def missing(self) -> dict[str, str]:
        """By kind, what to add to the folder."""
        return {kind: WHAT_TO_ADD[kind] for kind in FAMILIES["flux"] if getattr(self, kind) is None}

    def require(self, kind: str) -> Files:
        """The files of a component. Raises ModelFileError that says what to add."""
        files: Files | None = getattr(self, kind)
        if files is None:
            passed_over = "".join(f"; passed over {reason}" for reason in list(self.unreadable.values())[:2])
            raise ModelFileError(f"{self.directory}: no {kind} here: add {WHAT_TO_ADD[kind]}{passed_over}")
        return files


@dataclass(frozen=True)
class _Candidate:
    component: Component
    identity: Identity

    def fits(self, diffusion: _Candidate | None) -> bool:
        """Whether its sizes are those the transformer needs (an SD autoencoder has 4 latent channels, not 16)."""
        if diffusion is None or self.component.kind == "diffusion":
            return True
        sizes, theirs = self.component.sizes, diffusion.component.sizes
        if self.component.kind == "vae":
            return 4 * sizes.get("latent_channels", 0) == theirs.get("out_channels")
        return sizes.get("hidden_size") == theirs.get("pooled_dim" if self.component.kind == "clip_l" else "text_dim")

    def rank(self, diffusion: _Candidate | None) -> tuple[bool, bool, bool, bool, float, int, int, str]:
        """Lowest is best: whole, fitting, alone in its file, quantised (diffusion), near the ideal bits, larger."""
        kind, bits = self.component.kind, self.component.bits_per_weight
        quantised = self.identity.container.startswith("GGUF") and bits < 15
        return (
            bool(self.component.missing),
            not self.fits(diffusion),
            len(self.identity.components) > 1,
            kind == "diffusion" and not quantised,
            abs(bits - IDEAL_BITS[kind]),
            -self.component.bytes,
            len(self.identity.paths[0].parts),
            str(self.identity.paths[0]),
        )


def find_components(directory: Path) -> Components:
    """Look through the directory, four levels down, and choose one candidate for each component.

    Raises ModelFileError when it is no directory. Broken files are passed over with their reasons.
    """
    if not directory.is_dir():
        raise ModelFileError(f"{directory}: is not a directory; give the folder that holds the model files")
    files = list(_walk(directory))
    identities, unreadable = _identities(files)
    candidates: dict[str, list[_Candidate]] = {kind: [] for kind in FAMILIES["flux"]}
    for identity in identities:
        for component in identity.components:
            if component.kind in candidates:
                candidates[component.kind].append(_Candidate(component, identity))
    diffusion = min(candidates["diffusion"], key=lambda c: c.rank(None), default=None)
    ranked = {kind: sorted(found, key=lambda c: c.rank(diffusion)) for kind, found in candidates.items()}
    paths = {kind: tuple(dict.fromkeys(c.identity.paths for c in found)) for kind, found in ranked.items()}
    chosen = {kind: found[0] if found else None for kind, found in paths.items()}
    return Components(
        directory,
        **chosen,
        tokenizers=_tokenizers(files, chosen["t5xxl"]),
        others={kind: found[1:] for kind, found in paths.items() if len(found) > 1},
        unreadable=unreadable,
    )


def _walk(directory: Path) -> Iterator[Path]:
    """Files by name, folder by folder, hidden ones left out."""
    count = 0
    for folder, folders, names in os.walk(directory):
        depth = len(Path(folder).relative_to(directory).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < MAX_DEPTH else []
        for name in sorted(name for name in names if not name.startswith(".")):
            count += 1
            if count > MAX_FILES:
                raise ModelFileError(f"{directory}: more than {MAX_FILES} files; give the folder of one model")
            yield Path(folder, name)


def _identities(files: list[Path]) -> tuple[list[Identity], dict[Path, str]]:
    """Each checkpoint once, shards together."""
    identities: list[Identity] = []
    unreadable: dict[Path, str] = {}
    seen: set[Path] = set()
    for path in files:
        if path in seen or path.suffix.lower() not in (*ENDINGS, *PICKLES):
            continue
        try:
            seen.update(weight_files(path))
            identities.append(identify(path))
        except ModelFileError as error:
            unreadable[path] = str(error)
    return identities, unreadable


def _tokenizers(files: list[Path], t5xxl: Files | None) -> Files:
    """Files that hold a unigram vocabulary: the one beside T5 first, then diffusers' tokenizer_2, then by name."""
    found = [path for path in files if path.suffix == ".json" and "tokenizer" in path.name and _is_unigram(path)]
    beside = t5xxl[0].parent if t5xxl else None
    return tuple(sorted(found, key=lambda path: (path.parent != beside, path.parent.name != "tokenizer_2", str(path))))


def _is_unigram(path: Path) -> bool:
    """T5's tokenizer is a unigram model, CLIP's in the folder beside it a BPE."""
    try:
        size = path.stat().st_size
        if not 0 < size <= MAX_TOKENIZER_BYTES:
            return False
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return text.find(b'"Unigram"') >= 0
    except OSError:
        return False
