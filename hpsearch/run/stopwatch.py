"""Counts the time in which this process runs: what passes while it is stopped belongs to nobody's timeout."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

TICK = 1.0  # seconds
# Of what passes between two looks at the clock so much counts (seconds): beyond, the process was stopped.
LONGEST = 2.0


class Stopwatch:
    """`seconds` are those since it was made, without those in which the process was stopped by a signal."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, tick: float = TICK) -> None:
        self._clock = clock
        self._last = clock()
        self._lock = threading.Lock()
        self._seconds = 0.0
        # Steps of training may be far apart, so that only a thread looks often enough to tell.
        threading.Thread(target=_tick, args=(weakref.ref(self), tick), name="clock", daemon=True).start()

    @property
    def seconds(self) -> float:
        """The time so far."""
        with self._lock:
            now = self._clock()
            self._seconds += min(now - self._last, LONGEST)
            self._last = now
            return self._seconds


def _tick(watch: weakref.ref[Stopwatch], pause: float) -> None:
    while (looked := watch()) is not None:
        _ = looked.seconds
        del looked
        time.sleep(pause)
