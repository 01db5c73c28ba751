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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, StaticPool

from hpsearch.errors import HpsearchError, Interrupted, StoreDamaged, StoreFull, StudyBusy, UsageError
from hpsearch.study import opening, witness
from hpsearch.study.full import is_full
from hpsearch.study.opening import DATABASE, LOCK
from hpsearch.study.schema import MADE, lease_table, metadata, schema_mark, study_table, trial_table
from hpsearch.study.witness import REPAIR, Testimony, Witness

GLANCE = 0.5  # seconds
BUSY = 30  # seconds
# What makes a commit durable.
WRITING = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


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
        if self.path.is_file():
            opening.check_place(self.directory)
        seen = self.testimony()
        opening.prove_log(self.directory)
        found = self.path.is_file() and self._has_tables()
        if seen and not found:
            raise StoreDamaged(
                f"{self.path} holds no study, and its witness says that there was one, up to lsn {seen.lsn}",
                hint=f"restore it from a backup, or remove {self.directory} to start anew",
            )
        return found

    def _has_tables(self) -> bool:
        with self._reading() as connection:
            found = inspect(connection).has_table(study_table.name)
            mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
            if found and mode != "wal":
                raise StoreDamaged(
                    f"the header of {self.path} says journal mode {mode}, not wal", hint=REPAIR
                )
            return found

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """A connection for a moment that only reads; raises StoreDamaged."""
        engine = self.engine(read_only=True)
        try:
            with engine.connect() as connection:
                yield connection
        except (DBAPIError, UnicodeDecodeError) as error:
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
        """Make all tables, and keep their proof in the file's header."""
        metadata.create_all(connection)
        connection.exec_driver_sql(f"PRAGMA user_version={_mark(connection)}")

    def settle(self, connection: Connection) -> None:
        """Move the log into the file: what a study is born with shall not hang on a second file."""
        driver = connection.connection.driver_connection  # no transaction begins
        assert isinstance(driver, sqlite3.Connection)
        driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def prove_tables(self, connection: Connection) -> None:
        """Raise StoreDamaged where the tables are not as they were made: a flipped bit in a column's type."""
        kept = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        # The first versions kept none, and say so when their version is looked at.
        if kept not in (0, _mark(connection)):
            raise StoreDamaged(f"the tables of {self.path} are not what they were made as", hint=REPAIR)

    def testimony(self) -> Testimony | None:
        """What the file beside it says was acknowledged."""
        return witness.read(self.directory)

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Whoever closes last moves the log into the file: that shall be a reader, which cannot."""
        with ExitStack() as open_until_then:
            # A file that nobody can read changes as little as one that somebody reads.
            with suppress(StoreDamaged, DBAPIError):
                connection = open_until_then.enter_context(self._reading())
                connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
                connection.rollback()
            yield

    def claim(self) -> FileLock:
        """Lock the study for this process, and look at its files before SQLite opens them for writing.

        Raises UsageError (a network file system, another's study), StudyBusy, StoreDamaged.
        """
        opening.check_place(self.directory)
        opening.check_owner(self.directory)
        opening.check_links(self.directory)
        opening.check_repaired(self.directory)
        hold = FileLock(self.directory)
        try:
            log = opening.prove_own_log(self.directory)
            if self.path.is_file():
                self._prove()
            opening.drop_tail(self.directory, log)
        except BaseException:
            hold.release()
            raise
        return hold

    def _prove(self) -> None:
        """Raise StoreDamaged where the file's structure is not sound, or a witness knows more than it."""
        with self._reading() as connection:
            for (line,) in connection.exec_driver_sql("PRAGMA quick_check(1)"):
                if line != "ok":
                    raise StoreDamaged(f"{self.path} is damaged: {line}", hint=REPAIR)
            if not inspect(connection).has_table(lease_table.name):
                return
            seen = self.testimony()
            if seen:
                witness.compare(seen, seen.uid, connection.execute(select(lease_table.c.lsn)).scalar_one())
                return
            known = set(connection.execute(select(trial_table.c.number)).scalars())
            for path in opening.strays(self.directory, known):
                raise StoreDamaged(f"the store knows no trial of the directory {path}", hint=REPAIR)

    def is_lost(self, error: Exception) -> bool:
        """Never: a file's connection is not lost, and what failed is not repeated."""
        return False

    def reconnect(self, engine: Engine) -> Connection:
        """Another connection."""
        return engine.connect()

    def unreadable(self, error: Exception) -> HpsearchError:
        """Whatever SQLite cannot make sense of while reading is damage."""
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        return StoreDamaged(f"the store {self.path} cannot be read: {reason}", hint=REPAIR)

    def unwritable(self, error: Exception) -> HpsearchError:
        """What refuses a write may be over soon, unless it is damage."""
        if getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF in DAMAGE:
            return self.unreadable(error)
        if is_full(error, self.directory):
            return StoreFull(
                f"the store {self.path} has no room for a write: {getattr(error, 'orig', error)}",
                hint="free some space, or make the disk writable, then resume: nothing committed is lost",
            )
        return Interrupted(
            f"the store {self.path} refused a write: {getattr(error, 'orig', error)}",
            hint="free the disk or fix its permissions, then resume: nothing committed is lost",
        )


def open_database(path: Path, *, read_only: bool = False) -> Engine:
    """An engine for one SQLite file, with the settings that make a commit durable, read back."""
    mode = "ro" if read_only else "rwc"

    def connect() -> sqlite3.Connection:
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY)
        _settings(connection, read_only)
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool if read_only else StaticPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # Python's driver begins late and deferred: a write lock taken in mid-transaction can fail.
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    if not read_only and not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    return engine


def _mark(connection: Connection) -> int:
    return schema_mark([tuple(row) for row in connection.exec_driver_sql(MADE)])


def _settings(connection: sqlite3.Connection, read_only: bool) -> None:
    wanted: dict[str, object] = {"busy_timeout": BUSY * 1000}
    wanted |= {"query_only": 1} if read_only else WRITING
    for name, value in wanted.items():
        connection.execute(f"PRAGMA {name}={value}")
        found = connection.execute(f"PRAGMA {name}").fetchone()[0]
        if found != value:
            raise StoreDamaged(f"SQLite says {name}={found} where {value} is needed for durable commits")


class FileLock:
    """The study's lock; whoever holds it needs no leave for each write."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = _lock(directory)
        self._directory = directory
        self._witness: Witness | None = None

    def take(self, connection: Connection, study: str) -> None:
        """The lock is held already."""

    def assure(self) -> None:
        """The lock stays until this process ends."""

    def acknowledge(self, testimony: Testimony) -> None:
        """Have it witnessed by a file beside the database."""
        if self._witness is None:
            self._witness = Witness(self._directory)
        self._witness.note(testimony)

    def release(self) -> None:
        """Let the next driver in."""
        if self._witness is not None:
            self._witness.close()
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
    with suppress(OSError):  # who holds it is a courtesy, for which a full disk may have no room
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
