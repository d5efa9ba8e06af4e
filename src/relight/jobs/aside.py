"""While pictures wait for the backbone's device, text and decoding leave it where that makes more of them an hour.

One picture is made soonest with everything on the GPU; of several, each second in which the GPU decodes is one in which
it denoises nothing. Components are then open on both devices, so that going back takes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from relight.errors import RelightError
from relight.jobs.decode import Decoding, cpu_tile_of
from relight.jobs.fleet import Fleet
from relight.jobs.lanes import worker_name
from relight.jobs.run import Run
from relight.planner.amounts import peak
from relight.planner.estimate import PACKING_BYTES_S
from relight.planner.placement import WORTH_MOVING, Placement
from relight.planner.stages import Course
from relight.workers.ram import available_ram

log = logging.getLogger(__name__)

CPU_SHARE = 0.8
"""Of the CPU's time that can be counted on: other programs want some, and its work does not come evenly."""
NEWS = 0.9
"""Share of what was seen before, below which it is seen anew: the first of a kind is slow."""
COMPILE_S = 1.0
"""What OpenVINO takes to compile a decoder, besides packing its weights."""
MODULATION = "modulation"

Courses = Callable[[Placement], Course]
Seconds = Mapping[tuple[str, str], float]
"""By component and worker, what requests of this kind were seen to take."""


@dataclass(frozen=True)
class Choice:
    """`components` that leave the GPU; seconds of a request in a row of its kind without that and with it; `cost_s` is
    what opening the decoder on the CPU takes."""

    components: frozenset[str]
    stay_s: float
    leave_s: float
    cost_s: float


STAY = Choice(frozenset(), 0.0, 0.0, 0.0)


def choose(
    placement: Placement,
    course: Courses,
    movable: Collection[str],
    text: Collection[str],
    seen: Seconds,
    room: Callable[[Placement], bool],
) -> Choice:
    """Of `movable` components on the backbone's device all, only those in `text`, only the others, or none: what gives
    the shortest lane, if it is shorter by more than the error, and if the CPU has `room` for it."""
    stay = busiest(course(placement), placement, text, seen)
    best = Choice(frozenset(), stay, stay, 0.0)
    words = frozenset(movable) & frozenset(text)
    for moved in dict.fromkeys((frozenset(movable), frozenset(movable) - words, words)):
        if not moved:
            continue
        tried = without(placement, moved)
        leave = busiest(course(tried), tried, text, seen)
        if leave < min(best.leave_s, WORTH_MOVING * stay) and room(tried):
            copied = sum(placement.use[name].weights for name in moved if name in placement.use)
            best = Choice(moved, stay, leave, copied / PACKING_BYTES_S + COMPILE_S)
    return best


def without(placement: Placement, moved: Collection[str]) -> Placement:
    device = placement.device | dict.fromkeys(moved, "cpu")
    use = {name: use for name, use in placement.use.items() if name not in moved}
    gpu = placement.device["diffusion"]
    alone = [use[name] for name, where in device.items() if where == gpu and name in use]
    return replace(placement, device=device, use=use, keep_programs=placement.keep_programs or len(alone) == 1)


def busiest(course: Course, placement: Placement, text: Collection[str], seen: Seconds) -> float:
    """Seconds of the lane that bounds requests in a row. Where the GPU encodes text, it also waits for the modulation
    that the CPU makes of it."""
    gpu = worker_name(placement.device["diffusion"])
    lanes: dict[str, float] = {}
    for name, part in course.parts.items():
        lane = worker_name(part.device)
        taken = seen.get((name, lane), part.seconds.value) + part.rebuilt_s
        lanes[lane] = lanes.get(lane, 0.0) + taken
        if name == MODULATION and lane != gpu and any(worker_name(placement.device[t]) == gpu for t in text):
            lanes[gpu] = lanes.get(gpu, 0.0) + taken
    return max(seconds if lane == gpu else seconds / CPU_SHARE for lane, seconds in lanes.items())


