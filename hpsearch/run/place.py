"""What a worker does for its trials: one launch after another on a slot, and what it does when left alone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from hpsearch.run import server
from hpsearch.run.parcel import VARIABLE, landed
from hpsearch.run.process import Slot
from hpsearch.run.team import MemberLost, Team
from hpsearch.study.storage import module_of
from hpsearch.study.trial import Cause, Launch

# A step returns at least this often (seconds), so that stops are heard.
STEP = 1.0
# A worker that no driver has asked for so long (seconds) is cut off: its trial goes on elsewhere by then, or
# nobody wants it. A driver that was stopped, or whose disk was full, for less loses nothing.
SILENCE = 120.0
# Between SIGTERM to a worker and its own end, once it has told of its checkpoint (seconds).
FAREWELL = 10.0
# Names the file whose being there is a notice, too: what ends a container reaches its first process only.
MARKER = "HPSEARCH_PREEMPTED"

Result = dict[str, Any]


class Place:
    """A worker's slot and the launch that it runs; a launch tells of itself in each of its results.

    `silence` is in seconds, as is `every`, the most that a step takes. One that does not lead runs another
    process of a trial than its first: whether that must part is not its to say, only that it should.
    """

    def __init__(
        self,
        silence: float = SILENCE,
        slot: Callable[[], Slot | Team] = Slot,
        *,
        every: float = STEP,
        leads: bool = True,
    ) -> None:
        self._make = slot
        self._every = every
        self._leads = leads
        self._slot: Slot | Team | None = None
        self._lock = threading.RLock()  # the slot is this thread's or the watchman's, never both
        self._by: list[int] | None = None
        self._trouble = ""
        self._cause = Cause.CRASHED
        self._lines: list[str] = []  # said while nobody asked
        self._asked = time.monotonic()
        self._silence = silence
        self._asked_to_part = False
        self._warned = False
        self._marker = os.environ.get(MARKER)
        threading.Thread(target=self._watch, name="watchman", daemon=True).start()

    def relaunch(self, config: dict[str, Any]) -> None:
        """Start a launch in a fresh process; what prevents it is told by the next step."""
        with self._lock:
            self._trouble, self._cause, self._lines, self._asked_to_part = "", Cause.CRASHED, [], False
            self._asked = time.monotonic()
            self._by = config.get("by")
            if not config["launch"]:
                return
            try:
                launch = Launch.from_json(json.loads(config["launch"]))
                if launch.context.storage:
                    server.preload_also(module_of(launch.context.storage))
                self._slot = self._slot or self._make()
                if not launch.context.storage and not launch.context.directory.parents[1].is_dir():
                    # This node came later than the others were asked. Made here, it would be nobody else's.
                    self._trouble = f"its node does not see {launch.context.directory.parents[1]}"
                    return
                # Of several processes each finds in a place of its own what was sent to it.
                several = isinstance(self._slot, Team)
                self._slot.start(launch if several else landed(launch, os.environ.get(VARIABLE)))
            except MemberLost as lost:
                self._trouble, self._cause = f"its processes could not be started: {lost}", lost.cause
            except Exception as error:  # a process boundary; nobody hears what this raises
                self._trouble = f"its process could not be started: {error!r}"

    def step(self) -> Result:
        """What the trial's process reported since the last step, and by which launch."""
        with self._lock:
            self._asked = time.monotonic()
            try:
                return self._step()
            finally:
                self._asked = time.monotonic()

    def _step(self) -> Result:
        lines, self._lines = self._lines, []
        result: Result = {"lines": lines, "lost": None, "cause": str(Cause.CRASHED), "by": self._by}
        if self._trouble:
            return self._told(result, self._trouble, self._cause)
        if self._slot is None:
            time.sleep(self._every)
        elif self._asked_to_part or (self._leads and self._noticed):
            lines += self._slot.part()
            return result | {"parted": True}
        else:
            heard = self._slot.poll(self._every)
            lines += heard.lines
            return self._told(result | {"leaving": self._noticed}, heard.lost, heard.cause)
        return result

    def _told(self, result: Result, lost: str | None, cause: Cause) -> Result:
        """A result that tells of a loss; of that of another's node as of a notice, as this place goes too."""
        if lost and self._broken:
            return result | {"parted": True, "why": lost}
        return result | {"lost": lost, "cause": str(cause)}

    def part(self) -> None:
        """Let the trial keep its state and end, with the next step: it goes on in the study's next life."""
        self._asked_to_part = True

    def abandon(self) -> None:
        """The Search is done with the trial: kill what still runs of it."""
        with self._lock:
            if self._slot is not None:
                self._slot.kill()

    def hear_notice(self) -> None:
        """Take SIGTERM for what it is, a notice that this worker's node goes away, while a trial runs here.

        Ray's own answer to it would be to leave at once.
        """
        earlier = signal.getsignal(signal.SIGTERM)

        def notice(number: int, frame: FrameType | None) -> None:
            first, self._warned = not self._warned, True
            if self._slot is None or not self._slot.busy:
                if callable(earlier):
                    earlier(number, frame)
                os._exit(0)
            if first:
                threading.Timer(self._slot.grace + FAREWELL, os._exit, (0,)).start()

        signal.signal(signal.SIGTERM, notice)

    @property
    def _noticed(self) -> bool:
        """Whether this worker's node goes away, by a signal or by the marker."""
        return self._warned or bool(self._marker and os.path.exists(self._marker))  # noqa: PTH110

    @property
    def leaving(self) -> bool:
        """Whether a notice was heard and the trial has ended: nothing more may start here."""
        return (self._noticed or self._broken) and not (self._slot is not None and self._slot.busy)

    @property
    def _broken(self) -> bool:
        """Whether a node of this trial's other processes is gone: Ray must look for a place for all anew."""
        return isinstance(self._slot, Team) and self._slot.broken

    def _watch(self) -> None:
        """End the trial when no driver has asked for long: this node may be cut off from it."""
        while True:
            time.sleep(min(1.0, self._silence / 4))
            if time.monotonic() - self._asked < self._silence:
                continue
            with self._lock, contextlib.suppress(OSError):
                silent = time.monotonic() - self._asked >= self._silence
                if silent and not self._trouble and self._slot is not None and self._slot.busy:
                    self._lines += self._slot.part()
                    self._trouble = f"no driver asked for it for {self._silence:g} s"
                    self._cause = Cause.PREEMPTED
