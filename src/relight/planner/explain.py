"""A plan in words and columns, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from relight.planner.amounts import amount
from relight.planner.choices import Alternative
from relight.planner.estimate import Seconds
from relight.planner.plan import Plan
from relight.planner.together import Together

SMALL = 1 << 20
AS_QUICK_S = 0.05


def lines(plan: Plan) -> Iterator[str]:
    """From what was asked to how it is run."""
    yield _title(plan)
    yield from _machine(plan)
    yield ""
    yield from _columns(_components(plan))
    yield ""
    yield from _columns(_stages(plan))
    yield ""
    yield from _totals(plan)
    if plan.alternatives:
        yield ""
        yield "choices, the best alternative of each, and what it loses:"
        yield from _columns([_alternative(each) for each in plan.alternatives], indent="  ")
    for note in plan.notes:
        yield ""
        yield f"note: {note}"
    if plan.pulls:
        yield f"would fit: {', '.join(f'relight pull {name}' for name in plan.pulls)}"
    if plan.together is not None:
        yield ""
        yield from together_lines(plan.together)


def _title(plan: Plan) -> str:
    passes = f", cfg scale {plan.cfg_scale:g}" if plan.cfg_scale != 1 else ""
    pictures = f", {plan.request.batch} pictures" if plan.request.batch > 1 else ""
    return f"{plan.model}: {plan.family}, {plan.width}x{plan.height}, {plan.steps} steps{passes}{pictures}"


def _machine(plan: Plan) -> Iterator[str]:
    gpu, cpu = plan.machine.gpu, plan.machine.cpu
    if gpu is None:
        yield "no Vulkan GPU: everything on the CPU"
    else:
        largest = f", {amount(gpu.max_allocation)} in one allocation" if gpu.max_allocation else ""
        yield (
            f"{gpu.name}: {gpu.description}, {amount(gpu.budget)} of {amount(gpu.total)} for relight{largest}; "
            f"rates: {gpu.rates.source}"
        )
    kind = "bfloat16" if cpu.bf16 else "AVX-512" if cpu.avx512 else "AVX2"
    yield f"cpu: {cpu.name}, {cpu.cores} cores, {kind}, {amount(cpu.available)} of {amount(cpu.total)} free"


def _components(plan: Plan) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [
        ("component", "file", "format", "device", "executor", "weights", "buffer", "runs", "seconds", "")
    ]
    for component in plan.components:
        part = component.part
        more = f" +{len(component.paths) - 1}" if len(component.paths) > 1 else ""
        rows.append(
            (
                part.name,
                component.paths[0].name + more,
                component.format,
                part.device,
                part.executor,
                amount(part.use.weights) + (_in_place(part.copied) if component.in_place else ""),
                amount(part.use.compute),
                str(part.runs),
                *_seconds(part.seconds),
            )
        )
    return rows


def _in_place(copied: int) -> str:
    return f" ({amount(copied)} of it copied)" if copied >= SMALL else " (used in place)"


def _stages(plan: Plan) -> list[Sequence[str]]:
    devices = list(plan.stages[0].peak)
    rows: list[Sequence[str]] = [
        ("stage", "computes", "seconds", "", *(f"peak on {name}, of {amount(plan.budget(name))}" for name in devices))
    ]
    rows += [
        (
            stage.name,
            ", ".join(stage.parts),
            *_seconds(stage.seconds),
            *(amount(stage.peak.get(device, 0)) for device in devices),
        )
        for stage in plan.stages
    ]
    return rows


def _totals(plan: Plan) -> Iterator[str]:
    course, placement = plan.outcome.course, plan.outcome.placement
    many = "side by side" if plan.ask.objective == "throughput" else "one after another"
    yield (
        f"{duration(course.total.value)} a request ({course.total.source}), "
        f"{rate(plan.pictures_per_hour)} pictures an hour {many}; "
        f"the first takes {duration(course.first)} more for loading from memory (estimated)"
    )
    if course.parts["diffusion"].device != "cpu" and plan.machine.gpu is not None:
        if placement.keep_programs:
            yield "resident together: all weights and all buffers; nothing is swapped"
        else:
            swap = f"{course.swap_s:.2f} s a picture to set up (estimated)"
            yield f"resident together: all weights; buffers one at a time, {swap}"
    rows = f", {placement.batch} row{'s' * (placement.batch > 1)} a call of the UNet" if len(plan.batches) > 1 else ""
    yield f"VAE tiles of {placement.tile} latent pixels{rows}"
    yield f"to run it so: {plan.flags}"


def _alternative(each: Alternative) -> Sequence[str]:
    if each.lost_s is None:
        verdict = f"cannot: {each.why}"
    elif abs(each.lost_s) < AS_QUICK_S:
        verdict = "as quick"
    elif each.lost_s < 0:
        verdict = f"{duration(-each.lost_s)} quicker; {each.why}"
    else:
        verdict = f"{duration(each.lost_s)} slower"
    return each.choice, each.chosen, f"not {each.other}", verdict


def together_lines(together: Together) -> Iterator[str]:
    """How several models share the card."""
    language = together.language
    if language is not None:
        model = language.model
        yield (
            f"{model.path.name}: {model.architecture}, {model.format}, {len(model.layers)} layers, "
            f"{amount(model.weights)}, {model.kv_per_token / 1024:.0f} KiB a token of conversation"
        )
        yield (
            f"  n_gpu_layers {language.layers} at {language.context} tokens: {amount(language.gpu_bytes)} on the GPU, "
            f"{amount(language.cpu_bytes)} on the CPU, about {language.tokens_per_s:.1f} tokens a second (estimated)"
        )
    if together.resident:
        yield f"all of it stays on the card: {amount(together.peak)} at most, nothing is swapped"
    else:
        changes = ", ".join(f"{swap.name} {amount(swap.nbytes)} in {swap.seconds:.1f} s" for swap in together.swaps)
        yield f"one at a time on the card: {amount(together.peak)} at most; to change: {changes} (estimated)"
    if together.other:
        yield f"  not {together.other}"


def _seconds(seconds: Seconds) -> tuple[str, str]:
    return f"{seconds.value:.2f}", seconds.source


def rate(an_hour: float) -> str:
    return f"{an_hour:.0f}" if an_hour >= 10 else f"{an_hour:.1f}"


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _columns(rows: Sequence[Sequence[str]], indent: str = "") -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
