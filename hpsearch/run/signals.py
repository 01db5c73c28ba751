"""Signals: the first asks the study to stop in order, a second Ctrl-C leaves at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

GRACEFUL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_SECOND_INTERRUPT = 130


_hearing: list[Callable[[int, FrameType | None], None]] = []


@contextlib.contextmanager
def heard_signals(stop: Callable[[str], None]) -> Iterator[None]:
    """Within it, INT, TERM and HUP call `stop(reason)`; a second INT ends the process with 130.

    Inside of another one it only makes sure that the outer one is still heard.
    """
    if threading.current_thread() is not threading.main_thread() or _hearing:
        hear_again()
        yield
        return
    interrupts = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts > 1:
            os.write(2, b"interrupted again: left at once; `hpsearch resume` goes on\n")
            os._exit(EXIT_SECOND_INTERRUPT)  # nothing is saved at exit, so nothing is missing
        stop(f"interrupted by {signal.Signals(number).name}")

    earlier = {number: signal.getsignal(number) for number in GRACEFUL}
    _hearing.append(handle)
    hear_again()
    try:
        yield
    finally:
        _hearing.clear()
        for number, handler in earlier.items():
            signal.signal(number, handler)


def hear_again() -> None:
    """Take the signals back from a library that took them, as Ray does when it starts."""
    if _hearing and threading.current_thread() is threading.main_thread():
        for number in GRACEFUL:
            signal.signal(number, _hearing[0])
