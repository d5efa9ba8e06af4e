"""Small networks: tiny autoencoders (TAESD) and upscalers of the ESRGAN family, renamed to ours and listed whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from relight.weights.renames import Rename, highest, leaves, one_by_one

TAESD_BLOCKS = {"decoder": (2, 3, 4, 7, 8, 9, 12, 13, 14, 17), "encoder": (1, 3, 4, 5, 7, 8, 9, 11, 12, 13)}
TAESD_STEPS = {"decoder": (6, 11, 16), "encoder": (2, 6, 10)}
"""By side: layers that are residual blocks, and those that change the resolution (convolutions without bias)."""
TAESD_ENDS = {"decoder": (0, 18), "encoder": (0, 14)}

OLD_BLOCK = re.compile(r"model\.1\.sub\.(\d{1,3})\.RDB([123])\.conv([1-5])\.0\.(\w+)")
OLD_CONV = re.compile(r"model\.(?:(\d{1,2})|1\.sub\.(\d{1,3}))\.(weight|bias)")
OLDER = (
    (re.compile(r"RRDB_trunk\.(\d{1,3})\.RDB([123])\.(conv[1-5])\."), r"body.\1.rdb\2.\3."),
    (re.compile(r"trunk_conv\."), "conv_body."),
    (re.compile(r"upconv(\d)\."), r"conv_up\1."),
    (re.compile(r"HRconv\."), "conv_hr."),
)
UPSCALER = re.compile(r"(conv_(first|body|up\d|hr|last)|body\.\d{1,3}(\.rdb[123]\.conv[1-5])?)\.(weight|bias)")


def taesd_original(side: str) -> Rename:
    """The author's own files number the layers from the first; the decoder's first is its clamp, which we do not count.

    `side` is `decoder` or `encoder`.
    """
    first = 1 if side == "decoder" else 0

    def rename(name: str) -> str | None:
        number, _, rest = name.partition(".")
        inside = number.isdigit() and first <= int(number) <= 20 and re.fullmatch(r"(conv\.\d\.)?(weight|bias)", rest)
        return f"{side}.layers.{int(number) - first}.{rest}" if inside else None

    return one_by_one(rename)


def taesd_names(sides: Iterable[str]) -> Iterator[str]:
    """67 tensors a side."""
    for side in sides:
        first, last = TAESD_ENDS[side]
        layers = sorted((first, *TAESD_BLOCKS[side], *TAESD_STEPS[side], last))
        for layer in (f"{side}.layers.{i}" for i in layers):
            number = int(layer.rpartition(".")[2])
            if number in TAESD_BLOCKS[side]:
                yield from leaves(*(f"{layer}.conv.{i}" for i in (0, 2, 4)))
            elif number in TAESD_STEPS[side]:
                yield f"{layer}.weight"
            else:
                yield from leaves(layer)


def esrgan_old(names: Iterable[str]) -> Rename:
    """ESRGAN's first layout numbers its layers: the trunk's last convolution and those behind it are told by order."""
    matches = [match for name in names if (match := OLD_CONV.fullmatch(name))]
    tail = sorted({int(match[1]) for match in matches if match[1] and int(match[1]) > 1})
    ends = dict(zip(tail[-2:], ("conv_hr", "conv_last")[-len(tail) :], strict=False))
    convs = {0: "conv_first"} | {number: f"conv_up{i + 1}" for i, number in enumerate(tail[:-2])} | ends

    def rename(name: str) -> str | None:
        if match := OLD_BLOCK.fullmatch(name):
            return "body.{}.rdb{}.conv{}.{}".format(*match.groups())
        if match := OLD_CONV.fullmatch(name):
            path = "conv_body" if match[2] else convs.get(int(match[1]))
            return f"{path}.{match[3]}" if path else None
        return None

    return one_by_one(rename)


def esrgan_older(name: str) -> str | None:
    """The names between: a trunk of RRDB, spelled out."""
    for pattern, template in OLDER:
        name = pattern.sub(template, name)
    return name if UPSCALER.fullmatch(name) else None


def rrdb_names(blocks: int, steps: int) -> Iterator[str]:
    """Every tensor of an RRDBNet: 702 at 23 blocks and two steps of doubling."""
    yield from leaves("conv_first")
    for block in range(blocks):
        yield from leaves(*(f"body.{block}.rdb{i}.conv{j}" for i in (1, 2, 3) for j in range(1, 6)))
    yield from leaves("conv_body", *(f"conv_up{i + 1}" for i in range(steps)), "conv_hr", "conv_last")


def compact_names(names: Iterable[str]) -> Iterator[str]:
    """Every tensor of an SRVGGNetCompact: convolutions with a PReLU's slopes between them."""
    for layer in range(highest(r"body\.(\d+)\.", names) + 1):
        yield f"body.{layer}.weight"
        if layer % 2 == 0:
            yield f"body.{layer}.bias"
