"""The writing side of the store: the one durable truth about a study, one writer, one lease.

Part of the SQLAlchemy door: hides SQL, transactions and locks.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, bindparam, insert, select, update
from sqlalchemy.exc import DBAPIError

from hpsearch import faults
from hpsearch.errors import Interrupted, StudyBusy, UsageError
from hpsearch.study.history import (
    DATABASE,
    History,
    holds_study,
    open_database,
    read_history,
    reading,
    require_study,
)
from hpsearch.study.schema import (
    FACT_TABLES,
    SCHEMA_VERSION,
    Row,
    checksum,
    known_row,
    known_table,
    lease_table,
    metadata,
    rows_of,
    study_table,
)
from hpsearch.study.trial import Entry, Known, Study

LOCK = "lock"
GLANCE = 0.5  # seconds

# Built once: at thousands of commits a second, half of the time would go into building statements.
_GUARD = update(lease_table).where(
    lease_table.c.study == bindparam("ours"),
    lease_table.c.epoch == bindparam("our_epoch"),
    lease_table.c.lsn == bindparam("our_lsn"),
)
_INSERT = {table: insert(table) for table in FACT_TABLES}


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
            self._engine = open_database(directory / DATABASE)
            self._connection = self._engine.connect()
        except BaseException:
            os.close(self._lock)
            raise

    @classmethod
    def create(cls, study: Study, tracking_uri: str, known: Sequence[Known] = ()) -> Store:
        """A new store for a new study, owned by this process, with the trials that it knows from its start.

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
                "started_in": study.started_in,
                "known": len(known),
            }
            row["checksum"] = checksum(row)
            store._connection.execute(insert(study_table), row)
            lease = {"study": study.name, "epoch": 0, "lsn": 0, "outbox_offset": 0, "taken": 0}
            owner = {"host": socket.gethostname(), "pid": os.getpid(), "tracking_uri": tracking_uri}
            store._connection.execute(insert(lease_table), lease | owner)
            if known:
                store._connection.execute(insert(known_table), [known_row(study.name, k) for k in known])
        return store

    @classmethod
    def open(cls, directory: Path) -> Store:
        """The store of an existing study, owned by this process from now on.

        Raises UsageError (no such study), StudyBusy (another driver owns it), StoreDamaged.
        """
        require_study(directory)
        return cls(directory)

    def take(self, now: int, tracking_uri: str | None = None) -> History:
        """Take the lease under a new epoch and read everything, verifying every row on the way.

        `now` is milliseconds since the epoch. Another `tracking_uri` than before is told everything anew.
        Raises StoreDamaged.
        """
        with faults.point("lease.take"), self._transaction() as connection:
            values = {"host": socket.gethostname(), "pid": os.getpid(), "taken": now}
            connection.execute(update(lease_table).values(epoch=lease_table.c.epoch + 1, **values))
            if tracking_uri is not None:
                moved = update(lease_table).where(lease_table.c.tracking_uri != tracking_uri)
                fresh = {"tracking_uri": tracking_uri, "outbox_offset": 0, "parent_run_id": None}
                connection.execute(moved.values(**fresh))
        with reading(self.directory):
            history = read_history(self._connection, self.directory)
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
                connection.execute(_INSERT[table], group)
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
        values: dict[str, Any] = {
            "lsn": lsn,
            "ours": self._name,
            "our_epoch": self._epoch,
            "our_lsn": self.lsn,
        }
        if self.progress:
            values["outbox_offset"], values["parent_run_id"] = self.progress()
        if connection.execute(_GUARD, values).rowcount != 1:
            raise StudyBusy(f"study {self._name!r} was taken over by another driver; nothing was written")

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with faults.point("store.begin"):
                transaction = self._connection.begin()
            with transaction:
                yield self._connection
                with faults.point("store.commit"):
                    transaction.commit()
        except (DBAPIError, OSError) as error:
            self._unknown = True
            raise Interrupted(
                f"the store {self.directory / DATABASE} refused a write: {getattr(error, 'orig', error)}",
                hint="free the disk or fix its permissions, then resume: nothing committed is lost",
            ) from error


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


def _grouped(rows: Sequence[tuple[Table, Row]]) -> Iterator[tuple[Table, list[Row]]]:
    """Rows by table, parents first, so that one statement inserts many."""
    for table in FACT_TABLES:
        group = [row for t, row in rows if t is table]
        if group:
            yield table, group
