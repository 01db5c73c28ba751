"""The SQLAlchemy door: the one durable truth about a study; hides SQL, transactions, and the lease."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, insert, inspect, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool, StaticPool

from hpsearch.errors import Interrupted, StoreDamaged, StudyBusy, UsageError
from hpsearch.spec.reading import parse
from hpsearch.study.schema import (
    FACT_TABLES,
    SCHEMA_VERSION,
    Row,
    checksum,
    fact_of,
    lease_table,
    metadata,
    rows_of,
    study_table,
    trial_table,
    verify,
)
from hpsearch.study.trial import (
    Attempt,
    Change,
    Checkpoint,
    Ending,
    Entry,
    Measurement,
    Study,
    StudyEnding,
    Trial,
)

DATABASE = "study.db"
LOCK = "lock"
GLANCE = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class History:
    """All that the store knows of a study, folded: trials by number, and what the sampler kept for each."""

    study: Study
    tracking_uri: str
    trials: list[Trial]
    attributes: dict[int, Mapping[str, object]]
    ending: StudyEnding | None
    epoch: int
    offset: int
    parent_run_id: str | None


class Store:
    """The writing side: one connection, one thread, one lease; every commit is guarded by the epoch.

    `progress` is read in each transaction: how far MLflow was fed (lsn) and the parent run's id. It is how
    the outbox's thread gets its offset kept without a second writer.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.progress: Callable[[], tuple[int, str | None]] | None = None
        self._epoch = 0
        self._unknown = False  # whether a commit raised: it may have happened all the same
        self.lsn = 0
        self._name = directory.name
        self._lock = _lock(directory)
        try:
            self._engine = _engine(directory / DATABASE)
            self._connection = self._engine.connect()
        except BaseException:
            os.close(self._lock)
            raise

    @classmethod
    def create(cls, study: Study, tracking_uri: str) -> Store:
        """A new store for a new study, owned by this process.

        Raises UsageError where the directory cannot be written or holds a study already.
        """
        try:
            study.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(study.directory, error) from error
        if holds_study(study.directory):
            raise UsageError(
                f"study {study.name!r} exists in {study.directory.parent}",
                hint="go on with `hpsearch resume`, or choose another --study NAME",
            )
        store = cls(study.directory)
        with store._connection.begin():
            metadata.create_all(store._connection)
            row: Row = {
                "name": study.name,
                "uid": study.uid,
                "created": study.created,
                "schema_version": SCHEMA_VERSION,
                "spec_source": study.spec.source,
                "spec_text": study.spec.text,
                "git_sha": study.git_sha,
                "versions": json.dumps(dict(study.versions)),
            }
            row["checksum"] = checksum(row)
            store._connection.execute(insert(study_table), row)
            lease = {"study": study.name, "epoch": 0, "lsn": 0, "outbox_offset": 0, "taken": 0}
            owner = {"host": socket.gethostname(), "pid": os.getpid(), "tracking_uri": tracking_uri}
            store._connection.execute(insert(lease_table), lease | owner)
        return store

    @classmethod
    def open(cls, directory: Path) -> Store:
        """The store of an existing study, owned by this process from now on.

        Raises UsageError (no such study), StudyBusy (another driver owns it), StoreDamaged.
        """
        _require(directory)
        return cls(directory)

    def take(self, now: int, tracking_uri: str | None = None) -> History:
        """Take the lease under a new epoch and read everything, verifying every row on the way.

        `now` is milliseconds since the epoch. Another `tracking_uri` than before is told everything anew.
        Raises StoreDamaged.
        """
        with self._transaction() as connection:
            values = {"host": socket.gethostname(), "pid": os.getpid(), "taken": now}
            connection.execute(update(lease_table).values(epoch=lease_table.c.epoch + 1, **values))
            if tracking_uri is not None:
                moved = update(lease_table).where(lease_table.c.tracking_uri != tracking_uri)
                fresh = {"tracking_uri": tracking_uri, "outbox_offset": 0, "parent_run_id": None}
                connection.execute(moved.values(**fresh))
        with _reading(self.directory):
            history = _history(self._connection, self.directory)
        self._name, self._epoch = history.study.name, history.epoch
        self.lsn = self._connection.execute(select(lease_table.c.lsn)).scalar_one()
        self._connection.rollback()
        return history

    def commit(self, entries: Sequence[Entry]) -> None:
        """Commit facts in one transaction; they are durable when this returns.

        Raises StudyBusy if the lease was lost, Interrupted if the database refuses: then the commit is
        unknown rather than undone, and the next start reads what is there.
        """
        lsn, rows = self.lsn, []
        for entry in entries:
            new = list(rows_of(self._name, entry, lsn + 1, self._epoch))
            lsn += len(new)
            rows += new
        if self._unknown:
            raise Interrupted("an earlier write to the store failed; nothing is written after it")
        with self._transaction() as connection:
            self._guard(connection, lsn)
            for table, group in _grouped(rows):
                connection.execute(insert(table), group)
        self.lsn = lsn

    def close(self) -> None:
        """Keep the outbox's progress, close the connection, and free the study for the next driver."""
        try:
            if self._epoch and not self._unknown:
                self.commit(())
        finally:
            self._connection.close()
            self._engine.dispose()
            os.close(self._lock)

    def _guard(self, connection: Connection, lsn: int) -> None:
        """Move the counter under our epoch; a lost lease hits no row and so writes nothing."""
        values: dict[str, Any] = {"lsn": lsn}
        if self.progress:
            values["outbox_offset"], values["parent_run_id"] = self.progress()
        mine = (lease_table.c.study == self._name) & (lease_table.c.epoch == self._epoch)
        mine &= lease_table.c.lsn == self.lsn
        if connection.execute(update(lease_table).where(mine).values(**values)).rowcount != 1:
            raise StudyBusy(f"study {self._name!r} was taken over by another driver; nothing was written")

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._connection.begin():
                yield self._connection
        except DBAPIError as error:
            self._unknown = True
            raise Interrupted(
                f"the store {self.directory / DATABASE} refused a write: {error.orig}",
                hint="free the disk or fix its permissions, then resume: nothing committed is lost",
            ) from error


