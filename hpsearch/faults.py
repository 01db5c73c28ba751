"""Failpoints: named events at which a test can kill, stop or hinder this process, counted and traced.

A fault is `store.commit:17:after=KILL`: a point, which of its events, a phase, an action. HPSEARCH_FAIL
holds some, separated by commas, and is honoured only beside HPSEARCH_TESTING=1. Kills go by count and never
by time, so that one line replays any failure. Events are counted for each process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from hpsearch.errors import UsageError

FAIL, TESTING = "HPSEARCH_FAIL", "HPSEARCH_TESTING"
# A file that gets a line for each event and phase; one that gets a line for each fault that fired. A fault
# whose line is there already does not fire again, whichever process it was that fired it.
TRACE, FIRED = "HPSEARCH_FAIL_TRACE", "HPSEARCH_FAIL_FIRED"

POINTS = frozenset(
    {
        *("lease.take", "lease.renew", "store.begin", "store.commit"),
        *("ckpt.write", "ckpt.sync", "ckpt.rename", "ckpt.row"),
        *("spawn.fork", "trial.start", "trial.report", "trial.end"),
        *("sampler.ask", "prune.decide", "tune.report"),
        *("outbox.read", "outbox.create_run", "outbox.send", "outbox.offset"),
        "cleanup.begin",
    }
)
PHASES = ("before", "inside", "after")
# What a caller must carry out itself: a reply that is lost, or a request that arrives twice.
DROP_REPLY, DUP_REPLY = "DROP_REPLY", "DUP_REPLY"
_PLAIN = frozenset({"KILL", "STOP", DROP_REPLY, DUP_REPLY})
_FAULT = re.compile(r"(?P<point>[a-z_.]+):(?P<count>\d+)(?P<on>\+?):(?P<phase>[a-z]+)=(?P<action>.+)")

Answer = TypeVar("Answer")
Hook = Callable[[str, int, str], None]


class ReplyLost(ConnectionError):
    """A request was carried out, and a fault swallowed its answer."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at one event of a point (`onward`: at each from that one on), and in which phase.

    `action` is KILL, STOP, DROP_REPLY, DUP_REPLY, DELAY with seconds, or RAISE with the name of an errno or
    MemoryError.
    """

    point: str
    count: int
    phase: str
    action: str
    argument: str = ""
    onward: bool = False

    def hits(self, point: str, count: int, phase: str) -> bool:
        """Whether it is for this event."""
        there = count >= self.count if self.onward else count == self.count
        return there and point == self.point and phase == self.phase

    def __str__(self) -> str:
        sign, argument = "+" * self.onward, f" {self.argument}" if self.argument else ""
        return f"{self.point}:{self.count}{sign}:{self.phase}={self.action}{argument}"


def parse(text: str) -> tuple[Fault, ...]:
    """The faults that a text names. Raises UsageError with the part that names none."""
    return tuple(_fault(part.strip()) for part in text.split(",") if part.strip())


def _fault(text: str) -> Fault:
    found = _FAULT.fullmatch(text)
    if found is None or found["point"] not in POINTS or found["phase"] not in PHASES:
        raise UsageError(
            f"{FAIL} {text!r} names no fault",
            hint=f"write point:count:phase=ACTION, the point being one of {', '.join(sorted(POINTS))}",
        )
    action, _, argument = found["action"].partition(" ")
    known = {"RAISE": argument == "MemoryError" or hasattr(errno, argument), "DELAY": _is_seconds(argument)}
    if not known.get(action, action in _PLAIN and not argument):
        raise UsageError(
            f"{FAIL} {text!r} names no action {found['action']!r}",
            hint=f"one of {', '.join(sorted(_PLAIN))}, RAISE ENOSPC, DELAY 0.5",
        )
    return Fault(found["point"], int(found["count"]), found["phase"], action, argument, bool(found["on"]))


def _is_seconds(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None


class Event:
    """One event of a point while it happens; `inside` marks the middle of what it does."""

    __slots__ = ("_count", "_point", "_reached")

    def __init__(self, point: str, count: int, reached: Callable[[str, int, str], str]) -> None:
        self._point, self._count, self._reached = point, count, reached

    def inside(self) -> str:
        """The middle is reached; the name of an action that is the caller's to carry out, else nothing."""
        return self._reached(self._point, self._count, "inside")


