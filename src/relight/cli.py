"""The command line: parse, call, print. Exit status 0, 2 for wrong usage, 1 for everything else, 130 for Ctrl-C."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from relight.errors import ConfigError, RelightError, RequestError

GIB = 1 << 30
WITHOUT_SETTINGS = ("config", "demo", "doctor", "inspect")
"""Commands that do not need the settings to be right, or read them in their own way."""

ASKING = ("plan", "warm")
"""Commands about what `generate` would do with the same settings."""


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"relight: {message} ({self.prog} --help lists what there is)\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: runs one command and exits."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files and prompts that the terminal cannot show
    arguments = parser().parse_args(argv)
    if arguments.debug:
        logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s: %(message)s")
    try:
        if arguments.command not in WITHOUT_SETTINGS:
            configure(arguments)
        arguments.run(arguments)
    except KeyboardInterrupt:
        end(130, "stopped", arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except RelightError as error:
        end(2 if isinstance(error, (ConfigError, RequestError)) else 1, str(error), arguments)
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        end(1, f"{named}{error.strerror or error} (--debug shows where)", arguments)
    except Exception as error:
        end(1, f"unexpected {type(error).__name__}: {error} (--debug shows where)", arguments)


def configure(arguments: argparse.Namespace) -> None:
    """Load the settings into `arguments.loaded`; what workers and the store read of the environment goes there."""
    from relight.configuration import asked, engine, flags
    from relight.configuration.load import load

    given = flags.given(arguments) if arguments.command in ("generate", *ASKING) else {}
    arguments.loaded = load(getattr(arguments, "config", None), flags=given)
    engine.into(os.environ, arguments.loaded.settings)
    if arguments.command in ASKING:
        asked.fill(arguments, arguments.loaded)


def end(status: int, message: str, arguments: argparse.Namespace) -> NoReturn:
    """One line on stderr and, where JSON was asked for, one object on stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if arguments.debug and sys.exc_info()[1] is not None and status != 130:
        logging.getLogger("relight").exception("failed")
    print("relight: " + " ".join(message.split()), file=sys.stderr)
    if getattr(arguments, "json", False):
        print(json.dumps({"error": message, "status": status}))
    sys.stdout.flush()
    os._exit(status)  # workers were ended; threads that waited on them need not be waited for


