"""A trial's process from the inside: how it leaves its parent, where its output goes, how it reports."""

from __future__ import annotations

import json
import multiprocessing
import os
import pkgutil
import resource
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import TextIO

from hpsearch import faults
from hpsearch.run.kin import die_with
from hpsearch.run.wire import encode
from hpsearch.study.trial import Launch, Report

# Of the fork server: imported there, and nowhere else.
ADOPT = "hpsearch.run.adopt"


def main(execute: str, launch: str, writer: Connection, prints: Connection) -> None:
    """The trial's own process: alone in its group, tied to its parent's life, its output in a pipe."""
    _leave_home()
    given = Launch.from_json(json.loads(launch))
    if server := sys.modules.get(ADOPT):
        server.tell(given.grace)
    _redirect(prints)
    # A bare number: an object that owns it would close it once more in a process that became another program.
    descriptor = os.dup(writer.fileno())
    writer.close()
    sender = _Sender(descriptor)
    with faults.point("trial.start"):
        run: Callable[[Launch, Callable[[Report], bool]], int] = pkgutil.resolve_name(execute)
    taken_by = run(given, sender.report)
    with faults.point("trial.end"):
        sender.finish()
    if taken_by:
        _die_of(taken_by)


def _leave_home() -> None:
    """Make an own process group that dies with the fork server, and let the server die with its owner.

    A child inherits the write end of the server's "alive" pipe: the server, waiting for its end, would
    outlive a killed owner as long as one child lives.
    """
    os.setpgid(0, 0)
    die_with(os.getppid(), signal.SIGKILL)
    alive = forkserver._forkserver._forkserver_alive_fd  # type: ignore[attr-defined]
    if alive is not None:
        os.close(alive)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to hear
    # A trainer's own workers (a DataLoader's) start as they would in a program of its own, or as it says.
    multiprocessing.set_start_method(None, force=True)
    sys.argv[:] = ["hpsearch-trial"]


def _die_of(number: int) -> None:
    """End by the signal that ended the trial's program, so that one is lost as the other."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program has left its core, if it was to leave one
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _redirect(prints: Connection) -> None:
    os.dup2(prints.fileno(), 1)
    os.dup2(prints.fileno(), 2)
    prints.close()
    # New ones, because a stream remembers whether it could seek. What the old ones hold was not the trial's.
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = _stream(descriptor, getattr(sys, name))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _stream(descriptor: int, like: TextIO | None) -> TextIO:
    encoding = like.encoding if like else "utf-8"
    return open(descriptor, "w", buffering=1, encoding=encoding, errors="backslashreplace", closefd=False)


class _Sender:
    """Writes reports without ever waiting: what the pipe cannot take now is kept for the next time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._heard = True
        self._backlog: deque[bytes] = deque()  # one report each, and never copied: there may be many
        self._written = 0  # bytes of the first
        self._lock = threading.Lock()
        os.set_blocking(descriptor, False)

    def report(self, report: Report) -> bool:
        """Send a report; False if nobody listens any more. Else a trial that must stop is killed.

        An empty one only pushes what was kept.
        """
        with self._lock, faults.point("trial.report"):
            if report != Report():
                self._backlog.append(encode(report).encode() + b"\n")
            self._flush()
        return self._heard

    def finish(self) -> None:
        """Wait until everything is written."""
        with self._lock:
            os.set_blocking(self._descriptor, True)
            self._flush()

    def _flush(self) -> None:
        try:
            while self._backlog:
                self._written += os.write(self._descriptor, self._backlog[0][self._written :])
                if self._written == len(self._backlog[0]):
                    self._backlog.popleft()
                    self._written = 0
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._heard = False
            self._backlog.clear()
            self._written = 0