class _Quiet(Event):
    """What happens at points where no test looks on: nothing, at the price of one call."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def inside(self) -> str:
        return ""

    def __enter__(self) -> Event:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Board:
    """The faults and the onlooker of this process."""

    def __init__(self) -> None:
        self.faults: tuple[Fault, ...] = ()
        self.hook: Hook | None = None
        self.trace: str | None = None
        self.fired: str | None = None
        self.counts: Counter[str] = Counter()

    @property
    def quiet(self) -> bool:
        return not self.faults and self.hook is None and self.trace is None

    @contextlib.contextmanager
    def event(self, point: str) -> Iterator[Event]:
        self.counts[point] += 1
        count = self.counts[point]
        self.reached(point, count, "before")
        yield Event(point, count, self.reached)
        if self.reached(point, count, "after") == DROP_REPLY:
            raise ReplyLost(errno.ECONNRESET, f"the answer of {point} was dropped by a fault")

    def reached(self, point: str, count: int, phase: str) -> str:
        if self.trace:
            _append(self.trace, f"{point} {count} {phase} {os.getpid()}")
        if self.hook:
            self.hook(point, count, phase)
        for fault in self.faults:
            if fault.hits(point, count, phase) and self._first(fault):
                return _happens(fault)
        return ""

    def _first(self, fault: Fault) -> bool:
        if self.fired is None:
            return True
        line = str(fault)
        with contextlib.suppress(FileNotFoundError), open(self.fired) as file:  # noqa: PTH123
            if not fault.onward and line in file.read().splitlines():
                return False
        _append(self.fired, line)
        return True


def _happens(fault: Fault) -> str:
    if fault.action == "RAISE":
        if fault.argument == "MemoryError":
            raise MemoryError(f"by a fault at {fault.point}")
        number = getattr(errno, fault.argument)
        raise OSError(number, f"{os.strerror(number)} (by a fault at {fault.point})")
    if fault.action == "DELAY":
        time.sleep(float(fault.argument))
    if fault.action in ("KILL", "STOP"):
        os.kill(os.getpid(), signal.SIGKILL if fault.action == "KILL" else signal.SIGSTOP)
    return fault.action


def _append(path: str, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


_board, _quiet = _Board(), _Quiet()


def point(name: str) -> contextlib.AbstractContextManager[Event]:
    """What happens within is one event of that name."""
    return _quiet if _board.quiet else _board.event(name)


def called(name: str, request: Callable[[], Answer]) -> Answer:
    """The answer to a request, one event; a fault may drop it (ReplyLost) or send the request twice."""
    with point(name) as event:
        answer = request()
        return request() if event.inside() == DUP_REPLY else answer


@contextlib.contextmanager
def watched(hook: Hook) -> Iterator[Counter[str]]:
    """Within it, `hook(point, count, phase)` is called at each phase; counts start anew. For tests."""
    earlier = _board.hook, _board.counts
    _board.hook, _board.counts = hook, Counter()
    try:
        yield _board.counts
    finally:
        _board.hook, _board.counts = earlier


def arm(environment: Mapping[str, str]) -> None:
    """Take the faults that an environment names, and say so on stderr.

    Raises UsageError for a text that names none, and where nothing says that tests are running.
    """
    text = environment.get(FAIL, "")
    if not text and TRACE not in environment:
        return
    if environment.get(TESTING) != "1":
        raise UsageError(
            f"{FAIL} is set, which makes hpsearch fail on purpose",
            hint=f"unset it; tests set {TESTING}=1 beside it",
        )
    _board.faults = parse(text)
    _board.trace, _board.fired = environment.get(TRACE), environment.get(FIRED)
    if text:
        sys.stderr.write(f"hpsearch: faults are injected: {text}\n")


# Fork servers and workers come up by imports alone; what is wrong in the text was said by the command.
if os.environ.get(TESTING) == "1":
    with contextlib.suppress(UsageError):
        arm(os.environ)
