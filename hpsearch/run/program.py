"""An unmodified program as a trial: this process starts it, listens to it, stops it, and says how it ended.

The process is single-threaded and has nothing else to do. Whatever the program starts descends from it or is
adopted by it, so that nothing is left when it ends; it stops when its own parent dies.
"""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import replace

from hpsearch.errors import HpsearchError
from hpsearch.run import start
from hpsearch.run.kin import adopt_orphans, call_oneself, descendants, die_with, end_descendants
from hpsearch.run.listener import Listener
from hpsearch.run.output import Output, Pump, by_rank
from hpsearch.run.watch import SUPERVISOR
from hpsearch.study.trial import Ending, Launch, Report, State
from hpsearch.train.failing import failed
from hpsearch.train.reporter import Reporter

METRIC_FILE = "output.metrics"
MOST_PRINTED = 1 << 20  # bytes of output between two looks at everything else
LOOK = 0.2  # seconds between two looks at what sends no notice
# What a program leaves may end by itself within these seconds, as multiprocessing's own helpers do.
SETTLING = 0.3


def run(launch: Launch, report: Callable[[Report], bool], *, fork: bool) -> int:
    """Run a launch's program to its end and report all that happens, the ending last and once.

    Returns the number of the signal that it died of, or that stopped it: then there is no ending. A Python
    module starts in a fork of this process if `fork`, else everything is a command of its own.
    """
    objectives, context = launch.metrics or (launch.metric,), launch.context
    reporter = Reporter(report, *objectives, every=context.measure_every, until=context.max_steps)
    metric_file = context.directory.absolute() / by_rank(METRIC_FILE, launch.team.rank)
    try:
        plan = start.prepare(launch, metric_file, fork=fork)
    except HpsearchError as error:
        reporter.end(Ending(State.FAILED, error.message))
        return 0
    output = Output(context.directory, launch.output, {**os.environ, **plan.environment}, launch.team.rank)
    listener = Listener(launch, metric_file, reporter)
    code = _Supervisor(launch, listener, reporter, output).follow(plan)
    if output.dropped:
        reporter.note("output", f"{output.dropped} bytes of its output were dropped")
    if code < 0:
        return -code
    if code:
        reporter.end(failed(f"the program exited with code {code}", output.last_line))
    else:
        reporter.end(_verdict(launch, reporter, listener.excuse))
    return 0


class _Supervisor:
    """Follows one program from its start until nothing of it is left."""

    def __init__(self, launch: Launch, listener: Listener, reporter: Reporter, output: Output) -> None:
        self._grace = launch.grace
        self._output = output
        self._listener = listener
        self._reporter = reporter
        self._program = 0
        self._status: int | None = None
        self._asked = self._told = False  # to end

    def follow(self, plan: start.Start) -> int:
        """Start the program; its exit code, or minus the signal that it died of or was stopped by."""
        call_oneself(SUPERVISOR)
        awake, alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        printed, prints = os.pipe2(os.O_CLOEXEC)
        pump = Pump(printed, self._output)
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
        die_with(os.getppid(), signal.SIGTERM)
        adopt_orphans()
        self._program = start.begin(plan, prints)
        os.close(prints)
        try:
            self._watch(awake, pump)
        finally:
            end_descendants(self._reap)
            pump.close()
        self._listener.finish(self._processes)
        if self._told or self._status is None:
            return -signal.SIGTERM
        return os.waitstatus_to_exitcode(self._status)

    def _watch(self, awake: int, pump: Pump) -> None:
        """Listen until the program and all it started are gone, or their time is up."""
        deadline = math.inf
        with selectors.DefaultSelector() as selector:
            for descriptor in (awake, self._listener.descriptor, pump.descriptor):
                if descriptor is not None:
                    selector.register(descriptor, selectors.EVENT_READ)
            while self._reap():
                now = time.monotonic()
                if self._asked or self._reporter.stopped:
                    deadline = min(deadline, now + self._grace)
                    self._tell()
                if self._has_ended():
                    deadline = min(deadline, now + SETTLING)
                if now >= deadline:
                    break
                selector.select(min(LOOK, deadline - now))
                with contextlib.suppress(BlockingIOError):
                    os.read(awake, 1 << 12)
                if pump.drain(MOST_PRINTED):
                    selector.unregister(pump.descriptor)
                self._listener.hear(self._processes)
                self._reporter.push()

    def _ask(self, *_: object) -> None:
        self._asked = True

    def _tell(self) -> None:
        """Ask the program's group to end, once; one that was stopped must go on to hear it."""
        if not self._told:
            self._told = True
            for number in (signal.SIGTERM, signal.SIGCONT):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._program, number)

    def _has_ended(self) -> bool:
        """True after the program's end; where it was asked to end, after that of its whole group."""
        if self._status is None or not self._told:
            return self._status is not None
        try:
            os.killpg(self._program, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # another user's, by a setuid program: it is there
            return False
        return False

    def _reap(self) -> bool:
        """Take off the dead, the program and adopted ones; True while children remain."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            if pid == self._program:
                self._status = status

    def _processes(self) -> set[int]:
        return {self._program, *descendants(os.getpid())}


def _verdict(launch: Launch, reporter: Reporter, excuse: str) -> Ending:
    """How a program ended that exited with code 0."""
    verdict = reporter.verdict("metric tag")
    if verdict is None:
        return Ending(State.COMPLETED, f"finished at step {reporter.step}")
    if verdict.state is not State.FAILED:
        return verdict
    if not reporter.last and not launch.program.command:
        excuse += (
            f"; {launch.module} was run as a program because it offers"
            " neither build(params, context) nor train(params, context)"
        )
    return replace(verdict, reason=verdict.reason + excuse)
