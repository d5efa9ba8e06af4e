"""What came back from the training machine to the files in the package; then relight itself draws with them.

    PYTHONPATH=src python training/finish.py RESULTS

`RESULTS` holds model.tar.00 and on of `train.py`, and reference.npz and metrics.json if it came to judging.
Writes src/relight/embedded/, compares relight's picture with PyTorch's, and draws a contact sheet, training/sheet.png.
Needs no PyTorch.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from shown import SHOWN

from relight.jobs.engine import EngineSettings
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import GenerateRequest, ModelFiles
from relight.weights.folder import find_components

REPOSITORY = Path(__file__).parent.parent
MOST_BYTES = 40_000_000
TOLERANCE = 0.06  # of 1: Q8_0 products are rounded otherwise than 32 bits; a mistake in the layout gives noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--into", type=Path, default=REPOSITORY / "src" / "relight" / "embedded")
    args = parser.parse_args()
    unpack(args.results, args.into)
    with Pipeline(files(args.into), EngineSettings(backend="ggml-cpu")) as pipeline:
        image = draw(pipeline, "a red apple", 3)
        if (reference := args.results / "reference.npz").exists():
            difference = np.abs(image / 255 - np.load(reference)["image"])
            say(f"relight against PyTorch: at most {difference.max():.4f}, {difference.mean():.4f} in the mean")
            if difference.mean() > TOLERANCE / 4:
                raise SystemExit("the pictures differ: the files are not what was trained")
        begin = time.monotonic()
        pictures = [draw(pipeline, text, 5) for text in SHOWN]
        say(f"{(time.monotonic() - begin) / len(SHOWN):.2f} s a picture here")
    sheet(pictures).save(REPOSITORY / "training" / "sheet.png", optimize=True)
    if (measured := args.results / "metrics.json").exists():
        metrics = json.loads(measured.read_text())
        (REPOSITORY / "training" / "metrics.json").write_text(json.dumps(metrics, indent=1, ensure_ascii=False) + "\n")
        say({key: value for key, value in metrics["reported"].items() if "wrong" not in key})


def unpack(results: Path, into: Path) -> None:
    """Join the pieces and write the four files, with the licences beside them."""
    whole = b"".join(path.read_bytes() for path in sorted(results.glob("model.tar.*")))
    into.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        archive.extractall(into, filter="data")
    (into / "LICENSES.txt").write_text((REPOSITORY / "training" / "LICENSES.txt").read_text("utf-8"), "utf-8")
    (into / "__init__.py").write_text('"""The model that ships with relight: four files in FLUX.1\'s layout."""\n')
    size = sum(path.stat().st_size for path in into.iterdir() if path.is_file())
    say(f"{into}: {size:,} bytes")
    if size > MOST_BYTES:
        raise SystemExit(f"{size:,} bytes are more than {MOST_BYTES:,}")


def files(folder: Path) -> ModelFiles:
    found = find_components(folder)
    return ModelFiles(**{kind: found.require(kind) for kind in ("diffusion", "clip_l", "t5xxl", "vae")})


def draw(pipeline: Pipeline, text: str, seed: int) -> np.ndarray:
    return pipeline.generate(GenerateRequest(prompt=text, width=128, height=128, seed=seed)).pictures[0].image


def sheet(pictures: list[np.ndarray], columns: int = 8) -> Image.Image:
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * 132, rows * 146), "white")
    write = ImageDraw.Draw(page)
    for place, (picture, title) in enumerate(zip(pictures, SHOWN, strict=True)):
        x, y = place % columns * 132, place // columns * 146
        page.paste(Image.fromarray(picture), (x, y))
        write.text((x + 2, y + 128), title, fill="black")
    return page


def say(what: object) -> None:
    sys.stderr.write(f"{what}\n")


if __name__ == "__main__":
    main()
