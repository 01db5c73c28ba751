"""Whether a write was refused for want of room: nothing was written then, and it may be tried again.

A write or a sync that failed otherwise may have happened all the same (reliability D7), and is not repeated.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

# A disk that is mounted read-only after an error of its own takes nothing either, until somebody sees to it.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# The shared memory beside the log is made larger before anything is written to the log.
_REFUSED = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR_SHMSIZE)
_DISK_FULL = "53100"  # PostgreSQL's word for it


def is_full(error: BaseException, directory: Path) -> bool:
    """Whether an error of a database in this directory, or of the system, says that there is no room."""
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    orig = getattr(error, "orig", None) or error
    if getattr(orig, "sqlstate", None) == _DISK_FULL:
        return True
    code = getattr(orig, "sqlite_errorcode", None)
    if code is None:
        return False
    return code in _REFUSED or code & 0xFF == sqlite3.SQLITE_READONLY or _is_read_only(code, directory)


def _is_read_only(code: int, directory: Path) -> bool:
    """SQLite has no word of its own for a write that failed because the disk was made read-only meanwhile."""
    if code != sqlite3.SQLITE_IOERR_WRITE:
        return False
    try:
        return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
    except OSError:
        return False
