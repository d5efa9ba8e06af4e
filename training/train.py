"""Train the embedded model on one GPU within a given time, judge it, and write relight's files.

    PYTHONPATH=src python training/train.py --pack pack.tar --out OUT --minutes 10

Three stages, each bound by the clock: the autoencoder; the transformer with both text encoders (flow matching); and
both once more on the pictures as they are, at the noise levels of four steps, until a caption alone nearly settles the
picture. Files: OUT/model.tar.NN (pieces of a tar with the four files), metrics.json and contact sheets.
`--resume DIR` goes on from a model's files with the third stage.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import random
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import captions
import numpy as np
import torch
import torch.nn.functional as F
from evaluate import Judge, colours_right, sheet
from export import FILES, export, load
from muon import Muon, split
from networks import T5, VAE_SCALE, VAE_SHIFT, Clip, Flux, Vae, pack, unpack
from PIL import Image
from shown import SHOWN
from text import LENGTHS, Tokenizers, every, layout, vocabulary, vocabulary_of
from torch import Tensor, nn

from relight.models.tokenizers import CLIP_END, T5_PAD
from relight.sampling.noise import rng

STEPS, TEXT_TOKENS = 4, 256  # of FLUX.1 schnell
VARIANTS = 4  # of each picture: as it is, mirrored, turned a little
PIECE = 15 << 20


@dataclass(frozen=True)
class Size:
    """Sizes of the networks and of the batches."""

    hidden: int = 384
    inner: int = 1536
    double: int = 2
    single: int = 6
    text: int = 256
    text_inner: int = 256
    text_layers: int = 3
    pooled: int = 64
    channels: tuple[int, ...] = (64, 64, 96, 128)
    batch: int = 512
    vae_batch: int = 32
    captions: int = 192
    rate: float = 8e-4
    muon: float = 2e-3


TOY = Size(128, 256, 1, 1, 128, 256, 1, 64, (32, 32, 32, 32), 8, 1, 8)
STAGES = {"vae": 0.2, "flow": 0.35}  # of the minutes; the third stage has the rest, less JUDGING
JUDGING = 20  # seconds, writing included
CHECKED = 500  # steps of the third stage, after which it must have got better


class Clock:
    """Seconds since the start, and how far a stage is."""

    def __init__(self, minutes: float) -> None:
        self.start, self.total = time.monotonic(), 60 * minutes

    def now(self) -> float:
        return time.monotonic() - self.start

    def stage(self, seconds: float) -> Iterator[float]:
        """The share of the stage that is over, once for each of its steps, until its time is."""
        begin = self.now()
        while (done := (self.now() - begin) / seconds) < 1:
            yield done

    def say(self, *words: object) -> None:
        sys.stdout.write(f"[{self.now():6.1f}s] {' '.join(map(str, words))}\n")
        sys.stdout.flush()


class Pictures:
    """Every picture of the pack in VARIANTS poses [P V 3 128 128] uint8, and which concept and style it shows."""

    def __init__(self, archive: tarfile.TarFile, device: torch.device, limit: int | None) -> None:
        self.concepts: list[dict[str, Any]] = json.load(archive.extractfile("concepts.json"))
        if limit:
            chosen = [c for c in self.concepts if c.get("thing") == "heart"] + self.concepts
            self.concepts = [c | {"id": i} | {"was": c["id"]} for i, c in enumerate(chosen[:limit])]
        self.of = [(concept, style) for concept in self.concepts for style in concept["styles"]]
        packed = [archive.extractfile(f"{c.get('was', c['id']):05d}-{s or 'noto'}.webp").read() for c, s in self.of]
        with ThreadPoolExecutor(16) as pool:
            arrays = list(pool.map(lambda raw: np.array(Image.open(io.BytesIO(raw)).convert("RGB")), packed))
        plain = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous().to(device)
        self.poses = torch.cat([posed(part, self.of[i : i + 256]) for i, part in chunks(plain, 256)])
        self.owner = torch.tensor([concept["id"] for concept, _ in self.of], device=device)

    def batch(self, count: int) -> Tensor:
        """[B 3 128 128] in -1..1, moved by up to four pixels, all alike."""
        device = self.poses.device
        which = torch.randint(len(self.poses), (count,), device=device)
        pose = torch.randint(VARIANTS, (count,), device=device)
        moved = F.pad(self.poses[which, pose].float(), (4, 4, 4, 4), value=255)
        dx, dy = random.randrange(9), random.randrange(9)
        return moved[..., dy : dy + 128, dx : dx + 128] / 127.5 - 1


def posed(pictures: Tensor, of: Sequence[tuple[dict[str, Any], str]]) -> Tensor:
    """As it is; mirrored where that shows the same thing; turned a little and smaller, twice. [B V 3 H W] uint8."""
    words = ("left", "right", "clock", "book", "letter", "keyboard", "number", "sign", "mail", "sun behind")
    mirror = torch.tensor([not any(word in c["name"] for word in words) for c, _ in of], device=pictures.device)
    turn = torch.tensor([c.get("thing") not in ("circle", "square", "triangle", "diamond") for c, _ in of]).float()
    flipped = torch.where(mirror[:, None, None, None], pictures.flip(-1), pictures)
    poses = [pictures, flipped]
    for place, source in ((-1, pictures), (1, flipped)):
        angle, scale = turn * place * math.radians(7), 1 + 0.08 * torch.rand(len(of))
        cos, sin, zero = angle.cos() * scale, angle.sin() * scale, torch.zeros(len(of))
        matrix = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3).to(pictures.device)
        grid = F.affine_grid(matrix, list(pictures.shape), align_corners=False)
        moved = 255 - F.grid_sample(255 - source.float(), grid, mode="bicubic", align_corners=False)
        poses.append(moved.clamp(0, 255).round().byte())
    return torch.stack(poses, 1)


def chunks(tensor: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    return ((i, tensor[i : i + size]) for i in range(0, len(tensor), size))


class Trainer:
    """One optimiser over several networks, with their running averages in `average`."""

    def __init__(self, networks: dict[str, nn.Module], rate: float, decay: float, muon: float = 0) -> None:
        """`muon` is the rate of the matrices, if they get steps of their own."""
        self.networks, self.rate, self.decay, self.muon = networks, rate, decay, muon
        self.average = {name: copy.deepcopy(network).requires_grad_(False) for name, network in networks.items()}
        self.parameters = [p for network in networks.values() for p in network.parameters()]
        self.averages = [p for network in self.average.values() for p in network.parameters()]
        cuda = self.parameters[0].is_cuda
        matrices, others = split(networks) if muon else ([], self.parameters)
        self.matrices = Muon(matrices)
        self.optimiser = torch.optim.AdamW(others, rate, betas=(0.9, 0.99), weight_decay=0.01, fused=cuda)
        self.steps = 0

    def step(self, loss: Tensor, done: float) -> None:
        """`done` is the share of the stage that is over: the rate rises for its first part, then falls to nothing."""
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        warm = min(1, (self.steps + 1) / 200)
        share = warm * max(0.01, 0.5 + 0.5 * math.cos(math.pi * done))
        self.optimiser.param_groups[0]["lr"] = self.rate * share
        self.optimiser.step()
        self.matrices.step(self.muon * share)
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)


def autocast(device: torch.device) -> Any:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def train_vae(pictures: Pictures, size: Size, clock: Clock, seconds: float) -> Vae:
    """Absolute error of the pixels and of their differences to their neighbours, and a little divergence from a normal
    distribution, which keeps latents smooth and centred. Latents end with a deviation of one, scaled as FLUX's are."""
    device = pictures.poses.device
    vae = Vae(size.channels).to(device, memory_format=torch.channels_last)
    trainer = Trainer({"vae": vae}, 1.5e-3, 0.998)
    for done in clock.stage(seconds):
        batch = pictures.batch(size.vae_batch).contiguous(memory_format=torch.channels_last)
        with autocast(device):
            mean, logvar = vae.encoder(batch).float().chunk(2, 1)
            logvar = logvar.clamp(-12, 4)
            z = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
            back = vae.decoder(z)
        error = back.float() - batch
        edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
        coarse = F.avg_pool2d(error, 4).abs().mean()
        divergence = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        loss = error.abs().mean() + 0.5 * edges + 0.5 * coarse + 5e-4 * divergence
        trainer.step(loss, done)
        if trainer.steps % 250 == 1:
            clock.say(f"vae step {trainer.steps} error {error.abs().mean():.4f} divergence {divergence:.3f}")
    vae = trainer.average["vae"]
    latents = torch.cat([encode(vae, part[:, 0]) for _, part in chunks(pictures.poses, 64)])
    deviation = latents.float().std((0, 2, 3))
    clock.say(f"vae {trainer.steps} steps, latents' deviation {[round(float(d), 2) for d in deviation]}")
    vae.rescale(1 / deviation.clamp(min=0.01))
    return vae


