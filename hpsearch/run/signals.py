"""Signals: the first asks the study to stop in order, a second Ctrl-C leaves at once; both take bounded time.

Python runs its handlers on the main thread between two of its steps, so never while that waits inside of a
library. Therefore a thread listens too: it leaves for whoever cannot.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

GRACEFUL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_SECOND_INTERRUPT = 130
EXIT_LATE = 75
# From the first signal on, the process leaves within this time (seconds), in order or not: Kubernetes kills
# after 30, and what is committed needs no farewell.
LIMIT = 22.0

Stop = Callable[[str], None]


class _Ear:
    """What hears the signals of this process, and for whom."""

    def __init__(self) -> None:
        self.reason = ""
        self.listeners: list[Stop] = []
        self._interrupts = 0
        # Who starts a program detached (nohup) has said that a lost terminal is no reason to stop.
        detached = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._numbers = tuple(n for n in GRACEFUL if not (detached and n is signal.SIGHUP))
        self._earlier: dict[int, Any] = {number: signal.getsignal(number) for number in self._numbers}
        self._alarm, self._bell = os.pipe()
        os.set_blocking(self._bell, False)
        self._earlier_bell = signal.set_wakeup_fd(self._bell, warn_on_full_buffer=False)
        self.open()
        threading.Thread(target=self._watch, args=(self._alarm,), name="signals", daemon=True).start()

    def open(self) -> None:
        """Take the signals, also back from a library that took them."""
        signal.set_wakeup_fd(self._bell, warn_on_full_buffer=False)
        for number in self._numbers:
            signal.signal(number, self._handle)

    def close(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._earlier_bell)
        os.close(self._bell)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            _leave(EXIT_SECOND_INTERRUPT, "interrupted again: left at once")
        self.reason = self.reason or f"interrupted by {signal.Signals(number).name}"
        for stop in self.listeners:
            stop(self.reason)

    def _watch(self, alarm: int) -> None:
        """Count the same signals on a thread of its own, which nothing keeps from leaving in time."""
        interrupts, deadline = 0, math.inf
        with contextlib.closing(os.fdopen(alarm, "rb", buffering=0)) as bell:
            while True:
                left = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
                if not select.select([bell], [], [], left)[0]:
                    _leave(EXIT_LATE, f"not stopped in order within {LIMIT:g} s of the signal: left")
                rung = bell.read(64)
                if not rung:
                    return
                interrupts += rung.count(signal.SIGINT)
                if interrupts > 1:
                    _leave(EXIT_SECOND_INTERRUPT, "interrupted again: left at once")
                if any(number in self._numbers for number in rung):
                    deadline = min(deadline, time.monotonic() + LIMIT)


_ears: list[_Ear] = []


@contextlib.contextmanager
def heard_signals(stop: Stop | None = None) -> Iterator[None]:
    """Within it, INT, TERM and HUP call `stop(reason)`; one that came before calls it at once.

    A second INT ends the process with 130, and what has not ended `LIMIT` seconds after the first signal ends
    with 75. Inside of another one it is called beside the outer ones; off the main thread, never.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer = not _ears
    if outer:
        _ears.append(_Ear())
    ear = _ears[0]
    if stop:
        ear.listeners.append(stop)
        if ear.reason:
            stop(ear.reason)
    hear_again()
    try:
        yield
    finally:
        if stop:
            ear.listeners.remove(stop)
        if outer:
            _ears.clear()
            ear.close()


def hear_again() -> None:
    """Take the signals back from a library that took them, as Ray does when it starts."""
    if _ears and threading.current_thread() is threading.main_thread():
        _ears[0].open()


def heard() -> str:
    """Why this process was asked to stop; nothing if it was not."""
    return _ears[0].reason if _ears else ""


def _leave(code: int, reason: str) -> None:
    """End the process without any farewell: nothing is saved at exit, so nothing is missing."""
    with contextlib.suppress(OSError):
        # Not a word to a reader that would make it wait.
        if select.select([], [2], [], 0)[1]:
            os.write(2, f"{reason}; `hpsearch resume` goes on\n".encode())
    os._exit(code)
