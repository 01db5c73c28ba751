"""A trial is a process: each starts in a fresh fork of a preloaded fork server and reports over a pipe.

Hides multiprocessing's fork server, process groups, signals, limits and output from the runners.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any

from hpsearch import faults
from hpsearch.run import child, server
from hpsearch.run.attempt import NOTICE
from hpsearch.run.berth import Berth
from hpsearch.run.kin import Seen, adopt_orphans, brood, children_of, end_adopted
from hpsearch.run.output import Output, Pump
from hpsearch.run.watch import Offence, Watch
from hpsearch.run.wire import encode, is_checkpoint, is_ending, is_failure
from hpsearch.study.beneath import made
from hpsearch.study.trial import Cause, Ending, Launch, Report, State

PRELOAD = ("hpsearch.run.child", "hpsearch.run.attempt", "hpsearch.train.preload")
EXECUTE = "hpsearch.run.attempt:execute"
# Reports travel together, because each trip costs the driver milliseconds that short trials would feel: a
# first one waits for others a tenth of the trial's age, within these bounds (seconds). Where no decision
# waits for them it is always the longest, but for the first report of a slot, which shows that it lives. A
# checkpoint counts only once its row is durable: it waits as short as may be, because until then a kill of
# the driver costs the training since the one before.
SHORTEST_WINDOW, LONGEST_WINDOW = 0.1, 1.0
# What multiprocessing takes for the exit code of a process whose server is gone, which may be its own, too;
# how long a server may then take to be dead (seconds).
LOST_SERVER, SERVERS_DEATH = 255, 2.0
# What the supervisor of a program needs beyond the program's grace to end what is left of it (seconds).
SUPERVISION = 1.0
# How long a trial that was told to end, or its worker, waits for its files to reach a bucket (seconds).
LEAVING = 5.0
# How long a trial's process may take to exit by itself after its last word, where files go to a bucket: what
# it tidies up then is brought there, too (seconds).
LINGERING = 5.0


@dataclass(frozen=True, slots=True)
class Heard:
    """What a poll brought: reports as lines of JSON; why the process is lost, if it is, in words and kind."""

    lines: list[str]
    lost: str | None = None
    cause: Cause = Cause.CRASHED


class Slot:
    """A place where trials run one after another: one fork server and at most one trial's process.

    With nothing to preload there is no server: each trial starts in an interpreter of its own. What a trial's
    process leaves when it is killed is adopted by the server, or else by this process, and killed.
    """

    def __init__(self, preload: Sequence[str] = PRELOAD, execute: str = EXECUTE) -> None:
        self._context: Any = multiprocessing.get_context("forkserver" if preload else "spawn")
        self._execute = execute
        self._process: Any = None
        self._reader: Connection | None = None
        self._buffer = b""
        self._pump: Pump | None = None
        self._printed: Connection | None = None
        self._judged = True
        self._lives = False
        self._started = 0.0
        self._watch: Watch | None = None
        self._grace = 0.0
        self._berth: Berth | None = None
        self._last: Heard | None = None  # the trial's last word, until its files are where they stay
        self._lingers = 0.0  # until when its process may
        self._spared: set[int] = set()  # children of this process that have nothing to do with the trial
        self._serves = bool(preload)
        if not preload:
            return
        server.start(self._context, preload)

    def start(self, launch: Launch) -> None:
        """Start a launch in a fresh process; whatever still ran here is killed first."""
        self.kill()
        if launch.context.storage:
            self._berth = Berth(launch)
            launch = self._berth.launch
        directory = launch.context.directory
        made(directory)
        output = Output(directory, launch.output, rank=launch.team.rank)
        reader, writer = self._context.Pipe(duplex=False)
        printed, prints = self._context.Pipe(duplex=False)
        arguments = (self._execute, json.dumps(launch.to_json()), writer, prints)
        process = self._context.Process(target=child.main, args=arguments)
        if not self._serves:
            self._spared = children_of(os.getpid())
            adopt_orphans()
        try:
            with faults.point("spawn.fork"), server.without_main(), server.marking():
                process.start()
        except BaseException:
            output.close()
            reader.close()
            printed.close()
            if not self._serves:
                adopt_orphans(False)
            raise
        finally:
            writer.close()
            prints.close()
        os.set_blocking(reader.fileno(), False)
        self._process, self._reader, self._buffer = process, reader, b""
        self._printed, self._pump = printed, Pump(printed.fileno(), output)
        self._pump.start()
        self._grace, self._judged = launch.grace, launch.judged
        self._started = time.monotonic()
        self._watch = Watch(launch, self._family)

    def poll(self, timeout: float) -> Heard:
        """Wait up to `timeout` seconds for news, then gather what follows within a short window.

        After the end of a trial there is no news any more: the call waits and brings nothing. Where its files
        go to a bucket, its end is news only when they have arrived.
        """
        if self._last is not None:
            return self._told(timeout)
        if self._reader is None or self._watch is None:
            time.sleep(timeout)
            return Heard([])
        return self._news(timeout, self._reader, self._watch)

    def _news(self, timeout: float, reader: Connection, watch: Watch) -> Heard:
        lines: list[str] = []
        until = time.monotonic() + timeout
        while True:
            rest = min(until - time.monotonic(), watch.rest)
            connection.wait([reader, self._process.sentinel], max(0.0, rest))
            # Asked before reading: what a dead process has written is then all there is.
            dead = self._process.exitcode is not None
            news = self._read()
            if news and not lines:
                until = min(until, time.monotonic() + self._window())
                self._lives = True
            if any(map(is_checkpoint, news)):
                until = min(until, time.monotonic() + SHORTEST_WINDOW)
            if news:
                watch.heard()
            lines += news
            if lines and is_ending(lines[-1]):
                return self._closed(Heard(lines))
            if dead:
                return self._closed(self._died(lines))
            if offence := watch.look():
                return self._closed(self._stopped(lines, offence))
            if time.monotonic() >= until:
                return Heard(lines)

    @property
    def busy(self) -> bool:
        """Whether a trial's process runs here that has not said its last word, or it is not told yet."""
        return self._reader is not None or self.over

    @property
    def over(self) -> bool:
        """Whether a trial has said its last word, which waits for its files."""
        return self._last is not None

    @property
    def grace(self) -> float:
        """How long the trial here may take to end when it is asked to (seconds)."""
        return self._grace

    def part(self) -> list[str]:
        """End the trial, which may keep its state within its grace; what it said meanwhile."""
        if self._last is not None and (berth := self._berth) is not None:
            lines = self._last.lines
            self.kill()
            return _notes(berth) + lines
        if self._process is None or self._reader is None:
            return []
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, NOTICE)
        lines = self._last_words(self._grace)
        self.kill(at_once=True)
        return lines

    def kill(self, *, at_once: bool = False) -> None:
        """End the trial's process, by SIGKILL if SIGTERM and the grace were not enough, and all it left."""
        self._end(at_once=at_once)
        if self._pump is not None and self._printed is not None:
            self._pump.close()
            self._printed.close()
            self._pump = self._printed = None
        self._last = None
        if self._berth is not None:
            self._berth.leave()
            self._berth.is_left(LEAVING)
            self._berth = None

    def _family(self) -> list[Seen]:
        """The trial's process and all that it started."""
        with contextlib.suppress(ProcessLookupError):  # the server is gone, which is soon heard of
            return brood(self._parent, self._spared)
        return []

    @property
    def _parent(self) -> int:
        """Whose child the trial's process is."""
        return server.pid() if self._serves else os.getpid()

    def _end(self, *, at_once: bool = False) -> list[str]:
        """The same, or by SIGKILL at once; returns what the trial said meanwhile."""
        if self._process is None:
            return []
        lines: list[str] = []
        if self._reader is None:
            self._process.join(0.2)  # it has said its last word and is about to exit by itself
        if self._process.exitcode is None and not at_once:
            self._process.terminate()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGCONT)  # one that was stopped must go on to hear it
            lines = self._last_words(self._grace + SUPERVISION)
        if self._process.exitcode is None:
            self._process.kill()  # it may be too young to have its group
        self._sweep()
        if not self._serves:
            adopt_orphans(False)
        self._process.close()
        self._process = None
        self._hang_up()
        return lines

    def _sweep(self) -> None:
        """Kill all that the dead process left: its group, and what is in other groups or sessions."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.join()
        # A dying server's pipes close before it is dead.
        patience = SERVERS_DEATH if self._process.exitcode == LOST_SERVER else 0.0
        if self._serves and server.has_died(patience):
            server.end_brood()
        else:
            end_adopted(self._parent, self._spared)

    def _last_words(self, seconds: float) -> list[str]:
        """What the process says until its end or for some seconds: it must not wait for a reader."""
        if self._reader is None:
            self._process.join(seconds)
            return []
        lines: list[str] = []
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            connection.wait([self._reader, self._process.sentinel], left)
            dead = self._process.exitcode is not None
            lines += self._read()
            if dead:
                break
        return lines

    def _closed(self, heard: Heard) -> Heard:
        """The last that is heard of the trial, after all that it printed until then is kept."""
        self._hang_up()
        if self._pump is not None:
            self._pump.settle()
            output = self._pump.output
            if output.dropped:
                note = Report(note=f"{output.dropped} bytes of its output were dropped")
                heard.lines.insert(len(heard.lines) - bool(heard.lost is None), encode(note))
            if heard.lost or is_failure(heard.lines[-1]):
                output.keep_last_lines()
        if self._berth is None:
            return heard
        self._lingers = time.monotonic() + LINGERING
        told = len(heard.lines) - (heard.lost is None)
        self._last = replace(heard, lines=heard.lines[told:])
        return Heard(heard.lines[:told])

    def _told(self, timeout: float) -> Heard:
        """The trial's last word, once its files are where they stay."""
        until = time.monotonic() + timeout
        if self._last is None or self._berth is None or not self._is_gone(timeout):
            return Heard([])
        self._berth.leave()
        if not self._berth.is_left(max(0.0, until - time.monotonic())):
            return Heard([])
        last, self._last = self._last, None
        return replace(last, lines=_notes(self._berth) + last.lines)

    def _is_gone(self, timeout: float) -> bool:
        """Whether the process that said its last word has exited, if need be because it took too long."""
        if self._process is not None:
            rest = min(timeout, self._lingers - time.monotonic())
            connection.wait([self._process.sentinel], max(0.0, rest))
            if self._process.exitcode is None and time.monotonic() < self._lingers:
                return False
            self._end()
            if self._pump is not None:
                self._pump.settle()
        return True

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
        self._sweep()  # now, because the next attempt may start elsewhere
        if self._pump is not None:
            self._pump.settle()
        code = self._process.exitcode
        if code < 0:
            return Heard(lines, lost=f"its process was killed by signal {-code} ({_name(-code)})")
        if code == LOST_SERVER and self._serves and server.has_died():
            return Heard(lines, lost="its process ended with its fork server")
        reason = f"its process exited with code {code} before the trial was finished"
        said = self._pump.output.last_line if self._pump else ""
        return _failed(lines, f"{reason}: {said}" if said else reason)

    def _stopped(self, lines: list[str], offence: Offence) -> Heard:
        # What it says of its end is not why it ended.
        lines += [line for line in self._end(at_once=offence.at_once) if not is_ending(line)]
        if offence.cause is None:
            return _failed(lines, offence.reason)
        return Heard(lines, offence.reason, offence.cause)


def _failed(lines: list[str], reason: str) -> Heard:
    return Heard([*lines, encode(Report(ending=Ending(State.FAILED, reason)))])


def _notes(berth: Berth) -> list[str]:
    """What became of the files of an attempt, where they did not all arrive."""
    problem = berth.problem
    if not berth.is_left(0.0):
        problem = f"not all of its files had reached {berth.launch.context.storage} when its end was told"
    return [encode(Report(note=problem))] if problem else []


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the nameless real-time signals
        return signal.strsignal(number) or "unknown"
