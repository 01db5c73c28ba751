"""A runner without processes: trials are parts that are played in virtual time, on this thread.

Each step of a trial is an event, and events come in the order of (virtual time, trial number). A trial's time
is its start plus a fixed pace for each step, whichever attempt takes it, so that a study is a function of its
seed: whatever kills its driver, and however often, it ends as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hpsearch import faults
from hpsearch.study.search import Search
from hpsearch.study.trial import Checkpoint, Context, Ending, Launch, Measurement, Report, State
from hpsearch.train import checkpoint

Stamp = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Part:
    """What a trial does: so many milliseconds for each measuring, and what it measures at a step.

    At the step `fails_at` it raises, at `crashes_at` its process dies, in every attempt; an objective that is
    not finite ends it. With `together`, a step's checkpoint is reported with its measurement, not after it.
    """

    pace: int
    measure: Callable[[int], Mapping[str, float]]
    fails_at: int | None = None
    crashes_at: int | None = None
    together: bool = False
    checkpoints: bool = True


@dataclass(slots=True)
class Clock:
    """Virtual milliseconds, which only grow; `stamp` makes of them what a wall would show.

    `births`: when each trial started. A study that is resumed with the same clock goes on by it; with a new
    one at the time of its last fact.
    """

    now: int = 0
    births: dict[int, int] = field(default_factory=dict)
    stamp: Stamp = int

    def read(self) -> int:
        """What facts are stamped with."""
        return self.stamp(self.now)


@dataclass(slots=True)
class _Role:
    """An attempt under way: the step it stands at."""

    launch: Launch
    part: Part
    step: int

    @property
    def context(self) -> Context:
        return self.launch.context


class Stage:
    """Plays what is left of a study.

    `cast` says what a trial does; `executed` hears of each step before it is measured, as a witness;
    `between` is called between events.
    """

    def __init__(
        self,
        search: Search,
        cast: Callable[[Launch], Part],
        clock: Clock,
        executed: Callable[[Context, int], object] = lambda context, step: None,
        between: Callable[[], object] = lambda: None,
    ) -> None:
        self._search = search
        self._cast = cast
        self._clock = clock
        self._executed = executed
        self._between = between
        self._roles: dict[int, _Role] = {}
        self._due: list[tuple[int, int]] = []

    def play(self) -> None:
        """Play until nothing runs any more."""
        if not self._clock.births:
            self._clock.now = max(self._clock.now, _latest(self._search))
        self._fill()
        while self._due and not self._search.over:
            time, number = heapq.heappop(self._due)
            self._clock.now = max(self._clock.now, time)
            role = self._roles[number]
            if self._act(role):
                self._expect(role)
            elif self._roles.get(number) is role:
                del self._roles[number]
                self._search.released(number)
            self._fill()
            self._between()
        # Whoever stops the study stops them between two steps, so that a resume goes on in the same order.
        for number in sorted(self._roles):
            self._search.released(number)
        self._roles.clear()
        self._due.clear()

    def _fill(self) -> None:
        """Start what may start now."""
        while True:
            # Noted before it is committed, so that no kill can come between.
            self._clock.births[self._search.known + len(self._search.trials)] = self._clock.now
            launch = self._search.suggest(self._clock.read())
            if launch is None:
                return
            self._start(launch)

    def _start(self, launch: Launch) -> None:
        with faults.point("spawn.fork"):
            launch.context.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with faults.point("trial.start"):
            role = _Role(launch, self._cast(launch), _stands_at(launch.context))
        self._roles[launch.context.number] = role
        self._expect(role)

    def _expect(self, role: _Role) -> None:
        number = role.context.number
        born = self._clock.births.setdefault(number, self._search.trials[number].created)
        steps = min(role.step + role.context.measure_every, role.context.max_steps)
        heapq.heappush(self._due, (born + steps * role.part.pace, number))

    def _act(self, role: _Role) -> bool:
        """Take the next step of an attempt; True while it goes on."""
        context, part = role.context, role.part
        step = min(role.step + context.measure_every, context.max_steps)
        if step > role.step:
            if part.crashes_at is not None and step >= part.crashes_at:
                return self._lose(role)
            self._executed(context, step)
            if part.fails_at is not None and step >= part.fails_at:
                return self._end(role, Ending(State.FAILED, f"ValueError: it fails at step {step}"))
            seen = part.measure(step)
            if not self._measure(role, step, seen):
                return False
            if not _is_sound(role, seen):
                lost = f"{role.launch.metric} is {seen[role.launch.metric]} at step {step}"
                return self._end(role, Ending(State.INFEASIBLE, lost))
        if role.step < context.max_steps:
            return True
        return self._end(role, Ending(State.COMPLETED, f"reached step {role.step}"))

    def _measure(self, role: _Role, step: int, metrics: Mapping[str, float]) -> bool:
        role.step = step
        seen = Report(Measurement(step, metrics, self._clock.read()))
        if not _is_sound(role, metrics):
            return self._tell(role, seen)  # nobody may resume behind it
        if role.part.together:
            return self._tell(role, seen, *self._save(role))
        return self._tell(role, seen) and self._tell(role, *self._save(role))

    def _end(self, role: _Role, ending: Ending) -> bool:
        with faults.point("trial.end"):
            self._tell(role, Report(ending=ending))
        return False

    def _lose(self, role: _Role) -> bool:
        """Its process is gone: another attempt, if it gets one."""
        context = role.context
        launch = self._search.lost(context.number, context.attempt, "signal 11", self._clock.read())
        if launch is not None:
            self._start(launch)
        return False

    def _tell(self, role: _Role, *reports: Report) -> bool:
        context = role.context
        with faults.point("trial.report"):
            lines = list(reports)
        with faults.point("tune.report"):
            return self._search.measure(context.number, context.attempt, lines, self._clock.read())

    def _save(self, role: _Role) -> tuple[Report, ...]:
        """A checkpoint of where an attempt stands, as a trial's own writer makes it."""
        context, step = role.context, role.step
        if not role.part.checkpoints:
            return ()
        name = f"checkpoints/step-{step:08d}-attempt-{context.attempt}.pt"
        data = _state(context.number, step)
        try:
            checkpoint.write_durably(context.directory / name, memoryview(data))
        except OSError as error:
            return (Report(note=f"checkpoint step {step} not written: {error.strerror}; the trial goes on"),)
        sha256 = hashlib.sha256(data).hexdigest()
        return (Report(checkpoint=Checkpoint(step, context.attempt, name, len(data), sha256)),)


def _is_sound(role: _Role, metrics: Mapping[str, float]) -> bool:
    return math.isfinite(metrics.get(role.launch.metric, 0.0))


def _state(number: int, step: int) -> bytes:
    return json.dumps({"trial": number, "step": step}).encode()


def _stands_at(context: Context) -> int:
    """The step of the newest good checkpoint, read from the file itself, else 0."""
    newest = ((context.checkpoint, context.checkpoint_sha256),) if context.checkpoint else ()
    for path, sha256 in (*newest, *context.earlier):
        try:
            state = json.loads(checkpoint.read(path, sha256))
        except checkpoint.CheckpointError:
            continue
        if state["trial"] != context.number:
            raise ValueError(f"{path} is a checkpoint of trial {state['trial']}, not of {context.number}")
        return int(state["step"])
    return 0


def _latest(search: Search) -> int:
    """The time of the last fact that a study has recorded."""
    latest = search.study.created
    for trial in search.trials.values():
        seen = trial.measurements[-1].time if trial.measurements else 0
        latest = max(latest, trial.created, seen, trial.ending.time if trial.ending else 0)
    return latest
