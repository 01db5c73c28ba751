"""One attempt in a trial's own process: a module of ours runs here, a program beneath."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable

from hpsearch.run import program
from hpsearch.study.trial import Launch, Report
from hpsearch.train.form import is_program

# By name, because its import brings torch, which only trials need.
EXECUTE_MODULE = "hpsearch.train.trial:execute"


def execute(launch: Launch, report: Callable[[Report], bool]) -> int:
    """Run an attempt in whichever form its trainer has; the signal that took it, 0 for none."""
    if is_program(launch):
        return program.run(launch, report, fork=True)
    pkgutil.resolve_name(EXECUTE_MODULE)(launch, report)
    return 0


def execute_command(launch: Launch, report: Callable[[Report], bool]) -> int:
    """Run a program as a command of its own, also a Python module; the signal that took it, 0 for none."""
    return program.run(launch, report, fork=False)
