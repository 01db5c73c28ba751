"""Follows a job of Ray's to its end: it is handed over once, its log is copied, and only its status counts.

A stream that ends is no end of a job, and neither is a head that has lost its memory: what was seen and is
unknown now is handed over again, and the sweep goes on from what its store remembers.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hpsearch.errors import HpsearchError, Interrupted
from hpsearch.ship.api import AlreadyThere, NoAnswer
from hpsearch.ship.jobs import Jobs, RayJob

# Between two looks at a job (seconds): soon at first, then seldom enough for a sweep of days.
FIRST_LOOK, LONGEST_LOOK = 2.0, 10.0
# How often a job that the head has forgotten is handed over again.
RESUBMISSIONS = 3
# How long the end of a log is waited for once its job has ended (seconds).
LAST_LINES = 10.0
# Between two openings of a stream (seconds).
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
MOST_BROKEN = 5

Say = Callable[[str], None]


@dataclass(slots=True)
class Follower:
    """Follows the job `name`; `hand_over` submits it, with its files. `say` gets lines for people.

    `replace`: whether one that ended without its study being done gives way to a new one of its name.
    """

    jobs: Jobs
    name: str
    hand_over: Callable[[], None]
    say: Say
    replace: bool = False

    def start(self) -> RayJob | None:
        """Hand the job over, or find it there already; None for one that was handed over just now.

        Raises Refused, ServiceUnavailable.
        """
        found = self.jobs.find(self.name)
        if found is not None and found.is_final and not found.is_done and self.replace:
            self.say(f"job {self.name} ended before its study was done ({found.status}): it runs again")
            try:
                self.jobs.forget(self.name)
                found = None
            except AlreadyThere:
                found = self.jobs.find(self.name)
        if found is not None:
            self.say(f"job {self.name} is there already ({found.status})")
            return found
        return self._handed_over()

    def end(self, copy: LogCopy | None = None) -> RayJob:
        """Wait for the end of a job that was started, and copy its log as far as that can be read.

        Raises Interrupted for one that is lost again and again, Refused, ServiceUnavailable.
        """
        clock = self.jobs.clock
        began, lost = clock.now(), 0
        if copy:
            copy.start()
        while True:
            found = self.jobs.find(self.name)
            if found is None:
                if lost == RESUBMISSIONS:
                    raise Interrupted(
                        f"the Ray at {self.jobs.dashboard.where} has lost job {self.name} {lost + 1} times",
                        hint="its head is made anew each time: why? The same command goes on",
                    )
                lost += 1
                self.say(f"Ray has lost job {self.name}: submitted again ({lost} of {RESUBMISSIONS})")
                self._handed_over()
                if copy:
                    copy.begin_again()
            elif found.is_final:
                if copy:
                    copy.finish()
                return found
            clock.sleep(min(LONGEST_LOOK, max(FIRST_LOOK, (clock.now() - began) / 30)))

    def _handed_over(self) -> RayJob | None:
        try:
            self.hand_over()
        except AlreadyThere:
            # Somebody else, or we ourselves by a request whose answer was lost.
            self.say(f"job {self.name} is there already")
            return self.jobs.find(self.name)
        self.say(f"job {self.name} submitted")
        return None


@dataclass(slots=True)
class LogCopy:
    """Copies a job's log, best effort, on a thread of its own: whatever happens to it, the job goes on.

    A dropped stream is opened again, and what was written of it before is skipped.
    """

    jobs: Jobs
    name: str
    write: Callable[[str], None]
    _written: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, and go on until `finish`."""
        self._thread = threading.Thread(target=self._copy, name="log", daemon=True)
        self._thread.start()

    def begin_again(self) -> None:
        """There is a new log of that name: from its start. The stream of the old one may hang for long."""
        self._written = 0
        self.start()

    def finish(self) -> None:
        """The job has ended: copy what is left, for a while."""
        self._over.set()
        if self._thread:
            self._thread.join(LAST_LINES)

    def _copy(self) -> None:
        pause = FIRST_PAUSE
        while self._is_wanted():
            ended, whole = self._over.is_set(), False
            with contextlib.suppress(NoAnswer, HpsearchError):
                whole = self._stream()
                pause = FIRST_PAUSE
            # What ended in order when the job had ended was all of it.
            if self._over.is_set() and (whole or ended):
                return
            self._over.wait(pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    def _is_wanted(self) -> bool:
        """Whether this is the thread of the newest log."""
        return threading.current_thread() is self._thread

    def _stream(self) -> bool:
        """Read one stream to its end; False if its log is that of the job no more."""
        count, written = 0, self._written
        for text in self.jobs.tail(self.name):
            if not self._is_wanted():
                return False
            count += len(text)
            if count > written:
                self.write(text[written - count :] if count - len(text) < written else text)
                written = self._written = count
        return True


def reread(jobs: Jobs, name: str) -> Iterator[str]:
    """What a job has printed and will print, to its end, over streams that drop. Raises UsageError."""
    read, pause, broken = 0, FIRST_PAUSE, 0
    while broken < MOST_BROKEN:
        final = jobs.get(name).is_final
        count = 0
        with contextlib.suppress(NoAnswer):
            for text in jobs.tail(name):
                count += len(text)
                if count > read:
                    yield text[read - count :] if count - len(text) < read else text
                    read, pause = count, FIRST_PAUSE
            if final or jobs.get(name).is_final:
                return
        # What is not to be had of a job that has ended will never be.
        broken += final
        jobs.clock.sleep(pause)
        pause = min(LONGEST_PAUSE, pause * 2)
