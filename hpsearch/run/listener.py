"""What a program says, wherever it says it: in the metric file, or in event files alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from hpsearch.run import contract
from hpsearch.run.events import EventFiles
from hpsearch.run.metric_file import MetricFile, Point
from hpsearch.run.timeline import Timeline
from hpsearch.study.trial import Launch
from hpsearch.train.reporter import Reporter

EVENTS_EVERY = 1.0  # seconds
EVENTS_SHARE = 0.1  # of the time, at most, where there is much to search
MOST_WAITING = 100_000  # points; more would be those of a program that never writes its objective there


class Listener:
    """Takes a program's points as they come and reports them on one timeline.

    The metric file leads. Event files are heard only for objectives that it does not report: many programs
    write both, their event files with steps of another kind and minutes late. Points from event files wait
    until all those objectives have come as far, then go out in the order of their steps. A tag that has gone
    out from one of the two is not taken from the other any more.
    """

    def __init__(self, launch: Launch, path: Path, reporter: Reporter) -> None:
        self._note = reporter.note
        self._timeline = Timeline(reporter)
        self._file = MetricFile(path, contract.trial_id(launch), reporter.note)
        self._events = _event_files(launch, reporter)
        self._objectives = frozenset(launch.metrics or (launch.metric,))
        self._missing = set(self._objectives)  # in the metric file
        self._reported: set[str] = set()  # tags of the metric file
        self._released: set[str] = set()  # tags of the event files
        self._reached: dict[str, int] = {}  # the last step of each objective in the event files
        self._waiting: list[Point] = []
        self._next_look = 0.0
        self._doubted = False
        self.descriptor = self._file.descriptor

    def hear(self, processes: Callable[[], set[int]]) -> None:
        """Report what is new; `processes` are those of the program."""
        self._hear_file()
        started = time.monotonic()
        if self._missing and started >= self._next_look:
            self._hear_events(processes)
            now = time.monotonic()
            self._next_look = now + max(EVENTS_EVERY, (now - started) / EVENTS_SHARE)

    def finish(self, processes: Callable[[], set[int]]) -> None:
        """Report all that is left; nobody writes any more."""
        self._hear_file(last=True)
        while self._missing:
            self._hear_events(processes)
            if not self._events.more:
                self._release(self._waiting)
                break
        self._file.close()

    @property
    def excuse(self) -> str:
        """Why something may have been missed; empty if nothing was."""
        return f"; {self._events.unread}" if self._events.unread else ""

    def _hear_file(self, *, last: bool = False) -> None:
        for point in self._file.take(last=last):
            if point.tag in self._released:
                text = f"{point.tag} at step {point.step} came after those of the event files: dropped"
                self._note(f"metric file, {point.tag}", text)
                continue
            if point.tag in self._reported and self._missing == self._objectives:
                self._doubt()
            self._reported.add(point.tag)
            self._missing.discard(point.tag)
            self._timeline.add(point)
        self._timeline.flush()

    def _doubt(self) -> None:
        """Say once that a second round of reports has begun and the objective was in neither."""
        if not self._doubted and not self._reached:
            self._doubted = True
            seen, wanted = ", ".join(sorted(self._reported)), ", ".join(sorted(self._objectives))
            self._note("metric tag", f"reports {seen}, but not the metric tag {wanted} so far")

    def _hear_events(self, processes: Callable[[], set[int]]) -> None:
        points = self._events.take(processes)
        for point in points:
            if point.tag in self._missing:
                self._reached[point.tag] = max(point.step, self._reached.get(point.tag, 0))
        self._waiting += points
        if len(self._waiting) > MOST_WAITING:
            self._note("event files", f"more than {MOST_WAITING} points without the objective: the first go")
            del self._waiting[:-MOST_WAITING]
        if self._missing <= self._reached.keys():
            reached = min(self._reached[tag] for tag in self._missing)
            self._release([point for point in self._waiting if point.step <= reached])
            self._waiting = [point for point in self._waiting if point.step > reached]

    def _release(self, points: list[Point]) -> None:
        for point in sorted(points, key=lambda point: (point.step, point.time)):
            now = self._timeline.step
            fits = point.step > now or (point.step == now and not self._timeline.has(point.tag))
            if point.tag in self._reported:
                continue
            if fits or point.tag in self._missing:  # an objective's value is never lost
                self._released.add(point.tag)
                self._timeline.add(point)
            else:
                self._note("event files", f"{point.tag} at step {point.step} came after step {now}: dropped")
        self._timeline.flush()


def _event_files(launch: Launch, reporter: Reporter) -> EventFiles:
    """Where a program's event files are: in its own directories, and where a SummaryWriter puts them."""
    start = contract.working_directory(launch)
    named = [contract.output_directory(launch), contract.job_directory(launch) or ""]
    own = [start / path for name in named if name and (path := contract.local(name))]
    directories = dict.fromkeys([launch.context.directory, *own])
    return EventFiles(list(directories), start / "runs", reporter.note)
