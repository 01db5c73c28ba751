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


@contextlib.contextmanager
def heard_signals(stop: Callable[[str], None]) -> Iterator[None]:
    """Within it, INT, TERM and HUP call `stop(reason)`; a second INT ends the process with 130."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupts = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts > 1:
            os._exit(EXIT_SECOND_INTERRUPT)  # nothing is saved at exit, so nothing is missing
        stop(f"interrupted by {signal.Signals(number).name}")

    earlier = {number: signal.signal(number, handle) for number in GRACEFUL}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