def parser() -> argparse.ArgumentParser:
    from relight.configuration import commands as configuration
    from relight.doctor import commands as doctor
    from relight.llm import commands as llm
    from relight.node import commands as node
    from relight.planner import commands as planner
    from relight.store.commands import add_commands
    from relight.tuning import commands as tuning

    common = Parser(add_help=False)
    common.add_argument(
        "--config",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="FILE",
        help="settings (default: $RELIGHT_CONFIG, relight.yaml here, or in the user's folder for settings)",
    )
    common.add_argument("--debug", action="store_true", help="log everything to stderr, and show tracebacks")
    top = Parser(
        prog="relight",
        description="Pictures from FLUX.1, Stable Diffusion and SDXL, and language models, on old 8 GB Vulkan cards.",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND", dest="command")
    add_generate(commands.add_parser("generate", parents=[common], help="make pictures from a prompt"))
    add_demo(
        commands.add_parser("demo", parents=[common], help="pictures from the small model that ships with relight")
    )
    add_devices(commands.add_parser("devices", parents=[common], help="list devices with memory, limits and features"))
    add_inspect(commands.add_parser("inspect", parents=[common], help="say what a model file is, or a folder of them"))
    add_commands(commands, common)
    planner.add_commands(commands, common)
    tuning.add_commands(commands, common)
    configuration.add_commands(commands, common)
    doctor.add_commands(commands, common)
    llm.add_commands(commands, common)
    node.add_commands(commands, common)
    return top


def add_generate(p: argparse.ArgumentParser) -> None:
    from relight.configuration.flags import leave_open
    from relight.jobs import options

    p.add_argument("prompt", metavar="PROMPT", help="as A1111 reads it: (word:1.2), [less], BREAK, <lora:name:0.8>")
    options.add_files(p.add_argument_group("model files"))
    options.add_picture(p.add_argument_group("picture"))
    options.add_redraw(p.add_argument_group("from a picture"))
    options.add_hires(p.add_argument_group("larger pictures"))
    options.add_control(p.add_argument_group("control"))
    add_engine_options(p.add_argument_group("engine"))
    out = p.add_argument_group("output")
    out.add_argument("--out", type=Path, default=Path("relight.png"), metavar="FILE.png", help="default: relight.png")
    options.add_previews(out)
    out.add_argument("--json", action="store_true", help="print a report as one JSON object, last on stdout")
    leave_open(p)
    p.set_defaults(run=generate)


def add_engine_options(g: Any) -> None:
    g.add_argument(
        "--backend",
        metavar="SPEC",
        help="where components compute, e.g. diffusion=vulkan0,clip_l=vulkan0,t5xxl=cpu,vae=cpu "
        "(te: all text encoders); cpu picks the better of ggml-cpu and openvino; default: by what fits",
    )
    g.add_argument("--max-vram", type=float, metavar="GIB", help="most that may be allocated on the GPU")
    g.add_argument(
        "--vae-tile-size",
        type=int,
        metavar="N",
        help="latent pixels (8 pixels each) of a VAE tile; default: by what fits",
    )
    g.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: physical cores)")
    g.add_argument(
        "--attention", choices=["auto", "flash", "chunked"], default="auto", help="how ggml computes attention"
    )
    g.add_argument(
        "--convolution", choices=["auto", "direct", "im2col"], default="auto", help="how ggml computes convolutions"
    )
    g.add_argument(
        "--no-prompt-cache", action="store_true", help="encode the prompt anew, and keep nothing of it on disk"
    )
    g.add_argument(
        "--no-checks", action="store_true", help="do not look at what came out (for models of random weights)"
    )
    g.add_argument(
        "--precision", choices=["auto", "f32", "bf16", "int8", "int4"], default="auto", help="of OpenVINO's arithmetic"
    )


def add_demo(p: argparse.ArgumentParser) -> None:
    p.add_argument("prompt", nargs="?", metavar="PROMPT", help='such as "a red apple"; without: a small gallery')
    p.add_argument("--seed", type=int, default=1, help="default: 1")
    p.add_argument("--out", type=Path, default=Path("relight-demo.png"), metavar="FILE.png")
    p.add_argument("--backend", metavar="SPEC", help="as for generate")
    p.add_argument("--json", action="store_true", help="print a report as one JSON object, last on stdout")
    p.set_defaults(run=demo)


def add_devices(p: argparse.ArgumentParser) -> None:
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.set_defaults(run=devices)


def add_inspect(p: argparse.ArgumentParser) -> None:
    p.add_argument("file", type=Path, metavar="FILE|FOLDER")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.set_defaults(run=inspect)


def generate(a: argparse.Namespace) -> None:
    """Make pictures and write them."""
    from relight.configuration.engine import engine_settings
    from relight.configuration.files import check_formats, named_files
    from relight.configuration.flags import files_wanted, fill
    from relight.configuration.warmth import warm_first
    from relight.jobs import options
    from relight.store.places import Places

    wanted = files_wanted(a)
    named, notes = named_files(a.loaded, Places.of(), wanted)
    fill(a, a.loaded, named)
    request, files = options.request(a), options.model_files(a)
    for note in [*a.loaded.notes, *notes, *check_formats(a.loaded, files, wanted)]:
        note_to_user(note)
    warm_first(a.loaded.settings, files, request, note_to_user)
    make(request, files, engine_settings(a.loaded), a.out, a.json, a.preview_dir)


def note_to_user(note: str) -> None:
    print(f"note: {note}", file=sys.stderr)


def make(request: Any, files: Any, settings: Any, out: Path, as_json: bool, preview_dir: Path | None) -> None:
    """One request, from files to pictures on disk and a line for each."""
    from relight.jobs import output, retry
    from relight.progress import Progress

    paths = output.prepare(out, request.batch, output.most_pixels(request))
    previews = output.Previews(preview_dir, out.stem) if preview_dir else None
    with Progress(previews) as progress:
        result = retry.generate(files, settings, request, progress.on_event)
    for picture, path in zip(result.pictures, paths, strict=True):
        output.write_png(path, picture, result.report)
        height, width, _ = picture.image.shape
        print(f"{path}: {width}x{height}, seed {picture.seed}", file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json.dumps(result.report | {"files": [str(path) for path in paths]}))
    else:
        print(summary(result.report))