@dataclass(eq=False)
class Sharing:
    """Of one pipeline, with its `runs`."""

    fleet: Fleet
    decoding: Decoding
    runs: Sequence[Run] = ()
    _choices: dict[Hashable, Choice] = field(default_factory=dict)
    _keys: dict[Run, Hashable] = field(default_factory=dict)
    _seen: dict[Hashable, dict[tuple[str, str], float]] = field(default_factory=dict)
    _ready: set[Hashable] = field(default_factory=set)
    _preparing: set[Hashable] = field(default_factory=set)
    _roomy: dict[Hashable, bool] = field(default_factory=dict)
    _lost_s: float = 0.0

    def begin(self, run: Run, key: Hashable, movable: Collection[str], course: Courses, runs: Sequence[Run]) -> None:
        """A run that was placed, beside those under way. `movable` are components on its backbone's device that the
        user left open."""
        self.runs = [*runs, run]
        self._keys = {each: known for each, known in self._keys.items() if each in runs} | {run: key}
        waiting = sum(other.wants_backbone for other in runs)
        groups = -(-run.request.batch // max(1, run.placement.batch // run.settled.rows))
        later = waiting + groups - 1
        if not movable:
            self._choices[key] = STAY
        elif later and key not in self._choices:
            text = run.fleet.files.family.text
            seen = self._seen.get(key, {})
            room = partial(self._room, run, key)
            self._choices[key] = found = choose(run.placement, course, movable, text, seen, room)
            log.info("%s", described(found))
        run.aside = self
        choice = self._choices.get(key, STAY)
        if waiting:
            for name in choice.components.intersection(self.fleet.files.family.text):
                self.fleet.open(name, "cpu")
                run.device[name] = "cpu"
        self._get_ready(run, key, choice, later)

    def _room(self, run: Run, key: Hashable, placement: Placement) -> bool:
        """For all that is on the CPU, with the page cache of what is used in place: weights that are read from the disk
        anew for each picture are slower than any decode. Asked once, since the CPU's worker may be at work."""
        at = key, tuple(placement.device.items())
        if at not in self._roomy:
            self._roomy[at] = self._measured(run, placement)
        return self._roomy[at]

    def _measured(self, run: Run, placement: Placement) -> bool:
        sizes = run.sizes(run.settled.passes[-1]) | {"tile": cpu_tile_of(run.settled.passes[-1])}
        names = [name for name, device in placement.device.items() if worker_name(device) == "cpu"]
        uses = [self.fleet.measure(name, placement.device[name], sizes) for name in names]
        return peak(uses, True) <= available_ram()

    def _get_ready(self, run: Run, key: Hashable, choice: Choice, later: int) -> None:
        """Open the decoder on the CPU as soon as pictures have lost as much time as that takes."""
        if run.request.decode_with not in choice.components or key in self._preparing or not later:
            return
        self._lost_s += later * (choice.stay_s - choice.leave_s)
        if self._lost_s < choice.cost_s:
            return
        self._preparing.add(key)
        self.fleet.open(run.request.decode_with, "cpu")
        self.fleet.submit("cpu", lambda: self._prepared(run, key), late=True)

    def _prepared(self, run: Run, key: Hashable) -> None:
        try:
            self.decoding.prepare_aside(run, run.settled.passes[-1], "cpu")
        except RelightError as error:
            log.warning("decoding stays on the GPU: %s", error)
            self._choices[key] = replace(self._choices[key], components=frozenset())
        else:
            self._ready.add(key)

    def pays(self, run: Run, component: str) -> bool:
        choice = self._choices.get(self._keys.get(run))
        return choice is None or component in choice.components

    def now(self, run: Run, component: str) -> bool:
        key = self._keys.get(run)
        if key not in self._ready or component not in self._choices.get(key, STAY).components:
            return False
        return any(other.wants_backbone for other in self.runs)

    def ended(self, run: Run) -> None:
        """What it took is known from now on, and so whether the choice was right."""
        key = self._keys.get(run)
        if key is None:
            return
        seen = self._seen.setdefault(key, {})
        news = {at: s for at, s in run.seconds.items() if s < NEWS * seen.get(at, float("inf"))}
        seen |= news
        if news and self._choices.get(key) is not STAY:
            self._choices.pop(key, None)  # chosen anew from these

    def forget(self) -> None:
        """Workers were lost, and what was ready on them."""
        self._ready.clear()
        self._preparing.clear()


def described(choice: Choice) -> str:
    if not choice.components:
        return f"while pictures wait, all stays where it is: {choice.stay_s:.2f} s each"
    moved = ", ".join(sorted(choice.components))
    return f"while pictures wait, {moved} go to the CPU: {choice.leave_s:.2f} s each instead of {choice.stay_s:.2f} s"
