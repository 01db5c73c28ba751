"""A trial is a process: each starts in a fresh fork of a preloaded fork server and reports over a pipe.

Hides multiprocessing's fork server, process groups, signals and time limits from the runners.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import multiprocessing
import os
import pkgutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from multiprocessing.connection import Connection
from typing import Any

from hpsearch.run.wire import encode, is_ending
from hpsearch.study.trial import Ending, Launch, Report, State

PRELOAD = ("hpsearch.run.process", "hpsearch.train.preload")
EXECUTE = "hpsearch.train.trial:execute"
# Reports travel together, because each trip costs the driver milliseconds that short trials would feel: a
# first one waits for others a tenth of the trial's age, within these bounds (seconds). Where no decision
# waits for them it is always the longest, but for the first report of a slot, which shows that it lives.
SHORTEST_WINDOW, LONGEST_WINDOW = 0.1, 1.0
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Heard:
    """What a poll brought: reports as lines of JSON, and why the process is lost, if it is."""

    lines: list[str]
    lost: str | None = None


class Slot:
    """A place where trials run one after another: one fork server and at most one trial's process."""

    def __init__(self, preload: Sequence[str] = PRELOAD, execute: str = EXECUTE) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._execute = execute
        self._process: Any = None
        self._reader: Connection | None = None
        self._buffer = b""
        self._timeout: float | None = None
        self._judged = True
        self._lives = False
        self._started = 0.0
        self._deadline = math.inf
        # One BLAS thread: a fork copies only the forking thread, and the locks of others stay taken.
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = "1"
        self._context.set_forkserver_preload(list(preload))
        forkserver.ensure_running()

    def start(self, launch: Launch) -> None:
        """Start a launch in a fresh process; whatever still ran here is killed first."""
        self.kill()
        log = launch.context.directory / "output.log"
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        reader, writer = self._context.Pipe(duplex=False)
        arguments = (self._execute, json.dumps(launch.to_json()), writer, str(log))
        process = self._context.Process(target=_main, args=arguments)
        try:
            process.start()
        except BaseException:
            reader.close()
            raise
        finally:
            writer.close()
        os.set_blocking(reader.fileno(), False)
        self._process, self._reader, self._buffer = process, reader, b""
        self._timeout = launch.timeout
        self._judged = launch.judged
        self._started = time.monotonic()
        self._deadline = self._started + (launch.timeout or math.inf)

    def poll(self, timeout: float) -> Heard:
        """Wait up to `timeout` seconds for news, then gather what follows within a short window.

        After the end of a trial there is no news any more: the call waits and brings nothing.
        """
        if self._reader is None:
            time.sleep(timeout)
            return Heard([])
        lines: list[str] = []
        until = min(time.monotonic() + timeout, self._deadline)
        while True:
            connection.wait([self._reader, self._process.sentinel], max(0.0, until - time.monotonic()))
            # Asked before reading: what a dead process has written is then all there is.
            dead = self._process.exitcode is not None
            news = self._read()
            if news and not lines:
                until = min(until, time.monotonic() + self._window())
                self._lives = True
            lines += news
            if lines and is_ending(lines[-1]):
                return self._closed(Heard(lines))
            if dead:
                return self._closed(self._died(lines))
            if time.monotonic() >= self._deadline:
                return self._closed(self._timed_out(lines))
            if time.monotonic() >= until:
                return Heard(lines)

    def kill(self) -> None:
        """Kill the trial's process group, so that nothing of the trial is left running."""
        if self._process is None:
            return
        if self._reader is None:
            self._process.join(0.2)  # it has said its last word and is about to exit by itself
        if self._process.exitcode is None:
            self._process.kill()  # it may be too young to have its group
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.join()
        self._process.close()
        self._process = None
        self._hang_up()

    def _closed(self, heard: Heard) -> Heard:
        self._hang_up()
        return heard

    def _hang_up(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _window(self) -> float:
        if not self._judged:
            return LONGEST_WINDOW if self._lives else 0.0
        age = time.monotonic() - self._started
        return min(max(age / 10, SHORTEST_WINDOW), LONGEST_WINDOW)

    def _read(self) -> list[str]:
        assert self._reader is not None
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._reader.fileno(), 1 << 16):
                self._buffer += chunk
        *lines, self._buffer = self._buffer.split(b"\n")
        return [line.decode() for line in lines]

    def _died(self, lines: list[str]) -> Heard:
        """A process that ended without saying how: a signal loses the attempt, an exit fails the trial."""
        code = self._process.exitcode
        if code < 0:
            return Heard(
                lines, lost=f"its process was killed by signal {-code} ({signal.Signals(-code).name})"
            )
        if code == 255:
            return Heard(lines, lost="its process ended with its fork server")
        reason = f"its process exited with code {code} before the trial was finished"
        return Heard([*lines, encode(Report(ending=Ending(State.FAILED, reason)))])

    def _timed_out(self, lines: list[str]) -> Heard:
        self.kill()
        reason = f"trialTimeout: not finished after {self._timeout:g} s"
        return Heard([*lines, encode(Report(ending=Ending(State.FAILED, reason)))])


def _main(execute: str, launch: str, writer: Connection, log: str) -> None:
    """The trial's own process: alone in its group, tied to its parent's life, its output in a file."""
    _leave_home()
    _redirect(log)
    sender = _Sender(writer.fileno())
    run: Callable[[Launch, Callable[[Report], bool]], None] = pkgutil.resolve_name(execute)
    run(Launch.from_json(json.loads(launch)), sender.report)
    sender.finish()


def _leave_home() -> None:
    """Make an own process group that dies with the fork server, and let the server die with its owner.

    A child inherits the write end of the server's "alive" pipe: the server, waiting for its end, would
    outlive a killed owner as long as one child lives.
    """
    os.setpgid(0, 0)
    server = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)
    os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to hear
    # A trainer's own workers (a DataLoader's) start as they would in a program of its own.
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    sys.argv[:] = ["hpsearch-trial"]


def _redirect(log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]


class _Sender:
    """Writes reports without ever waiting: what the pipe cannot take now is kept for the next time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._backlog = b""
        self._lock = threading.Lock()
        os.set_blocking(descriptor, False)

    def report(self, report: Report) -> bool:
        """Send a report; always True, because a trial that must stop is killed."""
        with self._lock:
            self._backlog += encode(report).encode() + b"\n"
            self._flush()
        return True

    def finish(self) -> None:
        """Wait until everything is written."""
        with self._lock:
            os.set_blocking(self._descriptor, True)
            self._flush()

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._backlog:
                self._backlog = self._backlog[os.write(self._descriptor, self._backlog) :]