def summary(report: dict[str, Any]) -> str:
    """Times and memory in one line."""
    seconds = report["seconds"]
    steps = [step for picture in seconds["steps"] for step in picture]
    parts = [f"{seconds['total']:.1f} s in all"]
    if steps:
        parts.append(f"{len(steps)} steps of {sum(steps) / len(steps):.2f} s")
    for name, used in report["devices"].items():
        if name.startswith("vulkan"):
            parts.append(f"{used['peak_bytes'] / GIB:.2f} GiB on {name}")
    return ", ".join(parts)


def demo(a: argparse.Namespace) -> None:
    """Pictures from the model that ships with relight: one of a prompt, or a small gallery."""
    from relight import demo as shown
    from relight.jobs import models, output
    from relight.jobs.engine import EngineSettings
    from relight.jobs.pictures import Picture
    from relight.jobs.pipeline import Pipeline
    from relight.jobs.request import GenerateRequest
    from relight.planner.profiles import pretended
    from relight.progress import Progress

    prompts = [a.prompt] if a.prompt is not None else list(shown.GALLERY)
    requests = [GenerateRequest(prompt=p, width=shown.SIZE, height=shown.SIZE, seed=a.seed) for p in prompts]
    path = output.prepare(a.out, 1, shown.SIZE**2 * len(prompts))[0]
    settings = EngineSettings(backend=a.backend, profile=pretended(os.environ))
    with Progress() as progress, Pipeline(models.files_in(shown.EMBEDDED), settings) as pipeline:
        results = [pipeline.generate(request, progress.on_event) for request in requests]
    pictures = [result.pictures[0] for result in results]
    image = shown.sheet([picture.image for picture in pictures])
    report = results[-1].report | {"prompt": ", ".join(prompts)}
    output.write_png(path, Picture(image, pictures[0].seed), report)
    if a.json:
        print(json.dumps(report | {"files": [str(path)]}))
        return
    print(shown.in_terminal(image, sys.stdout, columns=shown.COLUMNS * min(2, len(prompts))))
    print(f"{path}: {', '.join(prompts)}; {sum(r.report['seconds']['total'] for r in results):.1f} s")
    print("This small model ships with relight. For real pictures: ./relight pull flux-schnell-q4")


def devices(a: argparse.Namespace) -> None:
    """List what ggml can compute on, asked in a process of its own: a broken driver ends only that."""
    from relight.planner.profiles import pretended
    from relight.workers.process import Worker

    profile = pretended(os.environ)
    worker = Worker("devices", profile.environment if profile else None)
    found = worker.call("devices").values
    worker.close()
    if a.json:
        print(json.dumps(found))
        return
    for device in found["devices"]:
        free, total = device["memory_free"] / GIB, device["memory_total"] / GIB
        print(f"{device['name']:10} {device['type']:9} {total:6.1f} GiB, {free:.1f} free  {device['description']}")
        features = dict(device["features"])
        if device["type"] != "cpu":
            features = {"largest buffer": f"{device['max_buffer_bytes'] / GIB:.2f} GiB"} | features
            print("           " + ", ".join(f"{name} {value}" for name, value in features.items()))
    if not any(device["type"] == "gpu" for device in found["devices"]):
        print(
            "No Vulkan GPU: check that the card's driver and libvulkan1 are installed; relight uses the CPU meanwhile."
        )


def inspect(a: argparse.Namespace) -> None:
    """Say what a file is, or what model a folder makes."""
    from relight.weights.identify import as_dict, describe, identify
    from relight.weights.survey import describe_folder, folder_as_dict

    if a.file.is_dir():
        print(json.dumps(folder_as_dict(a.file)) if a.json else "\n".join(describe_folder(a.file)))
        return
    identity = identify(a.file)
    print(json.dumps(as_dict(identity)) if a.json else "\n".join(describe(identity)))
