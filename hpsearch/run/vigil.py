"""What the main thread looks at while Tune's loop runs beside it: the clock, Ray, the loop's end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from hpsearch.errors import Interrupted
from hpsearch.run.desk import Desk
from hpsearch.run.lookout import Lookout

# A worker says something every second. When none has for so long after the study's stop (seconds), the
# loop is told to end: what it still waits for is a place for a trial, or a node that is gone.
QUIET = 5.0
# What the loop may take for that beyond the time that its actors have (seconds).
LATE = 10.0
# Between two words that no trial can start, the first of which is said before the loop begins (seconds).
REMINDER = 60.0
log = logging.getLogger(__name__)


class Vigil:
    """Looks, and says whether the loop is still to be waited for.

    `awaited` says what the first trial waits for, None once it has a place; `hurry` tells the loop to end,
    `cleanup` is how long actors have to, and `start_timeout` how long it may take until a first trial has a
    place, None: for ever (seconds).
    """

    def __init__(
        self,
        desk: Desk,
        lookout: Lookout,
        awaited: Callable[[], str | None],
        hurry: Callable[[], None],
        cleanup: float,
        start_timeout: float | None = None,
    ) -> None:
        self._desk = desk
        self._lookout = lookout
        self._awaited = awaited
        self._hurry = hurry
        self._cleanup = cleanup
        self._hurried: float | None = None
        self._start_timeout, self._began = start_timeout, time.monotonic()
        self._mention = self._began + min(REMINDER, (start_timeout or REMINDER) / 2)
        self._asking: threading.Thread | None = None
        self._has_place = False
        self._late: str | None = None  # what was still waited for at the end of that time

    def look(self) -> bool:
        """False when the loop should have ended. Raises Interrupted when what it depends on is dead."""
        self._desk.look()
        now = time.monotonic()
        if self._lookout.trouble:
            raise Interrupted(
                f"Ray cannot go on: {self._lookout.trouble}",
                hint="`hpsearch resume` goes on, once there is a Ray",
            )
        if self._desk.stopped is None:
            if not (self._has_place or self._desk.placed):
                self._await_start(now)
            return True
        if self._hurried is None and now - max(self._desk.heard, self._desk.stopped) > QUIET:
            self._hurried = now
            self._hurry()
        return self._hurried is None or now - self._hurried < self._cleanup + LATE

    def _await_start(self, now: float) -> None:
        late = self._start_timeout is not None and now - self._began > self._start_timeout
        if self._late is not None:
            self._desk.expire(f"no trial started within {self._start_timeout:g} s{self._late}")
        elif (late or now > self._mention) and not (self._asking and self._asking.is_alive()):
            self._mention = now + REMINDER
            # On a thread of its own, because it asks Ray.
            self._asking = threading.Thread(target=self._ask, args=(late,), name="lack", daemon=True)
            self._asking.start()

    def _ask(self, late: bool) -> None:
        lack = self._awaited()
        if lack is None or self._desk.placed:
            self._has_place = True
        elif late:
            self._late = f": {lack}" if lack else ""
        elif lack:
            log.warning("%s", lack)
