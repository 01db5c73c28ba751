"""A copy of a SQLite store, also while a driver writes it: one moment of it, log folded in, and proven."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hpsearch.errors import Interrupted, StoreDamaged, UsageError
from hpsearch.study import witness
from hpsearch.study.history import require_study
from hpsearch.study.opening import DATABASE
from hpsearch.study.salvage import scan
from hpsearch.study.witness import REPAIR


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy: its last lsn, how many rows were proven in it, and its size in bytes."""

    target: Path
    lsn: int
    rows: int
    size: int


def backup(directory: Path, target: Path) -> Backup:
    """Copy a store into a new file, for its owner only, and read the copy.

    Raises UsageError (no study, the target exists), StoreDamaged (then there is no copy), Interrupted.
    """
    require_study(directory)
    seen = witness.read(directory)
    _new_file(target)
    try:
        _copy(directory / DATABASE, target)
        found = scan(target, immutable=True)
        if found.problems or found.lease is None:
            first = found.problems[0].message if found.problems else "it has no lease"
            raise StoreDamaged(f"the store is damaged, and so would be its copy: {first}", hint=REPAIR)
        if seen and found.study:
            witness.compare(seen, found.study["uid"], found.lease["lsn"])
    except sqlite3.Error as error:
        target.unlink()
        raise Interrupted(f"the copy {target} could not be written: {error}") from error
    except BaseException:
        target.unlink()
        raise
    rows = len(found.facts) + len(found.known) + 2
    return Backup(target, found.lease["lsn"], rows, target.stat().st_size)


def _new_file(target: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.close(os.open(target, flags, 0o600))
    except FileExistsError as error:
        raise UsageError(f"{target} exists", hint="a backup overwrites nothing: name a new file") from error
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}", hint="name another file") from error


def _copy(source: Path, target: Path) -> None:
    """SQLite's own copy of one moment: writers go on meanwhile, and the log is in it."""
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as old,
        closing(sqlite3.connect(target, timeout=30)) as new,
    ):
        old.backup(new)
    handle = os.open(target, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
