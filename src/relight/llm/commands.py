"""`relight chat`: a conversation with a language model in the terminal."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relight.errors import RequestError

if TYPE_CHECKING:
    from relight.llm.asks import LoadSettings, Sampling


def add_commands(commands: argparse._SubParsersAction[Any], common: argparse.ArgumentParser) -> None:
    """Add `chat` to the program's commands."""
    p = commands.add_parser("chat", parents=[common], help="talk with a language model (GGUF)")
    p.add_argument("model", metavar="MODEL", help="a GGUF file, or the name of one in a folder of models")
    p.add_argument("--system", metavar="TEXT", help="what the model is told before the conversation")
    _add_engine(p.add_argument_group("engine"))
    _add_sampling(p.add_argument_group("sampling"))
    p.set_defaults(run=chat)


def _add_engine(g: Any) -> None:
    g.add_argument("--ctx", type=int, default=4096, metavar="TOKENS", help="length of the conversation (default: 4096)")
    g.add_argument(
        "--n-gpu-layers", "-ngl", type=int, metavar="N", help="blocks on the GPU; -1 for all (default: what fits)"
    )
    g.add_argument("--device", metavar="NAME", help="GPU for these blocks (default: vulkan0)")
    g.add_argument("--threads", type=int, metavar="N", help="default: physical cores")
    g.add_argument(
        "--cache", choices=("f16", "q8_0", "q4_0"), default="f16", help="format of its memory (default: f16)"
    )


def _add_sampling(g: Any) -> None:
    g.add_argument("--temp", type=float, default=0.8, metavar="T", help="0 takes the likeliest token (default: 0.8)")
    g.add_argument("--top-p", type=float, default=0.95, metavar="P", help="default: 0.95")
    g.add_argument("--top-k", type=int, default=40, metavar="K", help="0 for all (default: 40)")
    g.add_argument("--min-p", type=float, default=0.05, metavar="P", help="default: 0.05")
    g.add_argument("--repeat-penalty", type=float, default=1.0, metavar="R", help="default: 1, none")
    g.add_argument("--seed", type=int, metavar="N", help="for the same answers again")
    g.add_argument("--no-thinking", action="store_true", help="answer at once, where the model can")
    g.add_argument("--max-tokens", type=int, metavar="N", help="longest answer (default: what the context holds)")


def load_settings(a: argparse.Namespace) -> LoadSettings:
    """But for the layers on the GPU, where they are left open."""
    from relight.llm.asks import LoadSettings

    return LoadSettings(
        n_gpu_layers=a.n_gpu_layers or 0,
        device=a.device,
        context=a.ctx,
        slots=1,
        threads=a.threads,
        cache_k=a.cache,
        cache_v=a.cache,
    )


def sampling(a: argparse.Namespace) -> Sampling:
    from relight.llm.asks import Sampling

    return Sampling(
        temperature=a.temp,
        top_p=a.top_p,
        top_k=a.top_k,
        min_p=a.min_p,
        repeat_penalty=a.repeat_penalty,
        seed=a.seed,
    )


def model_file(name: str) -> Path:
    """Raises RequestError for a name nothing has, and for pictures' models."""
    from relight.store.catalogue import find_model

    found = find_model(name)
    if not isinstance(found, Path):
        raise RequestError(f"{name}: is a model for pictures; `relight models` lists what is here")
    return found


def fitting_layers(path: Path, settings: LoadSettings) -> int:
    """As many blocks as the GPU has room for now; none where there is no GPU."""
    from contextlib import closing

    from relight.planner.language import read_language_model
    from relight.planner.machine import HEADROOM_BYTES
    from relight.workers.process import Worker

    with closing(Worker("devices")) as worker:
        devices = worker.call("devices").values["devices"]
    gpus = [d for d in devices if (d["name"] == settings.device if settings.device else d["type"] == "gpu")]
    if not gpus:
        return 0
    model = read_language_model(path)
    context = min(settings.context or model.trained_context, model.trained_context or settings.context)
    return model.most_layers(int(gpus[0]["memory_free"]) - HEADROOM_BYTES, context)


def chat(a: argparse.Namespace) -> None:
    """Load the model and talk until the end of input or /exit."""
    from relight.llm import reasoning
    from relight.llm.asks import Limits
    from relight.llm.client import Llm
    from relight.llm.talk import Talk

    settings, how, limits = load_settings(a), sampling(a), Limits(max_tokens=a.max_tokens)
    path = model_file(a.model)
    if a.n_gpu_layers is None:
        settings = replace(settings, n_gpu_layers=fitting_layers(path, settings))
    with Llm() as llm:
        loaded = llm.load(path, settings)
        if "chat" not in loaded.can:
            raise RequestError(f"{loaded.name} has no chat template; it only completes text")
        print(
            f"{loaded.name} ({loaded.description}, {loaded.model_bytes / (1 << 30):.2f} GiB), loaded in "
            f"{loaded.seconds:.1f} s, {loaded.gpu_layers} of {loaded.layers + 1} layers on the GPU, "
            f"{loaded.context} tokens. /help lists what there is.",
            file=sys.stderr,
        )
        told = reasoning.template_values("none" if a.no_thinking else None, {})
        Talk(llm, how, limits, a.system, template_values=told).run(_lines())


def _lines() -> Any:
    """What is typed, line by line; with line editing where there is a terminal."""
    if not sys.stdin.isatty():
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    try:
        import readline  # noqa: F401
    except ImportError:
        pass  # Windows edits lines by itself
    while True:
        try:
            yield input("> ")
        except EOFError:
            return
        except KeyboardInterrupt:
            print("\n/exit or Ctrl-D ends the conversation", file=sys.stderr)
