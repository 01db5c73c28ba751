"""What a trial says: numbers made plain, nonsense dropped with a note, and the verdict on its end."""

from __future__ import annotations

import math
import operator
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from threading import Lock

from hpsearch.study.trial import Checkpoint, Ending, Measurement, Report, State
from hpsearch.train.pace import BURST, RATE, Pace


def number(value: object) -> float | None:
    """A Python number, or a numpy or torch scalar (0-d or one element), as float; None for all else."""
    try:
        kind = getattr(getattr(value, "dtype", None), "kind", "f")
        item = getattr(value, "item", None)
        # numpy names the kinds of its dtypes: a date would otherwise pass as its count of nanoseconds.
        plain = item() if callable(item) and kind in "biuf" else value
        return float(plain) if isinstance(plain, int | float) else None
    except Exception:  # the user's own objects
        return None


# The databases count in 64 bits.
LARGEST_STEP = 2**63
# Of one trial. MLflow takes names of 250 characters; a name that changes with each report is a mistake.
MOST_NAMES, LONGEST_NAME = 1000, 250


class Reporter:
    """Passes on what a trial says, from any thread, and remembers what its ending depends on.

    A complete trial has reported all `objectives`. `last` maps each metric to its last (step, value).
    `stopped` turns true when the trial must stop. See `Pace` for `every` and `until`, which are steps.
    """

    def __init__(
        self, report: Callable[[Report], bool], *objectives: str, every: int = 1, until: int = LARGEST_STEP
    ) -> None:
        self._report = report
        self._objectives = objectives
        self._pace = Pace(every, until)
        self._names = set(objectives)
        self._lock = Lock()
        self._noted: Counter[str] = Counter()
        self._rejected: dict[str, str] = {}  # by objective
        self.last: dict[str, tuple[int, float]] = {}
        self.step: int | None = None
        self.stopped = False

    def measure(self, measurement: Measurement) -> bool:
        """Report the numbers of a measurement; False when the trial must stop.

        Steps only grow, but further metrics may follow at the same step.
        """
        if not isinstance(measurement.metrics, Mapping):
            raise TypeError(f"metrics must map names to numbers, got {_show(measurement.metrics)}")
        step = self._step(measurement.step, measurement.metrics)
        if step is None:
            return not self.stopped
        self.step = step
        metrics = self._numbers(step, measurement.metrics)
        self.last.update({name: (step, value) for name, value in metrics.items()})
        if metrics:
            self._tell(step, metrics, _stamp(measurement.time))
        return not self.stopped

    def _tell(self, step: int, metrics: dict[str, float], time: int) -> None:
        if not self._pace.goes_out(step, time):
            self._pace.hold(step, metrics, time)
            text = f"over {BURST} reports, faster than {RATE:g} a second: of those between, the last counts"
            self.note("pace", text)
            return
        self._let_go(metrics)
        self._send(Report(Measurement(step, metrics, time)))

    def _let_go(self, newer: Mapping[str, float] | None = None) -> None:
        for step, metrics, stamp in self._pace.held(newer):
            self._send(Report(Measurement(step, metrics, stamp)))

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Report a complete checkpoint, of a trial whose measurements until then are known."""
        self._let_go()
        self._send(Report(checkpoint=checkpoint))

    def note(self, topic: str, text: str) -> None:
        """Report a note; of those on one topic only the first, the others are counted."""
        self._noted[topic] += 1
        if self._noted[topic] == 1:
            self._send(Report(note=_printable(text)))

    def push(self) -> None:
        """Send on what could not be sent at once: for those who may not report again for long."""
        if self._pace.has_room(_stamp(0)):
            self._let_go()
        self._send(Report())

    def wanted(self) -> bool:
        """Ask whether anybody waits for the trial still."""
        self._send(Report())
        return not self.stopped

    def resume(self, step: int, last: Mapping[str, tuple[int, float]]) -> None:
        """Go on with what an earlier attempt had said up to a step."""
        self.step = step
        self.last = {name: (seen, value) for name, (seen, value) in last.items()}

    def resume_earlier(self, step: int, reason: str) -> None:
        """Report that the attempt goes on from another step than it was to."""
        self._send(Report(note=_printable(reason), resumed_from=step))

    def end(self, ending: Ending) -> None:
        """Report the one ending, after the count of the notes that were held back."""
        self._let_go()
        if dropped := self._pace.dropped:
            self._send(Report(note=f"pace: {dropped} values were replaced by later ones"))
        for topic, count in self._noted.items():
            if count > 1 and topic != "pace":
                self._send(Report(note=f"{topic}: {count - 1} more like the first"))
        self._send(Report(ending=replace(ending, reason=_printable(ending.reason))))

    def verdict(self, kind: str = "metric") -> Ending | None:
        """What keeps a trial that ran to its end from being complete; None if nothing does.

        `kind` is what the user calls a metric.
        """
        for metric in self._objectives:
            if metric not in self.last:
                seen, rejected = ", ".join(self.last) or "none", self._rejected.get(metric)
                reason = f"{kind} {metric} never reported; tags seen: {seen}"
                reason += f"; rejected: {rejected}" if rejected else ""
                return Ending(State.FAILED, reason, silent=not rejected)
        for metric in self._objectives:
            step, value = self.last[metric]
            if not math.isfinite(value):
                return Ending(State.INFEASIBLE, f"{metric} is {value} at step {step}")
        return None

    def _step(self, given: object, metrics: Iterable[object]) -> int | None:
        try:
            step = -1 if isinstance(given, bool) else operator.index(given)  # type: ignore[arg-type]
        except TypeError:
            step = -1
        if not 0 <= step < LARGEST_STEP:
            self.note("steps", f"step {_show(given)} is not a whole number of at least 0: dropped")
            return None
        again = any(name in self.last and self.last[name][0] == step for name in metrics)
        if self.step is not None and (step < self.step or again):
            self.note("steps", f"step {step} came after step {self.step}: dropped")
            return None
        return step

    def _numbers(self, step: int, metrics: Mapping[str, object]) -> dict[str, float]:
        numbers = {}
        for name, value in metrics.items():
            plain = number(value)
            if trouble := self._trouble_with(name):
                self.note("metric names", f"metric name {_show(name)} at step {step} {trouble}: dropped")
            elif plain is None:
                text = f"{name} at step {step} is {_show(value)}"
                if name in self._objectives:
                    self._rejected[name] = text
                self.note(f"metric {name}", f"metric {text}, not a number: dropped")
            else:
                numbers[_printable(name)] = plain
        return numbers

    def _trouble_with(self, name: object) -> str:
        """Why a metric's name is not taken; objectives always are."""
        if name in self._names:
            return ""
        if not isinstance(name, str) or not name:
            return "is not a text"
        if len(name) > LONGEST_NAME:
            return f"has {len(name)} characters, {LONGEST_NAME} are allowed"
        if len(self._names) >= MOST_NAMES:
            return f"is one more than the {MOST_NAMES} that a trial may have"
        self._names.add(name)
        return ""

    def _send(self, report: Report) -> None:
        with self._lock:
            if not self._report(report):
                self.stopped = True


def _stamp(given: object) -> int:
    """A trainer's own time stamp where it is one (milliseconds since the epoch), else now."""
    usable = isinstance(given, int) and not isinstance(given, bool) and 0 < given < LARGEST_STEP
    return given if usable and isinstance(given, int) else time.time_ns() // 1_000_000


def _printable(text: str) -> str:
    """A text that every database and terminal takes: half characters from broken file names are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def _show(value: object) -> str:
    """A value's type and text in one short line."""
    try:
        shown = value[:LONGEST_NAME] if isinstance(value, str | bytes) else value
        text = " ".join(repr(shown).split())
    except Exception:  # the user's own __repr__
        text = "(it cannot be shown)"
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return "None" if value is None else f"{type(value).__name__} {text}"
