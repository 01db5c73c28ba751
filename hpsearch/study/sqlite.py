"""The store as a SQLite file in the study's directory: its settings, its lock, and what its errors mean.

Part of the SQLAlchemy door. Who owns the study is said by a lock on a file beside it: it goes with the
process, however that ends, and no clock is asked. Local file systems only.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, StaticPool

from hpsearch.errors import HpsearchError, Interrupted, StoreDamaged, StudyBusy, UsageError
from hpsearch.study.schema import metadata, study_table

DATABASE = "study.db"
LOCK = "lock"
GLANCE = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class SqliteFile:
    """The store of the one study of a directory."""

    directory: Path

    @property
    def path(self) -> Path:
        """The database file."""
        return self.directory / DATABASE

    @property
    def place(self) -> str:
        """What messages call it."""
        return str(self.path)

    @property
    def among(self) -> str:
        """Where it stands among other studies."""
        return str(self.directory.parent)

    def holds_study(self) -> bool:
        """True if the directory holds a study; a database that a crash left without tables is none."""
        if not self.path.is_file():
            return False
        engine = self.engine(read_only=True)
        try:
            with engine.connect() as connection:
                return inspect(connection).has_table(study_table.name)
        except DBAPIError as error:
            raise self.unreadable(error) from error
        finally:
            engine.dispose()

    def is_owned(self) -> bool:
        """True while a driver owns the study, which its lock on a file says and no clock."""
        try:
            descriptor = os.open(self.directory / LOCK, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def engine(self, *, read_only: bool = False) -> Engine:
        """An engine for the file, with the settings that make a commit durable, read back."""
        return open_database(self.path, read_only=read_only)

    def study(self, connection: Connection) -> str:
        """The only study's name; its directory may have been moved, and called otherwise."""
        name: str = connection.execute(select(study_table.c.name)).scalar_one()
        return name

    def create_tables(self, connection: Connection) -> None:
        """Make all tables."""
        metadata.create_all(connection)

    def claim(self) -> FileLock:
        """Lock the study for this process."""
        return FileLock(self.directory)

    def is_lost(self, error: Exception) -> bool:
        """Never: a file's connection is not lost, and what failed is not repeated."""
        return False

    def reconnect(self, engine: Engine) -> Connection:
        """Another connection."""
        return engine.connect()

    def unreadable(self, error: Exception) -> HpsearchError:
        """Whatever SQLite cannot make sense of while reading is damage."""
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        return StoreDamaged(
            f"the store {self.path} cannot be read: {reason}", hint="restore it from a backup"
        )

    def unwritable(self, error: Exception) -> HpsearchError:
        """What refuses a write may be over soon."""
        return Interrupted(
            f"the store {self.path} refused a write: {getattr(error, 'orig', error)}",
            hint="free the disk or fix its permissions, then resume: nothing committed is lost",
        )


def open_database(path: Path, *, read_only: bool = False) -> Engine:
    """An engine for one SQLite file, with the settings that make a commit durable, read back."""
    mode = "ro" if read_only else "rwc"

    def connect() -> sqlite3.Connection:
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)
        _settings(connection, read_only)
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool if read_only else StaticPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # Python's driver begins late and deferred: a write lock taken in mid-transaction can fail.
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    if not read_only and not path.exists():
        path.touch(mode=0o600)
    return engine


def _settings(connection: sqlite3.Connection, read_only: bool) -> None:
    if read_only:
        connection.execute("PRAGMA query_only=ON")
        return
    wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    for name, value in wanted.items():
        connection.execute(f"PRAGMA {name}={value}")
        found = connection.execute(f"PRAGMA {name}").fetchone()[0]
        if found != value:
            raise StoreDamaged(f"SQLite says {name}={found} where {value} is needed for durable commits")


class FileLock:
    """The study's lock; whoever holds it needs no leave for each write."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = _lock(directory)

    def take(self, connection: Connection, study: str) -> None:
        """The lock is held already."""

    def assure(self) -> None:
        """The lock stays until this process ends."""

    def release(self) -> None:
        """Let the next driver in."""
        os.close(self._descriptor)


def _lock(directory: Path) -> int:
    """The study's lock as an open descriptor; it goes with the process, however that ends."""
    path = directory / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unwritable(directory, error) from error
    try:
        _wait_for_lock(descriptor)
    except BlockingIOError:
        owner = os.read(descriptor, 200).decode(errors="replace").strip()
        os.close(descriptor)
        raise StudyBusy(
            f"study {directory.name!r} is being run by {owner}", hint="wait for it, or stop that process"
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return descriptor


def _wait_for_lock(descriptor: int) -> None:
    """Take the lock; somebody who only looks whether it is taken holds it for a moment."""
    deadline = time.monotonic() + GLANCE
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def unwritable(directory: Path, error: OSError) -> UsageError:
    """A directory in which nothing can be written, as what it is to the user."""
    return UsageError(
        f"cannot write to the study directory {directory}: {error.strerror}",
        hint="choose a writable one with --home or HPSEARCH_HOME",
    )
