"""The model in a folder or a checkpoint, told by its tensors: a flat folder, ComfyUI's or A1111's tree, diffusers'."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from relight.errors import ModelFileError
from relight.weights.candidates import BACKBONES, Candidate, best_backbone
from relight.weights.hints import prediction_beside
from relight.weights.identify import Identity, identify
from relight.weights.mapped import PICKLES
from relight.weights.recognise import FAMILIES, KINDS
from relight.weights.shards import ENDINGS, weight_files

MAX_DEPTH = 4
MAX_FILES = 2000
MAX_TOKENIZER_BYTES = 64 << 20
NOT_RUN = ("other unet", "transformer", "other controlnet", "other upscaler")
EXTRAS = ("controlnet", "taesd", "upscaler", "lora", "embedding")
FOLDERS_OF_BACKBONES = ("unet", "diffusion_models", "checkpoints", "stable-diffusion", "transformer")

WHAT_TO_ADD = {
    "clip_l": "a CLIP-L text encoder (clip_l.safetensors)",
    "clip_g": "a CLIP-G text encoder (clip_g.safetensors)",
    "clip_h": "a CLIP-H text encoder (text_encoder/model.safetensors of Stable Diffusion 2)",
    "t5xxl": "a T5 XXL encoder (t5xxl_fp16.safetensors, or a GGUF such as t5-v1_1-xxl-encoder-Q8_0.gguf)",
    "diffusion": "a FLUX.1 transformer (flux1-schnell-Q4_K_S.gguf or flux1-schnell.safetensors)",
    "unet": "a Stable Diffusion checkpoint (v1-5-pruned-emaonly.safetensors), or a UNet alone",
    "vae": "the FLUX autoencoder (ae.safetensors)",
}
VAE_TO_ADD = {
    "sd1": "a Stable Diffusion autoencoder (vae-ft-mse-840000-ema-pruned.safetensors)",
    "sd2": "a Stable Diffusion autoencoder (vae-ft-mse-840000-ema-pruned.safetensors)",
    "sdxl": "the SDXL autoencoder (sdxl_vae.safetensors, or sdxl-vae-fp16-fix)",
}

Files = tuple[Path, ...]


@dataclass(frozen=True)
class Components:
    """The model that was chosen, and what else was found.

    `family` is one of FAMILIES, `files` the chosen files by kind. `prediction` is what its UNet predicts: `eps`, `v`,
    or None where nothing says. `tokenizers` are T5 `tokenizer.json` files, the likeliest first. `others` are the parts
    of models that were not chosen, by kind, best first; `extras` the networks a model is used with (EXTRAS).
    `unreadable` says why a file was passed over, `titles` what every other holds.
    """

    path: Path
    family: str
    files: Mapping[str, Files]
    prediction: str | None = None
    tokenizers: Files = ()
    others: Mapping[str, tuple[Files, ...]] = field(default_factory=dict)
    extras: Mapping[str, tuple[Files, ...]] = field(default_factory=dict)
    unreadable: Mapping[Path, str] = field(default_factory=dict)
    titles: Mapping[Files, str] = field(default_factory=dict)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What a model of this family consists of."""
        return FAMILIES[self.family]

    @property
    def tokenizer(self) -> Path | None:
        return self.tokenizers[0] if self.tokenizers else None

    @property
    def missing(self) -> dict[str, str]:
        """By kind, what to add."""
        return {kind: what_to_add(kind, self.family) for kind in self.kinds if kind not in self.files}

    def get(self, kind: str) -> Files | None:
        return self.files.get(kind)

    def require(self, kind: str) -> Files:
        """The files of a component. Raises ModelFileError that says what to add."""
        files = self.files.get(kind)
        if files is None:
            passed_over = "".join(f"; passed over {reason}" for reason in list(self.unreadable.values())[:2])
            add = what_to_add(kind, self.family)
            raise ModelFileError(f"{self.path}: no {kind} here: add {add}{passed_over}")
        return files


def what_to_add(kind: str, family: str) -> str:
    return VAE_TO_ADD.get(family, WHAT_TO_ADD["vae"]) if kind == "vae" else WHAT_TO_ADD[kind]


def find_components(path: Path) -> Components:
    """The model in a folder, looked through four levels down, or in one checkpoint.

    A Stable Diffusion checkpoint gives all that is in it, whatever lies beside; FLUX.1's networks are taken alone where
    they are. What a single file lacks is looked for in its folder, or in the tree of ComfyUI or A1111 that it lies in.
    Raises ModelFileError when the path is not there, or a single file is broken or no model. Broken files in a folder
    are passed over with their reasons.
    """
    if path.is_dir():
        files = list(_walk(path))
        identities, unreadable = _identities(files)
        return _choose(path, files, identities, unreadable)
    own = identify(path)
    if not any(component.kind in BACKBONES.values() for component in own.components):
        held = f"holds {own.family}" if own.components else "holds no network relight knows"
        raise ModelFileError(f"{path}: {held}, not a model; give a checkpoint, or the folder with all of its files")
    alone = _choose(path, [], [own], {})
    if not alone.missing:
        return alone
    around = list(_walk(_tree_of(path)))
    identities, unreadable = _identities(file for file in around if file not in own.paths)
    singles = [identity for identity in identities if not _is_model(identity)]
    return _choose(path, around, [own, *singles], unreadable)


def _is_model(identity: Identity) -> bool:
    return any(component.kind in BACKBONES.values() for component in identity.components)


def _tree_of(file: Path) -> Path:
    """The folder that may hold a model's other files."""
    folder = file.absolute().parent
    return folder.parent if folder.name.lower() in FOLDERS_OF_BACKBONES else folder


def _choose(path: Path, files: list[Path], identities: list[Identity], unreadable: dict[Path, str]) -> Components:
    found: dict[str, list[Candidate]] = {kind: [] for kind in KINDS}
    for identity in identities:
        for component in identity.components:
            if component.usable:
                found[component.kind].append(Candidate(component, identity))
            elif component.kind in NOT_RUN:
                unreadable[identity.paths[0]] = f"{identity.paths[0]}: {component.family}, which relight does not run"
    family, backbone = best_backbone(found)
    ranked: dict[str, tuple[Files, ...]] = {}
    for kind, candidates in found.items():
        candidates.sort(key=lambda each: (each is not backbone, each.rank(backbone)))
        if candidates:
            ranked[kind] = tuple(dict.fromkeys(each.identity.paths for each in candidates))
    chosen = {kind: ranked[kind][0] for kind in FAMILIES[family] if kind in ranked}
    rest = {kind: paths[kind in chosen :] for kind, paths in ranked.items() if kind not in EXTRAS}
    return Components(
        path,
        family,
        chosen,
        prediction=_prediction(backbone),
        tokenizers=_tokenizers(files, chosen.get("t5xxl")),
        others={kind: paths for kind, paths in rest.items() if paths},
        extras={kind: ranked[kind] for kind in EXTRAS if kind in ranked},
        unreadable=unreadable,
        titles={identity.paths: identity.family for identity in identities},
    )


def _prediction(backbone: Candidate | None) -> str | None:
    if backbone is None or backbone.kind != "unet":
        return None
    beside = prediction_beside(backbone.identity.paths[0], backbone.component.model)
    return backbone.identity.prediction or beside


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


def _identities(files: Iterable[Path]) -> tuple[list[Identity], dict[Path, str]]:
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
