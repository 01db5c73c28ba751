"""The rich door, and the only file that prints: answers, events, and the live view of a running study.

Foreign text (reasons, names, values) is escaped at this door, so that neither markup nor control
characters in it can act. A reader that goes away stops the output, never the work.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TextIO, cast

from rich import box
from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpsearch.errors import HpsearchError, Interrupted
from hpsearch.show import answers, lines, tables
from hpsearch.show.progress import Progress
from hpsearch.show.stream import Stream
from hpsearch.spec.model import Problem, Reading
from hpsearch.spec.node import printable
from hpsearch.study.front import best_of, front_of
from hpsearch.study.trial import Ending, Entry, Outcome, Revision, State, Study

if TYPE_CHECKING:  # `check` prints without loading the store's library
    from hpsearch.study.history import History
    from hpsearch.study.search import Search

REFRESHES_PER_SECOND = 2
LIVE_TRIALS = 8
# Tables on a pipe take the room they need: no reader's width is known there.
PIPE_WIDTH = 10_000
STYLES = {State.COMPLETED: "green", State.PRUNED: "yellow", State.FAILED: "red", State.INFEASIBLE: "magenta"}


class _Warnings(logging.Handler):
    """Hands records of the `hpsearch` loggers to the console."""

    def __init__(self, say: Callable[[str, str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """One line for one record; a traceback is for the file of a bug, not for people."""
        self._say("error" if record.levelno >= logging.ERROR else "warning", record.getMessage())


class Console:
    """Prints for people, or, if quiet, only one JSON object; a Watcher of runs.

    Within `with`, warnings of hpsearch's loggers are printed too. `redact` takes secrets out of addresses.
    A patient one waits until its answer is read. One of a run waits for no reader: a study must go on.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        redact: Callable[[str], str] = str,
        clock: Callable[[], float] = time.monotonic,
        patient: bool = True,
    ) -> None:
        self._quiet = quiet
        self._patient = patient
        self._redact = redact
        self._clock = clock
        self._out = _rich(sys.stdout)
        self._err = _rich(sys.stderr)
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._search: Search | None = None
        self._progress: Progress | None = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        logger, handler = logging.getLogger("hpsearch"), _Warnings(self._say)
        propagate, logger.propagate = logger.propagate, False
        logger.addHandler(handler)
        self._open.callback(setattr, logger, "propagate", propagate)
        self._open.callback(logger.removeHandler, handler)
        out, err = self._streams
        if not self._patient:
            for stream in (out, err):
                stream.hurry()
            # What others print in this process waits for no reader either.
            self._open.enter_context(contextlib.redirect_stdout(cast(TextIO, out)))
            self._open.enter_context(contextlib.redirect_stderr(cast(TextIO, err)))
        if self._quiet:
            # What a library or a trainer prints must not stand beside the one JSON object.
            self._open.enter_context(contextlib.redirect_stdout(sys.stderr))
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.stopped()
        self._open.close()
        out, err = self._streams
        out.drain()
        if out.dropped:
            why = f": {out.lost.strerror}" if out.lost else ", which nobody read"
            self._say("warning", f"{lines.counted(out.dropped, 'line')} of output dropped{why}")
        err.drain()
        if self._patient and not isinstance(error, HpsearchError):
            self._must_be_written()

    # -- messages -----------------------------------------------------------------------------------

    def error(self, error: HpsearchError) -> None:
        """An error and its hint, one line each, on stderr."""
        self._say("error", error.message)
        if error.hint:
            self._say("hint", error.hint)

    def bug(self, error: Exception, trace: str, saved: str | None) -> None:
        """An error that should not have been possible, and where its traceback is; unsaved, it is shown."""
        self._say("error", f"a bug in hpsearch: {type(error).__name__}: {error}")
        if saved:
            self._say("hint", f"the traceback is in {saved}; please report it")
            return
        for line in trace.splitlines():
            self._print(self._err, self._redact(line), "")

    def problems(self, file: str, errors: Iterable[object], warnings: Iterable[object] = ()) -> None:
        """The problems of a file, one line each, on stderr."""
        for found in errors:
            if isinstance(found, Problem):
                self._print(self._err, lines.problem(file, found), "red")
        for found in warnings:
            if isinstance(found, Problem):
                self._print(self._err, lines.problem(file, found, "warning"), "yellow")

    # -- answers ------------------------------------------------------------------------------------

    def json(self, answer: Mapping[str, Any]) -> None:
        """One JSON object in one line, ASCII only, on stdout. Raises Interrupted if a full disk cuts it."""
        stream, _ = self._streams
        stream.write(json.dumps(answer, allow_nan=False) + "\n")
        stream.flush()
        stream.drain(math.inf)
        self._must_be_written()

    def told(self, text: str) -> None:
        """One line of an answer, on stdout; quiet, none."""
        if not self._quiet:
            self._line(text)

    def note(self, text: str) -> None:
        """One line on how it goes, on stderr, beside an answer that is still to come."""
        self._print(self._err, self._redact(text), "")

    def checked(self, reading: Reading) -> None:
        """What a file says, if it is valid, after its problems."""
        self.problems(reading.file, reading.errors, reading.warnings)
        if reading.spec:
            self._grid(tables.space(reading.spec))
            self._line(f"runs     {lines.program(reading.spec)}")
            if asked := lines.resources(reading.spec):
                self._line(f"a trial  asks for {asked}")
            self._line(f"{reading.file} is valid: {lines.plan(reading.spec)}", "bold")

    def studies(self, found: Sequence[tuple[str, History | None, bool]], home: str) -> None:
        """The studies of a home directory."""
        if found:
            self._grid(tables.studies(found))
        else:
            self._line(f"no studies in {home}")

    def shown(self, history: History, *, owned: bool, tracking_uri: str) -> None:
        """One study: its state, plan, counts, best trial, and places."""
        study = history.study
        reason = f" ({history.ending.reason})" if history.ending and not owned else ""
        self._line(f"study {study.name}: {answers.state(history, owned=owned)}{reason}", "bold")
        self._line(lines.plan(study.spec))
        seen = ", ".join(
            f"{n} {lines.state(state, owned=owned)}"
            for state, n in answers.counts(history.trials).items()
            if n
        )
        planned = lines.counted(study.spec.max_trials, "trial")
        self._line(f"{len(history.trials)} of {planned}: {seen or 'none started'}")
        self._winner(history)
        self._places(history, tracking_uri)

    def trials(self, history: History, *, owned: bool) -> None:
        """All trials of a study; those not ended run only while a driver owns it."""
        if history.trials:
            self._grid(tables.trials(history, owned=owned))
        else:
            self._line(f"study {history.study.name} has no trials yet")

    def best(self, history: History) -> None:
        """The best trial with its params, one a line; with several objectives first the whole front."""
        winner = best_of(history.trials, history.study)
        if winner is None:
            return
        if len(history.study.spec.objectives) > 1:
            self._grid(tables.front(history))
        self._winner(history)
        for name, value in winner.params.items():
            self._line(f"  {name}: {value}")

    def summary(self, summary: lines.Summary) -> None:
        """The end of a run: how it ended, the best trials, where everything lies, what to type next."""
        history, ending, commands = summary.history, summary.ending, summary.commands
        board = tables.leaderboard(history)
        if board.rows:
            self._grid(board)
        if more := tables.beyond(history):
            self._line(more)
        counts = {state: sum(t.state is state for t in history.trials) for state in State}
        style = "bold green" if ending.outcome is Outcome.COMPLETED else "bold red"
        self._line(f"study {history.study.name} {ending.outcome}: {ending.reason}", style)
        self._line(f"{lines.counts(counts)} of {lines.counted(history.study.spec.max_trials, 'trial')}")
        if failures := tables.failures(history.trials):
            self._line(f"failed most often, {failures}", "red")
        self._places(history, summary.tracking_uri)
        if summary.undelivered:
            why = f" ({self._redact(summary.problem)})" if summary.problem else ""
            facts = lines.counted(summary.undelivered, "fact")
            self._say("warning", f"MLflow lags {facts} behind{why}; `{commands.resume}` goes on delivering")
        if summary.set_aside:
            self._say(
                "warning", f"MLflow refused {lines.counted(summary.set_aside, 'row')}; the store has them"
            )
        if ending.outcome in (Outcome.INTERRUPTED, Outcome.DEADLINE):
            self._line(f"go on    {commands.resume}")
        if board.rows:
            self._line(f"best     {commands.best}")
        if commands.ui:
            self._line(f"MLflow   {commands.ui}")

    # -- the Watcher --------------------------------------------------------------------------------

    def warned(self, file: str, warnings: Sequence[Problem]) -> None:
        """What a file that is about to run is in doubt about, on stderr."""
        self.problems(file, (), warnings)

    def started(self, study: Study, search: Search, tracking_uri: str, resumed: bool) -> None:
        """Show that a run begins: a live view on a terminal, else one line for each event."""
        if self._quiet:
            return
        self._search = search
        self._progress = Progress.start(study, search.trials.values(), self._clock())
        before = f", {lines.counted(self._progress.done, 'trial')} ended before" if resumed else ""
        self._line(f"study {study.name}{before}: {lines.plan(study.spec)}", "bold")
        if search.known and study.spec.previous:
            self._line(f"goes on from {study.spec.previous}: {lines.counted(search.known, 'trial')} known")
        self._line(f"tracking {self._redact(tracking_uri)}")
        if self._out.is_terminal and not self._out.is_dumb_terminal:
            self._live = Live(
                console=self._out,
                get_renderable=self._view,
                refresh_per_second=REFRESHES_PER_SECOND,
                transient=True,
            )
            self._live.start()
            # A process that is killed, or leaves at a second Ctrl-C, restores nothing.
            self._out.show_cursor(True)

    def committed(self, entries: Sequence[Entry]) -> None:
        """Show facts that are durable now."""
        if self._progress is None or self._search is None:
            return
        for entry in entries:
            if entry.trial is None:
                self._revised(entry.fact)
                continue
            trial = self._search.trials[entry.trial]
            with self._lock:
                self._progress.take(entry, trial)
            failed = isinstance(entry.fact, Ending) and entry.fact.state is State.FAILED
            # The live view counts everything else; a failure's reason is worth a line above it.
            if self._live and not failed:
                continue
            standing = lines.standing(trial, self._progress)
            line = lines.event(entry, trial, self._progress.study.spec, standing=standing)
            if line:
                self._line(line, STYLES.get(entry.fact.state, "") if isinstance(entry.fact, Ending) else "")

    def _revised(self, fact: object) -> None:
        for edit in fact.edits if isinstance(fact, Revision) else ():
            self._line(f"new file: {edit}")

    def stopped(self) -> None:
        """Take the live view away and restore the terminal."""
        if self._live:
            self._live.stop()
            self._live = None

    # -- inside -------------------------------------------------------------------------------------

    @property
    def _streams(self) -> tuple[Stream, Stream]:
        return cast(Stream, self._out.file), cast(Stream, self._err.file)

    def _must_be_written(self) -> None:
        """Raise Interrupted for an answer that was cut; a reader who has seen enough is none of that."""
        lost = self._streams[0].lost
        if lost and not isinstance(lost, BrokenPipeError):
            raise Interrupted(f"the answer could not be written: {lost.strerror}")

    def _view(self) -> RenderableType:
        """The live view, built on rich's thread from what the main thread has counted."""
        if self._progress is None:
            return ""
        with self._lock:
            return live_view(self._progress, self._clock())

    def _winner(self, history: History) -> None:
        spec, winner = history.study.spec, best_of(history.trials, history.study)
        if winner is None:
            self._line(lines.nobody(history))
            return
        said = "best"
        if len(spec.objectives) > 1:
            front = lines.counted(len(front_of(history.trials, history.study)), "trial")
            said = f"{front} on the front, best by {spec.objective.metric}"
        self._line(f"{said}: trial {winner.number}, {lines.outcome(winner, spec)}", "bold green")

    def _places(self, history: History, tracking_uri: str) -> None:
        self._line(f"study    {history.study.directory.absolute()}")
        if history.study.storage:
            self._line(f"storage  {history.study.storage}")
        run = f", parent run {history.parent_run_id}" if history.parent_run_id else ""
        self._line(f"tracking {tracking_uri}{run}")

    def _say(self, kind: str, text: str) -> None:
        # With both on one terminal, rich must know of the line, or it would overwrite it.
        console = self._out if self._live and self._err.is_terminal else self._err
        style = {"error": "bold red", "warning": "yellow"}.get(kind, "")
        self._print(console, f"{kind}: {self._redact(text)}", style)

    def _line(self, text: str, style: str = "") -> None:
        self._print(self._out, text, style)

    def _print(self, console: RichConsole, text: str, style: str) -> None:
        console.print(_text(text, style), soft_wrap=True)

    def _grid(self, grid: tables.Grid) -> None:
        if not grid.fits(self._out.width):
            for place, line in enumerate(tables.stacked(grid)):
                self._line(line, "" if place else "bold")
            return
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for column in grid.columns:
            right = column in grid.numeric
            table.add_column(
                _text(column),
                justify="right" if right else "left",
                # Where there are long texts, the others have the room they need.
                no_wrap=right or (bool(grid.notes) and column not in grid.notes),
                overflow="fold",
            )
        for row in grid.rows:
            table.add_row(*(_text(cell) for cell in row))
        self._out.print(table)


