"""A runner without Ray, one trial after another: modules in this process, for debuggers and for tests."""

from __future__ import annotations

import logging
import pkgutil
import queue
import threading
import time
from collections.abc import Callable

from hpsearch.errors import UsageError
from hpsearch.run.attempt import EXECUTE_MODULE
from hpsearch.run.process import Slot
from hpsearch.run.reach import gpus_here, within_reach
from hpsearch.run.signals import heard_signals
from hpsearch.run.stopwatch import Stopwatch
from hpsearch.run.wire import decode
from hpsearch.study.beneath import made
from hpsearch.study.search import Search
from hpsearch.study.trial import Cause, Launch, Outcome, Report
from hpsearch.train.form import is_program

EXECUTE_COMMAND = "hpsearch.run.attempt:execute_command"
POLL = 0.5  # seconds, after which stops are heard
log = logging.getLogger(__name__)


def run(search: Search) -> None:
    """Run the study to its end or until a signal.

    A module of ours shares this process and prints to its terminal: there is no process to limit or to lose.
    A program has one, and so a trialTimeout, further attempts, and its output in a file. Raises UsageError
    for trials of several processes.
    """
    if (workers := search.study.spec.resources.workers) > 1:
        raise UsageError(
            f"hpsearch.resources.workers is {workers}, and with --local a trial is one process",
            hint="run it without --local, or write workers: 1",
        )
    slot = Slot(preload=(), execute=EXECUTE_COMMAND)
    deadline = Deadline(search)
    apart: bool | None = None
    # One at a time, and each with the GPUs that there are.
    search.limit(1, within_reach(search.study.spec.resources, gpus_here()).gpu)
    with heard_signals(lambda reason: search.stop(Outcome.INTERRUPTED, reason, now())):
        while (launch := search.suggest(now())) is not None:
            if apart is None:  # one module, one form
                apart = is_program(launch)
                if not apart and launch.timeout is not None:
                    log.warning(
                        "trialTimeout is not kept with --local: a trial has no process of its own here"
                    )
            number = launch.context.number
            if apart:
                _run_apart(search, slot, launch, deadline)
            else:
                _run_here(search, launch, deadline)
            search.released(number)


def _run_here(search: Search, first: Launch, deadline: Deadline) -> None:
    launch = _with_directory(search, first)
    if launch is None:
        return
    trial: Callable[[Launch, Callable[[Report], bool]], None] = pkgutil.resolve_name(EXECUTE_MODULE)
    listener = _Listener(search, launch, deadline)
    trial(launch, listener.report)
    listener.finish()


def _with_directory(search: Search, launch: Launch | None) -> Launch | None:
    """The first attempt from this one on whose directory can be made; None if there is none."""
    while launch is not None:
        try:
            made(launch.context.directory)
        except OSError as error:
            launch = _lost(search, launch, f"it could not be started: {error!r}")
        else:
            return launch
    return None


def _run_apart(search: Search, slot: Slot, launch: Launch | None, deadline: Deadline) -> None:
    """Run a program's attempts until its trial has ended or must stop."""
    try:
        while launch is not None:
            try:
                slot.start(launch)
            except OSError as error:
                launch = _lost(search, launch, f"its process could not be started: {error!r}")
            else:
                launch = _follow(search, slot, launch, deadline)
    finally:
        slot.kill()


def _follow(search: Search, slot: Slot, launch: Launch, deadline: Deadline) -> Launch | None:
    """Hear one attempt to its end; the next attempt where it was lost, else None."""
    number, attempt = launch.context.number, launch.context.attempt
    while True:
        heard = slot.poll(POLL)
        deadline.check()
        if not search.measure(number, attempt, [decode(line) for line in heard.lines], now()):
            if search.trials[number].ending is None:  # the study stops: what it keeps meanwhile counts
                search.measure(number, attempt, [decode(line) for line in slot.part()], now())
            return None
        if heard.lost:
            return _lost(search, launch, heard.lost, heard.cause)


def _lost(search: Search, launch: Launch, reason: str, cause: Cause = Cause.CRASHED) -> Launch | None:
    """Say why an attempt was lost; the next one, if there is one."""
    log.warning("trial %d: %s", launch.context.number, reason)
    return search.lost(launch.context.number, launch.context.attempt, reason, now(), cause)


class Deadline:
    """Stops a search when its studyTimeout, or the driver's own, has passed since the deadline was made.

    A steady clock says so, on which no time passes while this process is stopped.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        given = search.study.spec.limits.study_timeout
        own = search.deadline is not None and (given is None or search.deadline < given)
        self._limit, self._name = (search.deadline, "--deadline") if own else (given, "studyTimeout")
        self._watch = Stopwatch() if self._limit is not None else None

    def check(self) -> None:
        """Look at the clock."""
        if self._limit is not None and self._watch and self._watch.seconds > self._limit:
            self._search.stop(Outcome.DEADLINE, f"{self._name} of {self._limit:g} s passed", now())


class _Listener:
    """Passes one attempt's reports to the search, from the main thread only: the store has one writer."""

    def __init__(self, search: Search, launch: Launch, deadline: Deadline) -> None:
        self._search = search
        self._deadline = deadline
        self._number, self._attempt = launch.context.number, launch.context.attempt
        self._queue: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._owner = threading.get_ident()
        self._failure: Exception | None = None

    def report(self, report: Report) -> bool:
        """Take a report from any thread; False once the trial must stop."""
        self._queue.put(report)
        if self._failure or threading.get_ident() != self._owner:
            return self._failure is None
        try:
            return self._drain()
        except Exception as error:  # it must not pass through the trainer, which would be blamed for it
            self._failure = error
            return False

    def finish(self) -> None:
        """Hand over what still waits; raises what the search raised meanwhile."""
        if self._failure:
            raise self._failure
        self._drain()

    def _drain(self) -> bool:
        self._deadline.check()
        waiting = [self._queue.get() for _ in range(self._queue.qsize())]
        return self._search.measure(self._number, self._attempt, waiting, now())


def now() -> int:
    """Milliseconds since the epoch, for stamping facts only: no decision is taken by this clock."""
    return time.time_ns() // 1_000_000