@torch.no_grad()
def encode(vae: Vae, pictures: Tensor) -> Tensor:
    """uint8 [B 3 H W] to the means of the latents, as the transformer takes them."""
    with autocast(pictures.device):
        return (vae.encoder(pictures.float() / 127.5 - 1)[:, :16].float() - VAE_SHIFT) * VAE_SCALE


def encoded(vae: Vae, pictures: Tensor) -> Tensor:
    """Latent tokens of many pictures, [P 64 64]."""
    return torch.cat([pack(encode(vae, part)) for _, part in chunks(pictures, 128)])


@torch.no_grad()
def decode(vae: Vae, latents: Tensor) -> Tensor:
    """The transformer's latents [B 16 h w] to pictures in 0..1."""
    parts = [vae.decoder(part / VAE_SCALE + VAE_SHIFT) for _, part in chunks(latents, 64)]
    return (torch.cat(parts).float() / 2 + 0.5).clamp(0, 1)


class Wordings:
    """Captions of each picture as ids: T5 [P M L], CLIP [P M L]; and of no words at all."""

    def __init__(self, pictures: Pictures, tokenizers: Tokenizers, count: int) -> None:
        texts = [t for concept, style in pictures.of for t in captions.for_training(concept, style, count)]
        tests = captions.first_set(pictures.concepts) + captions.second_set(pictures.concepts)
        self.leaked = len({p.text for p in tests} & set(texts))
        assert not self.leaked, "a wording kept back for the test is a caption"
        t5, clip = (ids.reshape(len(pictures.of), count, -1) for ids in tokenizers.many(texts))
        whole = (t5[..., -1] == T5_PAD) & (clip[..., -2] == CLIP_END)  # a long caption may have lost the thing itself
        kept = np.stack([np.resize(np.flatnonzero(row), count) for row in whole])[..., None]
        device = pictures.poses.device
        self.t5 = torch.from_numpy(np.take_along_axis(t5, kept, 1)).to(device)
        self.clip = torch.from_numpy(np.take_along_axis(clip, kept, 1)).to(device)
        self.cut = 1 - float(whole.mean())
        self.nothing = tuple(torch.from_numpy(ids).to(device) for ids in tokenizers.many([""]))
        self.seen = torch.zeros(49408, dtype=torch.bool, device=device)
        self.seen[self.clip.flatten().long()] = True

    def batch(self, which: Tensor, empty: float) -> tuple[Tensor, Tensor]:
        """One caption for each picture, now and then none."""
        pick = torch.randint(self.t5.shape[1], which.shape, device=which.device)
        drop = (torch.rand(which.shape, device=which.device) < empty)[:, None]
        return torch.where(drop, self.nothing[0], self.t5[which, pick]), torch.where(
            drop, self.nothing[1], self.clip[which, pick]
        )


