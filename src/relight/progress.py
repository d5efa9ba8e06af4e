"""Progress on the terminal: one bar for each thing that takes long, on stderr."""

from __future__ import annotations

import shutil
import sys
import threading
from types import TracebackType
from typing import NoReturn

from tqdm import tqdm

from relight.jobs.events import Advanced, Event, Planned, Previewed, Warned
from relight.jobs.output import Previews

LOADING = "load "
UNITS = {"denoise": "step"}
OTHER_UNIT = "tile"


class Progress:
    """Turns events into bars; where stderr is no terminal, into a line when a stage is complete."""

    def __init__(self, previews: Previews | None = None) -> None:
        self.previews = previews
        self.bars: dict[tuple[str, int], tqdm[NoReturn]] = {}
        self.lock = threading.Lock()
        self.terminal = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.lock:
            for bar in self.bars.values():
                bar.close()

    def on_event(self, event: Event) -> None:
        with self.lock:
            match event:
                case Planned():
                    tqdm.write(event.note, file=sys.stderr)
                case Warned():
                    tqdm.write(f"note: {event.message}", file=sys.stderr)
                case Previewed():
                    if self.previews:
                        self.previews.write(event)
                case Advanced() if self.terminal:
                    self._bar(event)
                case Advanced() if event.done == event.total and not event.stage.startswith(LOADING):
                    tqdm.write(f"{event.stage}: {event.total} {unit(event.stage)}(s) done", file=sys.stderr)

    def _bar(self, event: Advanced) -> None:
        key = (event.stage, event.picture)
        if key not in self.bars:
            loading = event.stage.startswith(LOADING)
            size = shutil.get_terminal_size()  # 80x24 where the terminal does not know: tqdm would show nothing
            self.bars[key] = tqdm(
                desc=event.stage if event.picture == 0 else f"{event.stage} {event.picture + 1}",
                total=event.total,
                unit="B" if loading else unit(event.stage),
                unit_scale=loading,
                unit_divisor=1024,
                leave=not loading,
                ncols=size.columns,
                nrows=size.lines,
                file=sys.stderr,
            )
        bar = self.bars[key]
        bar.update(event.done - bar.n)
        if event.done == event.total:
            self.bars.pop(key).close()  # a second pass has a bar of its own


def unit(stage: str) -> str:
    return UNITS.get(stage, OTHER_UNIT)
