"""The metric file of cloudml-hypertune, read live and without loss: a named pipe stands in its place.

The library rewrites the whole file at each report and keeps 100 records of one HyperTune object, and many
programs make a new object for each epoch: whoever polls a file misses what was reported between two looks.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpsearch.redaction import redact
from hpsearch.spec.texts import RESERVED

LONGEST_LINE = 1 << 16  # bytes; what is longer is no record
LARGEST_FILE = 1 << 20  # bytes at the end of a regular file that are read; the library writes 20 KB
MOST_AT_ONCE = 1 << 22  # bytes, so that a flood of reports does not keep anybody from a stop
KEPT = 1 << 23  # bytes of records that are left in the file, the last ones
RECENT = 250  # lines that are known without a look into them; the library repeats up to 100 at each report
KNOWN = 100_000  # records that are told from repeated ones by themselves, older ones by their time
LARGEST_STEP = 2**63


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a tag as it was reported, with the step that it names; `time` is milliseconds or 0."""

    tag: str
    value: object
    step: int
    time: int


class MetricFile:
    """Makes the file at a path, in place of an earlier attempt's, and takes new points from it.

    `descriptor` becomes readable with each report. It is None where the file system has no named pipes; then,
    or when a program puts a regular file there, `take` reads that.
    """

    def __init__(self, path: Path, trial: str, note: Callable[[str, str], None]) -> None:
        self._path = path
        self._trial = trial
        self._note = note
        self._partial = self._rest = b""
        self._looked: tuple[int, int, int] | None = None
        self._seen = _Seen()
        self._recent: dict[bytes, None] = {}
        self._kept: deque[bytes] = deque()
        self._size = 0
        path.unlink(missing_ok=True)
        self.descriptor = _pipe(path)

    def take(self, *, last: bool = False) -> list[Point]:
        """The points that are new, in the order of their arrival; at last also from unfinished lines."""
        lines = [*self._from_pipe(), *self._from_file(anyway=last)]
        if last:
            lines += [self._partial, self._rest]
        return [point for line in lines if self._is_fresh(line) for point in self._points(line)]

    def close(self) -> None:
        """Leave a regular file with the records that were seen, the last of them where there are many."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
        with contextlib.suppress(OSError):  # a full disk costs this copy, nothing else
            self._path.unlink(missing_ok=True)
            if self._kept:
                self._path.touch(mode=0o600, exist_ok=False)  # never through a link
                self._path.write_bytes(b"".join(line + b"\n" for line in self._kept))

    def _is_fresh(self, line: bytes) -> bool:
        """False for an empty line and for one of the recent ones again."""
        if not line.strip() or line in self._recent:
            return False
        self._recent[line] = None
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]
        return True

    def _from_pipe(self) -> list[bytes]:
        if self.descriptor is None:
            return []
        taken = self._partial
        with contextlib.suppress(BlockingIOError):
            while len(taken) < MOST_AT_ONCE:
                taken += os.read(self.descriptor, 1 << 16)
        *lines, partial = taken.split(b"\n")
        self._partial = partial[:LONGEST_LINE]  # enough to be no record when its end comes
        return lines

    def _from_file(self, *, anyway: bool) -> list[bytes]:
        """The lines of a regular file at the path, if it has changed since the last look or `anyway`."""
        try:
            found = self._path.lstat()
            look = (found.st_ino, found.st_size, found.st_mtime_ns)
            if not stat.S_ISREG(found.st_mode) or (look == self._looked and not anyway):
                return []
            self._looked = look
            with self._path.open("rb") as file:
                start = file.seek(max(0, found.st_size - LARGEST_FILE))
                *lines, self._rest = file.read(LARGEST_FILE).split(b"\n")
                return lines[1:] if start else lines  # the first may be the end of one
        except OSError:  # it is not there, or not any more
            return []

    def _points(self, line: bytes) -> list[Point]:
        try:
            record = json.loads(line) if len(line) < LONGEST_LINE else None
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            self._note("metric file", f"a line that is no record was skipped: {redact(repr(line[:60]))}")
            return []
        trial = record.get("trial", self._trial)
        if str(trial) != self._trial:
            self._note("metric file's trial", f"a record says trial {trial!r}, this is trial {self._trial}")
        time = record.get("timestamp")
        tags = [tag for tag in record if tag not in RESERVED and self._seen.add(time, tag, line)]
        if tags:
            self._keep(line)
        step, milliseconds = _step(record.get("global_step")), _milliseconds(time)
        return [Point(tag, _value(record[tag]), step, milliseconds) for tag in tags]

    def _keep(self, line: bytes) -> None:
        self._kept.append(line)
        self._size += len(line)
        while self._size > KEPT:
            self._size -= len(self._kept.popleft())


class _Seen:
    """Which records were seen: those of the library by (timestamp, tag), others by their whole line."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, str], None] = {}
        self._forgotten = -math.inf

    def add(self, time: object, tag: str, line: bytes) -> bool:
        """True for one that is new; one as old as those that were forgotten is not."""
        stamp = float(time) if isinstance(time, int | float) and abs(time) < LARGEST_STEP else None
        key = (line if stamp is None else stamp, tag)
        if key in self._known or (stamp is not None and stamp <= self._forgotten):
            return False
        self._known[key] = None
        if len(self._known) > KNOWN:
            oldest, _ = next(iter(self._known))
            del self._known[oldest, _]
            self._forgotten = max(self._forgotten, oldest if isinstance(oldest, float) else -math.inf)
        return True


def _pipe(path: Path) -> int | None:
    """A named pipe that neither blocks here nor ends when a program closes it; None if there can be none."""
    try:
        os.mkfifo(path, 0o600)
    except OSError:
        return None
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)


def _value(given: object) -> object:
    """The number that a text spells, else what was given: the reporter says why it is of no use."""
    if not isinstance(given, str):
        return given
    try:
        return float(given)
    except ValueError:
        return given


def _step(given: object) -> int:
    """The step that a record names; 0, as the library does, where it names none."""
    for kind in (int, float):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            step = int(kind(given))  # type: ignore[call-overload, arg-type]
            return step if 0 <= step < LARGEST_STEP else 0
    return 0


def _milliseconds(given: object) -> int:
    usable = isinstance(given, int | float) and 0 < given < LARGEST_STEP / 1000
    return int(given * 1000) if usable and isinstance(given, int | float) else 0