class StoreReader:
    """The reading side, for the outbox and the commands: read-only, in short transactions."""

    def __init__(self, directory: Path) -> None:
        _require(directory)
        self.directory = directory
        self._engine = _engine(directory / DATABASE, read_only=True)

    def history(self) -> History:
        """Everything the store knows, every row verified. Raises StoreDamaged."""
        with _reading(self.directory), self._engine.connect() as connection:
            return _history(connection, self.directory)

    def changes(self, after: int, limit: int) -> Sequence[Change]:
        """The committed facts with after < lsn <= after + limit, in that order."""
        with _reading(self.directory), self._engine.connect() as connection:
            study, lsn = connection.execute(select(lease_table.c.study, lease_table.c.lsn)).one()
            if lsn <= after:
                return ()
            return [change for change, _ in _changes(connection, study, after, after + limit)]

    def close(self) -> None:
        """Give the files back."""
        self._engine.dispose()


def is_owned(directory: Path) -> bool:
    """True while a driver owns the study, which its lock on a file says and no clock."""
    try:
        descriptor = os.open(directory / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock(directory: Path) -> int:
    """The study's lock as an open descriptor; it goes with the process, however that ends."""
    path = directory / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(directory, error) from error
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


def _unwritable(directory: Path, error: OSError) -> UsageError:
    return UsageError(
        f"cannot write to the study directory {directory}: {error.strerror}",
        hint="choose a writable one with --home or HPSEARCH_HOME",
    )


def holds_study(directory: Path) -> bool:
    """True if the directory holds a study; a database that a crash left without tables is none."""
    path = directory / DATABASE
    if not path.is_file():
        return False
    engine = _engine(path, read_only=True)
    try:
        with engine.connect() as connection:
            return inspect(connection).has_table(study_table.name)
    except DBAPIError as error:
        raise StoreDamaged(f"{path} cannot be read: {error.orig}", hint="restore it from a backup") from error
    finally:
        engine.dispose()


def _require(directory: Path) -> None:
    if not holds_study(directory):
        raise UsageError(
            f"no study {directory.name!r} in {directory.parent}",
            hint="`hpsearch list` names the studies here",
        )


def _engine(path: Path, *, read_only: bool = False) -> Engine:
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


def _grouped(rows: Sequence[tuple[Table, Row]]) -> Iterator[tuple[Table, list[Row]]]:
    """Rows by table, parents first, so that one statement inserts many."""
    for table in FACT_TABLES:
        group = [row for t, row in rows if t is table]
        if group:
            yield table, group


@contextmanager
def _reading(directory: Path) -> Iterator[None]:
    """Whatever SQLite cannot make sense of while reading is damage, said as such."""
    try:
        yield
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise StoreDamaged(
            f"the store {directory / DATABASE} cannot be read: {reason}", hint="restore it from a backup"
        ) from error


def _changes(connection: Connection, study: str, after: int, until: int) -> list[tuple[Change, Row]]:
    found: list[tuple[Change, Row]] = []
    for table in FACT_TABLES:
        within = (table.c.study == study) & (table.c.lsn > after) & (table.c.lsn <= until)
        for record in connection.execute(select(table).where(within)).mappings():
            row = dict(record)
            verify(table, row)
            trial = row["number"] if table is trial_table else row.get("trial")
            found.append((Change(row["lsn"], trial, fact_of(table, row)), row))
    found.sort(key=lambda pair: pair[0].lsn)
    return found


def _history(connection: Connection, directory: Path) -> History:
    """Fold all facts, checking that none is missing: the counter has no gaps."""
    row = _study_row(connection)
    lease = connection.execute(select(lease_table)).mappings().one()
    changes = _changes(connection, row["name"], 0, lease["lsn"])
    if [change.lsn for change, _ in changes] != list(range(1, lease["lsn"] + 1)):
        raise StoreDamaged(
            f"the store of study {row['name']!r} has {len(changes)} facts where {lease['lsn']} were written",
            hint="restore the study directory from a backup; nothing was overwritten",
        )
    trials: dict[int, Trial] = {}
    attributes: dict[int, Mapping[str, object]] = {}
    ending: StudyEnding | None = None
    for change, fields in changes:
        if isinstance(change.fact, Trial):
            attributes[change.fact.number] = json.loads(fields["sampler"])
        if isinstance(change.fact, StudyEnding):
            ending = change.fact if fields["epoch"] == lease["epoch"] else None
        else:
            apply(trials, change)
    return History(
        study=_study(row, directory),
        tracking_uri=lease["tracking_uri"],
        trials=[trials[number] for number in sorted(trials)],
        attributes=attributes,
        ending=ending,
        epoch=lease["epoch"],
        offset=lease["outbox_offset"],
        parent_run_id=lease["parent_run_id"],
    )


def _study_row(connection: Connection) -> Row:
    row = dict(connection.execute(select(study_table)).mappings().one())
    verify(study_table, row)
    if row["schema_version"] != SCHEMA_VERSION:
        raise UsageError(
            f"study {row['name']!r} has schema version {row['schema_version']}, "
            f"this hpsearch reads {SCHEMA_VERSION}",
            hint="use the version of hpsearch that made it",
        )
    return row


def _study(row: Row, directory: Path) -> Study:
    reading = parse(row["spec_text"], row["spec_source"])
    if reading.spec is None:
        raise StoreDamaged(f"the file stored with study {row['name']!r} is not valid any more")
    return Study(
        name=row["name"],
        uid=row["uid"],
        created=row["created"],
        spec=reading.spec,
        directory=directory,
        git_sha=row["git_sha"],
        versions=json.loads(row["versions"]),
    )


def apply(trials: dict[int, Trial], change: Change) -> None:
    """Add one fact to the trials that it is about; the metrics of one step become one measurement."""
    fact = change.fact
    if isinstance(fact, Trial):
        trials[fact.number] = fact
        return
    assert change.trial is not None
    trial = trials[change.trial]
    match fact:
        case Attempt():
            trial.attempts.append(fact)
        case Checkpoint():
            trial.checkpoints.append(fact)
        case Ending():
            trial.ending = fact
        case Measurement():
            last = trial.measurements[-1] if trial.measurements else None
            if last is not None and last.step == fact.step:
                merged = {**last.metrics, **fact.metrics}
                trial.measurements[-1] = Measurement(last.step, merged, last.time)
            else:
                trial.measurements.append(fact)
