"""One attempt in a trial's own process: a module of ours runs here, a program beneath."""

from __future__ import annotations

import os
import pkgutil
import signal
from collections.abc import Callable

from hpsearch.run import program, ranks
from hpsearch.study.trial import Launch, Report
from hpsearch.train.form import is_program

# By name, because its import brings torch, which only trials need.
EXECUTE_MODULE = "hpsearch.train.trial:execute"
# Asks a trial to keep its state and end: its worker goes away, or the study stops.
NOTICE = signal.SIGUSR2


def execute(launch: Launch, report: Callable[[Report], bool]) -> int:
    """Run an attempt in whichever form its trainer has; the signal that took it, 0 for none."""
    if is_program(launch):
        # A program knows SIGTERM alone.
        signal.signal(NOTICE, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        return program.run(launch, report, fork=True)
    os.environ.update(ranks.environment(launch.team))
    asked: list[int] = []
    signal.signal(NOTICE, lambda number, frame: asked.append(number))
    # A trial that is told to stop by its next report keeps its state before it does.
    pkgutil.resolve_name(EXECUTE_MODULE)(launch, lambda said: report(said) and not asked)
    return 0


def execute_command(launch: Launch, report: Callable[[Report], bool]) -> int:
    """Run a program as a command of its own, also a Python module; the signal that took it, 0 for none."""
    signal.signal(NOTICE, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    return program.run(launch, report, fork=False)
