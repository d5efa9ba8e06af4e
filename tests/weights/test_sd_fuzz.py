"""Stable Diffusion's names with any shapes: described or refused, within a second, never anything else."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny_sd
from checkpoints import prefixed
from golden.small_nets import compact_shapes, rrdb_shapes, taesd_shapes
from golden.weights import UNETS, controlnet_shapes, unet_shapes
from published import Shapes, averages, original, theirs, zeros
from relight.errors import ModelFileError
from relight.weights.checkpoint import open_component
from relight.weights.identify import as_dict, describe, identify
from relight.weights.recognise import KINDS

NETWORKS: dict[str, Shapes] = {
    "unet": unet_shapes(UNETS["sdxl"]),
    "unet of diffusers": theirs("sd1_unet"),
    "averages": averages("sd1"),
    "controlnet": prefixed("control_model.", controlnet_shapes(UNETS["sd1"])),
    "controlnet of diffusers": theirs("sd1_controlnet"),
    "open_clip": tiny_sd.open_clip(),
    "clip": theirs("clip_g"),
    "vae": original("vae_4"),
    "taesd": taesd_shapes(4),
    "taesd, numbered": {"18.conv.0.weight": (8, 8, 3, 3), "1.weight": (8, 4, 3, 3), "1.bias": (8,), "6.weight": (8,)},
    "esrgan": rrdb_shapes(),
    "compact": compact_shapes(4),
    "lora": {"lora_unet_x_attn2_to_k.lora_down.weight": (4, 768), "lora_unet_x_attn2_to_k.alpha": ()},
    "embedding": {"emb_params": (2, 768)},
}
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 7, 64, 768]), max_size=4).map(tuple)
NUMBERS = st.sampled_from(["0", "1", "9", "99", "1000", "9999999999", "x", ""])


@pytest.mark.parametrize("network", NETWORKS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False), st.lists(SHAPES, min_size=1, max_size=6), NUMBERS, st.sampled_from(KINDS))
def test_any_shapes_are_described_or_refused(
    network: str, tmp_path: Path, random: Random, shapes: list[tuple[int, ...]], number: str, kind: str
) -> None:
    """Some tensors are gone, some have other shapes, one has another number in its name."""
    changed = dict(NETWORKS[network])
    names = list(changed)
    for shape in shapes:
        changed[random.choice(names)] = shape
    for name in random.sample(names, min(len(names) // 2, random.randint(0, 3))):
        changed.pop(name, None)
    name = random.choice(names)
    changed[".".join(number if part.isdigit() else part for part in name.split("."))] = (2, 2)
    path = zeros(tmp_path / "x.safetensors", {name: shape for name, shape in changed.items() if name})
    start = time.process_time()
    try:
        identity = identify(path)
        assert as_dict(identity)["tensors"] == identity.tensors == len(changed)
        assert all(line.isprintable() for line in describe(identity))
        for found in identity.kinds if kind in identity.kinds else (kind,):
            if found in KINDS:
                open_component(found, path).close()
    except ModelFileError as error:
        assert "\n" not in str(error)
    assert time.process_time() - start < 1