@dataclass
class Drawer:
    """The transformer and its text encoders."""

    flux: Flux
    t5: T5
    clip: Clip

    @classmethod
    def of(cls, networks: dict[str, nn.Module]) -> Drawer:
        return cls(networks["diffusion"], networks["t5xxl"], networks["clip_l"])

    def texts(self, t5: Tensor, clip: Tensor, positions: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        padded = F.pad(t5, (0, len(positions) - t5.shape[1]))
        return self.t5(padded, positions, bias), self.clip(clip)

    @torch.no_grad()
    def draw(
        self, noise: Tensor, ids: tuple[Tensor, Tensor], steps: int, guidance: float = 1.0,
        nothing: tuple[Tensor, Tensor] | None = None, place: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """Latent tokens from noise, by Euler's steps along equal parts of the way, as relight does it."""
        device, count = noise.device, len(noise)
        positions, bias = place or every(TEXT_TOKENS, device)
        if nothing is not None:
            ids = tuple(torch.cat([given, none.expand(count, -1)]) for given, none in zip(ids, nothing, strict=True))
        with autocast(device):
            text, pooled = self.texts(*ids, positions, bias)
        x, levels = noise.clone(), torch.linspace(1, 0, steps + 1).tolist()
        for level, following in zip(levels[:-1], levels[1:], strict=True):
            t = torch.full((len(text),), level, device=device)
            with autocast(device):
                v = self.flux(
                    x if nothing is None else torch.cat([x, x]), t, text, pooled, bias if place else None
                ).float()
            if nothing is not None:
                with_words, without = v.chunk(2)
                v = without + guidance * (with_words - without)
            x = x + (following - level) * v
        return x


def levels(count: int, device: torch.device) -> Tensor:
    """Noise levels: half of them where a sampler of 4 or 8 steps asks, the others everywhere."""
    exact = torch.randint(1, 9, (count,), device=device) / 8
    exact = torch.where(torch.rand(count, device=device) < 0.6, (exact * 4).ceil() / 4, exact)
    anywhere = torch.sigmoid(torch.randn(count, device=device) * 1.4 + 0.3)
    return torch.where(torch.rand(count, device=device) < 0.5, exact, anywhere)


def train_flow(
    networks: dict[str, nn.Module], latents: Tensor, words: Wordings, size: Size, clock: Clock, seconds: float
) -> None:
    """Flow matching on the pictures' latents [P V I 64]; the averages take the networks' place at the end."""
    device = latents.device
    trainer = Trainer(networks, size.rate, 0.9995 if device.type == "cuda" else 0.98)
    compiled(networks, device)
    places = [layout(length, device) for length in LENGTHS]
    drawer = Drawer.of(networks)
    pose_odds = torch.tensor([0.4, 0.2, 0.2, 0.2], device=device)
    for done in clock.stage(seconds):
        which = torch.randint(len(latents), (size.batch,), device=device)
        image = latents[which, torch.multinomial(pose_odds, size.batch, True)].float()
        noise, t = torch.randn_like(image), levels(size.batch, device)
        x = torch.lerp(image, noise, t[:, None, None])
        positions, bias = random.choice(places)
        with autocast(device):
            text, pooled = drawer.texts(*words.batch(which, 0.08), positions, bias)
            v = drawer.flux(x, t, text, pooled, bias)
        loss = F.mse_loss(v.float(), noise - image)
        trainer.step(loss, done)
        if trainer.steps % 500 in (1, 20, 100):
            clock.say(f"flow step {trainer.steps} loss {loss:.4f}")
    clock.say(f"flow: {trainer.steps} steps of {size.batch}, loss {loss:.4f}")
    networks.update(trainer.average)


def few_levels(count: int, device: torch.device) -> Tensor:
    """Noise levels: three in four are those of four steps, the purest noise most often."""
    odds = torch.tensor([0.15, 0.2, 0.25, 0.4], device=device)
    exact = (torch.multinomial(odds, count, True) + 1) / 4
    return torch.where(torch.rand(count, device=device) < 0.75, exact, levels(count, device))


def settle(
    networks: dict[str, nn.Module],
    latents: Tensor,
    words: Wordings,
    size: Size,
    clock: Clock,
    early: Callable[[], None],
) -> None:
    """Flow matching on the pictures as they are [P I 64] until the time for judging. `networks` become the averages at
    once; `early` is called when three quarters of the time are over."""
    device, decay = latents.device, 0.998 if latents.device.type == "cuda" else 0.9
    start = {kind: copy.deepcopy(network.state_dict()) for kind, network in networks.items()}
    live = {kind: network.requires_grad_(True) for kind, network in networks.items()}
    trainer = Trainer(live, size.rate, decay, muon=size.muon)
    compiled(live, device)
    drawer = Drawer.of(live)
    networks.update(trainer.average)
    positions, bias = layout(TEXT_TOKENS, device)

    def step(done: float) -> Tensor:
        which = torch.randint(len(latents), (size.batch,), device=device)
        image = latents[which].float()
        noise, t = torch.randn_like(image), few_levels(size.batch, device)
        with autocast(device):
            text, pooled = drawer.texts(*words.batch(which, 0.0), positions, bias)
            v = drawer.flux(torch.lerp(image, noise, t[:, None, None]), t, text, pooled, bias)
        loss = F.mse_loss(v.float(), noise - image)
        trainer.step(loss, done)
        return loss.detach()

    step(0.0)  # compiles
    clock.say("compiled")
    losses: list[Tensor] = []
    written = False
    for done in clock.stage(max(5.0, clock.total - JUDGING - clock.now())):
        loss = step(done)
        losses.append(loss)
        if len(losses) == CHECKED and torch.stack(losses[-50:]).mean() > torch.stack(losses[:5]).mean():
            clock.say("worse than at first: from there again with AdamW alone")
            for kind, network in live.items():
                network.load_state_dict(start[kind])
            trainer = Trainer(live, size.rate, decay)
            networks.update(trainer.average)
        if trainer.steps % 250 == 1:
            clock.say(f"settle step {trainer.steps} loss {loss:.4f}")
        if done > 0.75 and not written:
            written = True
            early()
    clock.say(f"settle: {trainer.steps} steps of {size.batch}, loss {loss:.4f}")


def compiled(networks: dict[str, nn.Module], device: torch.device) -> None:
    """Compile block by block: one compilation serves all blocks of a kind."""
    if device.type != "cuda":
        return
    torch._dynamo.config.suppress_errors = True
    flux = networks["diffusion"]
    for block in [*flux.double_blocks, *flux.single_blocks]:
        block.compile(dynamic=False)


def judge(
    networks: dict[str, nn.Module], pictures: Pictures, tokenizers: Tokenizers, clock: Clock
) -> tuple[dict[str, Any], Image.Image]:
    """How often the right thing is drawn, for wordings never trained on, at relight's own settings; and the pictures of
    the first of them."""
    device = pictures.poses.device
    originals = pictures.poses[:, :2].flatten(0, 1).float() / 255  # and mirrored
    judge_ = Judge.of(originals, pictures.owner.repeat_interleave(2))
    found: dict[str, Any] = {}
    sets = {"kept_back": captions.first_set(pictures.concepts), "second": captions.second_set(pictures.concepts)}
    for name, kept in sets.items():
        drawn = draw(networks, [p.text for p in kept], tokenizers, device, seed=11)
        right, gone = judge_.right(drawn, kept), set(captions.disowned(kept, pictures.concepts))
        of_gone = [ok for p, ok in zip(kept, right, strict=True) if p in gone]
        found[name] = {"right": sum(right), "of": len(kept), "steps": STEPS}
        found[name] |= {"disowned": {"right": sum(of_gone), "of": len(of_gone)}}
        found[f"{name}_wrong"] = [
            [p.text, pictures.concepts[p.concept]["name"], pictures.concepts[c]["name"]]
            for p, c, ok in zip(kept, judge_.concepts(drawn), right, strict=True)
            if not ok
        ]
    page = sheet(drawn[:100], [p.text for p in kept[:100]])
    colours = [p for p in captions.colour_test(pictures.concepts) for _ in range(3)]
    coloured = draw(networks, [p.text for p in colours], tokenizers, device, seed=12)
    matches = colours_right(coloured, colours, pictures.concepts)
    found["colours"] = {"right": sum(matches), "of": len(colours)}
    found["colours_wrong"] = [p.text for p, ok in zip(colours, matches, strict=True) if not ok]
    names = [captions.Phrasing(c["id"], "", c["name"]) for c in pictures.concepts[::3]]
    named = draw(networks, [p.text for p in names], tokenizers, device, seed=13)
    found["names"] = {"right": sum(judge_.right(named, names)), "of": len(names)}
    clock.say({key: value for key, value in found.items() if key in (*sets, "colours", "names")})
    return found, page


def draw(
    networks: dict[str, nn.Module], texts: Sequence[str], tokenizers: Tokenizers, device: torch.device, seed: int
) -> Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    ids = tuple(torch.from_numpy(part).to(device) for part in tokenizers.many(texts))
    noise = torch.randn(len(texts), 64, 64, device=device, generator=generator)
    drawer = Drawer.of(networks)
    parts = [
        drawer.draw(noise[i : i + 128], tuple(p[i : i + 128] for p in ids), STEPS) for i in range(0, len(texts), 128)
    ]
    return decode(networks["vae"], unpack(torch.cat(parts), 16))


def write(out: Path, networks: dict[str, nn.Module], metadata: dict[str, Any], clock: Clock) -> None:
    """The model's files, as pieces of a tar."""
    folder = Path("/tmp/relight-emoji")
    sizes = export(folder, {kind: networks[kind] for kind in ("diffusion", "clip_l", "t5xxl", "vae")}, metadata)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    for place, start in enumerate(range(0, len(packed.getvalue()), PIECE)):
        (out / f"model.tar.{place:02d}").write_bytes(packed.getvalue()[start : start + PIECE])
    load(folder, networks)
    clock.say("written", sizes, sum(sizes.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--resume", type=Path, help="a folder with the four files of an earlier run")
    parser.add_argument("--toy", action="store_true", help="tiny networks and few pictures, to try the script out")
    args = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args.out.mkdir(parents=True, exist_ok=True)
    clock, size = Clock(args.minutes), TOY if args.toy else Size()
    archive = tarfile.open(args.pack)
    metadata = vocabulary_of(args.resume / FILES["t5xxl"]) if args.resume else vocabulary(archive)
    tokenizers, pictures = Tokenizers(metadata), Pictures(archive, device, 12 if args.toy else None)
    clock.say(len(pictures.concepts), "concepts,", len(pictures.of), "pictures")
    words = Wordings(pictures, tokenizers, size.captions)
    clock.say(f"captions ready, {words.leaked} kept-back wordings among them, {words.cut:.2%} left out as too long")
    networks: dict[str, nn.Module] = {
        "diffusion": Flux(size.hidden, size.inner, size.double, size.single, size.text, size.pooled).to(device),
        "t5xxl": T5(len(metadata["tokenizer.ggml.tokens"]), size.text, size.text_inner, size.text_layers).to(device),
        "clip_l": Clip(size.pooled, 4 * size.pooled, 2).to(device),
        "vae": Vae(size.channels).to(device),
    }
    clock.say({kind: sum(p.numel() for p in network.parameters()) for kind, network in networks.items()})
    if args.resume:
        load(args.resume, networks)
    else:
        networks["vae"] = train_vae(pictures, size, clock, clock.total * STAGES["vae"])
    networks["vae"].requires_grad_(False)
    latents = torch.stack([encoded(networks["vae"], pictures.poses[:, pose]) for pose in range(VARIANTS)], 1)
    original = pictures.poses[:10, 0].float() / 255
    back = decode(networks["vae"], unpack(latents[:10, 0], 16))
    clock.say(f"latents {tuple(latents.shape)} mean {latents.mean():.3f} deviation {latents.std():.3f}")
    clock.say(f"pictures come back to {(back - original).abs().mean():.4f}")
    flow_seconds = 0 if args.resume else clock.total * STAGES["flow"]
    networks = run_flow(networks, latents, words, pictures, tokenizers, metadata, size, clock, flow_seconds, args.out)
    clock.say("done")


def run_flow(
    networks: dict[str, nn.Module], latents: Tensor, words: Wordings, pictures: Pictures, tokenizers: Tokenizers,
    metadata: dict[str, Any], size: Size, clock: Clock, flow_seconds: float, out: Path,
) -> dict[str, nn.Module]:  # fmt: skip
    """The second stage, if it has any time, and the third; then judging and writing."""
    vae = {"vae": networks.pop("vae")}
    if flow_seconds:
        train_flow(networks, latents, words, size, clock, flow_seconds)
        write(out, networks | vae, metadata, clock)
    settle(networks, latents[:, 0], words, size, clock, lambda: write(out, networks | vae, metadata, clock))
    device = latents.device
    with torch.no_grad():
        networks["clip_l"].text_model.embeddings.token_embedding.weight[~words.seen] = 0
    write(out, networks | vae, metadata, clock)
    found, page = judge(networks | vae, pictures, tokenizers, clock)
    (out / "metrics.json").write_text(json.dumps({"reported": found}, indent=1))
    page.save(out / "sheet_kept_back.png")
    sheet(draw(networks | vae, SHOWN, tokenizers, device, 5), SHOWN, 8).save(out / "sheet.png")
    reference(out, networks | vae, tokenizers)
    return networks | vae


def reference(out: Path, networks: dict[str, nn.Module], tokenizers: Tokenizers) -> None:
    """A picture in 32 bits from the noise of relight's seed 3, which relight's must equal."""
    noise = torch.from_numpy(rng("cuda", 3).normal((1, 16, 16, 16)))
    ids = tuple(torch.from_numpy(part) for part in tokenizers.many(["a red apple"]))
    networks = {name: copy.deepcopy(network).cpu() for name, network in networks.items()}
    image = decode(networks["vae"], unpack(Drawer.of(networks).draw(pack(noise), ids, STEPS), 16))
    np.savez_compressed(out / "reference.npz", image=image[0].permute(1, 2, 0).numpy())


if __name__ == "__main__":
    main()
