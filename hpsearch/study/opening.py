"""What is looked at before SQLite opens a study's files: where they lie, whose they are, is the log whole.

Only the log is read as a file here, never the database: closing a descriptor of that one would drop the locks
that SQLite holds for this process.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Set
from contextlib import suppress
from pathlib import Path

from hpsearch.errors import StoreDamaged, UsageError
from hpsearch.study import mounts, wal
from hpsearch.study.wal import HEADER, Walk
from hpsearch.study.witness import REPAIR

DATABASE, LOG, LOCK = "study.db", "study.db-wal", "lock"
TRIALS = "trials"
UNFINISHED = ".unfinished"  # how the name of a repair's directory ends until it is done
ANY_OWNER = "HPSEARCH_ANY_OWNER"
_told: set[tuple[Path, Walk]] = set()
_log = logging.getLogger(__name__)


def check_place(directory: Path) -> None:
    """Raise UsageError where a study's directory lies on a network file system."""
    try:
        table = mounts.TABLE.read_text(errors="surrogateescape")
    except OSError:  # no Linux: nobody says
        return
    kind = mounts.network_type(table, directory.resolve())
    if kind is not None:
        raise UsageError(
            f"{directory} lies on a network file system ({kind}), where SQLite loses data",
            hint="put the studies on a local disk with --home, or use a PostgreSQL store",
        )


def check_owner(directory: Path) -> None:
    """Raise UsageError where a study is another user's, whom files of ours would lock out."""
    if os.environ.get(ANY_OWNER) == "1":
        return
    for path in (directory, directory / DATABASE):
        with suppress(FileNotFoundError):
            owner = path.stat().st_uid
            if owner != os.geteuid():
                raise UsageError(
                    f"{path} belongs to user {owner}, and this is user {os.geteuid()}",
                    hint=f"`chown -R {os.geteuid()} {directory}`, or {ANY_OWNER}=1 to write all the same",
                )


def check_repaired(directory: Path) -> None:
    """Raise StoreDamaged where a repair was begun and not finished."""
    for path in directory.glob(f"repair-*{UNFINISHED}"):
        raise StoreDamaged(
            f"a repair of the store was not finished, see {path}", hint="run `hpsearch store repair` again"
        )


def strays(directory: Path, known: Set[int]) -> list[Path]:
    """Directories of trials that a store does not know: a trial is recorded before it gets one."""
    there = directory / TRIALS
    found = sorted(there.iterdir()) if there.is_dir() else []
    return [path for path in found if path.name.isdecimal() and int(path.name) not in known]


def prove_log(directory: Path) -> Walk:
    """Walk a study's log unless a driver is writing it now; see `prove_own_log`."""
    data = _read_at_rest(directory)
    return _judged(directory / LOG, data) if data else Walk()


def check_links(directory: Path) -> None:
    """Raise UsageError where a link lies in the place of a file that a store writes."""
    for path in (directory / name for name in (DATABASE, LOG, f"{DATABASE}-shm", f"{DATABASE}-journal")):
        if path.is_symlink():
            raise UsageError(
                f"{path} is a link, and is not followed", hint="remove it, or put the file in its place"
            )


def prove_own_log(directory: Path) -> Walk:
    """Walk the log of a study whose lock this process holds; what SQLite will drop of it is logged.

    Raises StoreDamaged where something damaged hides good frames.
    """
    data = _read(directory / LOG)
    return _judged(directory / LOG, data) if data else Walk()


def drop_tail(directory: Path, log: Walk) -> None:
    """Cut off what was never committed, as SQLite would by writing over it, only that nothing of it stays.

    Frames left from a longer tail would look like good ones behind a bad one. The lock must be held.
    """
    if log.tail:
        os.truncate(directory / LOG, log.end if log.end > HEADER else 0)


def look_at_log(directory: Path) -> Walk:
    """What a walk through a study's log sees, damaged or not; nothing while a driver writes it."""
    return wal.walk(_read_at_rest(directory))


def _judged(path: Path, data: bytes) -> Walk:
    found = wal.walk(data)
    if found.damage is not None:
        raise StoreDamaged(
            f"{path} is damaged at byte {found.damage}: {found.problem}; nothing was overwritten", hint=REPAIR
        )
    if found.tail and (path, found) not in _told:
        _told.add((path, found))
        _log.warning(
            "%s ends in a transaction that was never committed: the dropped tail is %d bytes at byte %d",
            *(path, found.tail, found.end),
        )
    return found


def _read_at_rest(directory: Path) -> bytes:
    """The log's bytes, none while a driver owns the study; it waits a moment for somebody who looks."""
    try:
        lock = os.open(directory / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # a copy without it: no driver either
        return _read(directory / LOG)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return _read(directory / LOG)
    except BlockingIOError:
        return b""
    finally:
        os.close(lock)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
