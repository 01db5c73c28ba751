"""How long a trial may take and be silent, and how much it may use: judged from outside of its process."""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpsearch.run.kin import Seen
from hpsearch.run.output import LOG, by_rank
from hpsearch.study.trial import Cause, Launch

# Seconds. Without a limit of its own a trial is taken for hung when it has neither reported nor printed nor
# worked for so long, or for so many times its usual interval between two reports.
HUNG, USUAL_INTERVALS = 600.0, 20
WORK = 1.0  # seconds of CPU time that are a sign of life
# Of a time between two looks no more counts: this process, and mostly all of them, stood still meanwhile.
LONGEST_GAP = 10.0
# Between two looks at a trial's processes, of which there are a first one after a while and a longest share
# of this machine's time; a trial that nears a limit is looked at sooner.
FIRST_LOOK, EVERY, SHARE = 0.5, 1.0, 0.01
NEAR, SOON, SHARE_WHEN_NEAR = 0.5, 0.1, 0.1
SUPERVISOR = "hps-supervisor"  # the name of the process that is ours and not a program's


@dataclass(frozen=True, slots=True)
class Offence:
    """Why a trial must stop: the attempt is lost for a cause, or for none the trial has failed.

    `at_once`: it is not asked to end first, because meanwhile it would do more harm.
    """

    reason: str
    cause: Cause | None = None
    at_once: bool = False


class Watch:
    """Judges one attempt; `family` are its processes, `clock` counts seconds."""

    def __init__(
        self,
        launch: Launch,
        family: Callable[[], Sequence[Seen]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._launch = launch
        self._family = family
        self._clock = clock
        self._before = clock()
        self._age = 0.0  # seconds; those in which everything stood still do not count
        self._heard_at = self._lived_at = 0.0
        self._intervals: deque[float] = deque(maxlen=100)
        self._reported = False
        self._next_look = FIRST_LOOK
        self._work = 0.0
        self._printed: tuple[int, ...] = ()

    @property
    def rest(self) -> float:
        """Seconds until something may have changed."""
        timeout = self._launch.timeout or math.inf
        return max(0.0, min(self._next_look, timeout, self._due) - self._age)

    def heard(self) -> None:
        """The trial has said something."""
        self._tick()
        if self._reported:
            self._intervals.append(self._age - self._heard_at)
        self._reported = True
        self._heard_at = self._lived_at = self._age

    def look(self) -> Offence | None:
        """What is wrong now, if anything is."""
        self._tick()
        launch = self._launch
        if launch.timeout and self._age >= launch.timeout:
            return Offence(f"trialTimeout: not finished after {launch.timeout:g} s")
        if self._age >= self._due:
            name, told = ("progressTimeout", "further ") if self._reported else ("startupTimeout", "")
            return Offence(f"{name}: no {told}report for {self._given:g} s", Cause.HUNG)
        if self._age < self._next_look:
            return None
        started = time.thread_time()
        offence, near = self._inspect()
        cost = time.thread_time() - started
        pause = max(SOON, cost / SHARE_WHEN_NEAR) if near else max(EVERY, cost / SHARE)
        self._next_look = self._age + pause
        return offence

    @property
    def _given(self) -> float | None:
        """The file's own limit of a silence: None for none, 0 for a silence that may last."""
        launch = self._launch
        return launch.progress_timeout if self._reported else launch.startup_timeout

    @property
    def _due(self) -> float:
        return self._heard_at + self._given if self._given else math.inf

    def _tick(self) -> None:
        now = self._clock()
        self._age += min(now - self._before, LONGEST_GAP)
        self._before = now

    def _inspect(self) -> tuple[Offence | None, bool]:
        """Look at all processes; whether one of the limits is near."""
        family = self._family()
        most = self._launch.processes
        if len(family) > most:
            reason = f"maxProcesses: it had {len(family)} processes at once, {most} are allowed"
            return Offence(reason, at_once=True), True
        # What belongs to hpsearch itself is neither the trial's work nor its memory.
        own = [each for each in family if each.name != SUPERVISOR]
        limit, used = self._launch.context.resources.memory, 0
        if limit is not None:
            used = sum(memory_of(each.pid) for each in own)
            if used > limit:
                reason = (
                    f"oom: its processes held {_mebibytes(used)} of memory, {_mebibytes(limit)} are allowed"
                )
                return Offence(reason, Cause.OOM, at_once=True), True
        return self._hung(own), len(family) > NEAR * most or used > NEAR * (limit or math.inf)

    def _hung(self, family: Sequence[Seen]) -> Offence | None:
        """Whether it has given no sign of life for long, where the file says nothing of silence."""
        if self._given is not None:
            return None
        work, printed = sum(each.work for each in family), self._log()
        if printed != self._printed or not self._work <= work < self._work + WORK:
            self._lived_at, self._work, self._printed = self._age, work, printed
        usual = statistics.median(self._intervals) if self._intervals else 0.0
        limit = max(HUNG, USUAL_INTERVALS * usual)
        if self._age - self._lived_at < limit:
            return None
        return Offence(f"it hung: no report, no output and no work for {limit:.0f} s", Cause.HUNG)

    def _log(self) -> tuple[int, ...]:
        with contextlib.suppress(OSError):
            found = os.lstat(self._launch.context.directory / by_rank(LOG, self._launch.team.rank))
            return (found.st_ino, found.st_size)
        return ()


def memory_of(pid: int) -> int:
    """The bytes of a process, of pages that are shared its part; 0 for one that is gone or another user's."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) << 10
    return 0


def _mebibytes(amount: int) -> str:
    return f"{amount / 2**20:.0f} MiB"