def live_view(progress: Progress, now: float) -> RenderableType:
    """The state of a running study at a time, as it is drawn again and again."""
    spec, ended = progress.study.spec, progress.ended
    left = progress.left(now)
    bar = Table.grid(padding=(0, 2))
    bar.add_row(
        ProgressBar(total=spec.max_trials, completed=progress.done, width=40),
        Text(f"{progress.done}/{lines.counted(spec.max_trials, 'trial')}"),
        Text(f"time left {'-' if left is None else lines.duration(left)}"),
    )
    parts = [Text(f"{len(progress.running)} running", style="cyan")]
    parts += [
        Text(f"{ended[s]} {s}", style=STYLES[s]) for s in lines.ORDER if ended[s] or s is not State.INFEASIBLE
    ]
    rows: list[RenderableType] = [bar, Text(", ").join(parts)]
    rows += [_text(line, "bold") for line in lines.leaders(progress)]
    shown = sorted(progress.running.items())
    for number, (step, values) in shown[:LIVE_TRIALS]:
        seen = "  ".join(f"{o.metric} {lines.value(values.get(o.metric))}" for o in spec.objectives)
        rows.append(_text(f"  trial {number}  {lines.progress(step, spec)}  {seen}"))
    if len(shown) > LIVE_TRIALS:
        rows.append(Text(f"  and {len(shown) - LIVE_TRIALS} more"))
    return Group(*rows)


def _text(text: str, style: str = "") -> Text:
    """Text that is only text: no markup, and control characters as escapes."""
    return Text(printable(text), style=style)


def _rich(stream: TextIO | None) -> RichConsole:
    """A rich console on a stream as it is now, terminal or not whatever the environment says."""
    # Python has no stream where the shell closed it.
    open_stream = stream or cast(TextIO, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    terminal = open_stream.isatty()
    return RichConsole(
        file=cast(TextIO, Stream(open_stream)),
        force_terminal=terminal,
        force_jupyter=False,
        width=None if terminal else PIPE_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )
