"""The writing side of the store: the one durable truth about a study, one writer, one lease.

Part of the SQLAlchemy door: hides SQL, transactions and locks.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, Table, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from hpsearch import faults
from hpsearch.errors import Interrupted, StudyBusy, UsageError
from hpsearch.study.database import Database
from hpsearch.study.history import History, Place, database_of, read_history, reading, require_study
from hpsearch.study.schema import (
    FACT_TABLES,
    SCHEMA_VERSION,
    Row,
    checksum,
    known_row,
    known_table,
    lease_table,
    rows_of,
    study_table,
)
from hpsearch.study.sqlite import SqliteFile, unwritable
from hpsearch.study.trial import Entry, Known, Study


class Store:
    """The writing side: one connection, one thread, one lease; every commit is guarded by the epoch.

    `progress` is read in each transaction: how far MLflow was fed (lsn) and the parent run's id. It is how
    the outbox's thread gets its offset kept without a second writer.
    """

    def __init__(self, where: Place) -> None:
        self._database = database_of(where)
        self.directory = self._database.directory
        self.progress: Callable[[], tuple[int, str | None]] | None = None
        self._epoch = 0
        self._unknown = False  # whether a commit raised: it may have happened all the same
        self.lsn = 0
        self._name = self.directory.name
        self._hold = self._database.claim()
        try:
            self._engine = self._database.engine()
            self._connection = self._engine.connect()
        except BaseException:
            self._hold.release()
            raise

    @classmethod
    def create(
        cls, study: Study, tracking_uri: str, known: Sequence[Known] = (), where: Database | None = None
    ) -> Store:
        """A new store for a new study, owned by this process, with the trials that it knows from its start.

        Raises UsageError where the directory cannot be written or holds a study already.
        """
        database = where or SqliteFile(study.directory)
        try:
            study.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(study.directory, error) from error
        if database.holds_study():
            raise _exists(study, database)
        store = cls(database)
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
        lease = {"study": study.name, "epoch": 0, "lsn": 0, "outbox_offset": 0, "taken": 0}
        lease |= {"host": socket.gethostname(), "pid": os.getpid(), "tracking_uri": tracking_uri}
        try:
            with store._connection.begin():
                database.create_tables(store._connection)
                store._connection.execute(insert(study_table), row)
                store._connection.execute(insert(lease_table), lease)
                if known:
                    rows = [known_row(study.name, each) for each in known]
                    store._connection.execute(insert(known_table), rows)
                store._hold.take(store._connection, study.name)
        except IntegrityError as error:
            store._abandon()
            raise _exists(study, database) from error
        except DBAPIError as error:
            store._abandon()
            raise database.unwritable(error) from error
        return store

    @classmethod
    def open(cls, where: Place) -> Store:
        """The store of an existing study, owned by this process from now on.

        Raises UsageError (no such study), StudyBusy (another driver owns it), StoreDamaged.
        """
        require_study(where)
        return cls(where)

    def take(self, now: int, tracking_uri: str | None = None) -> History:
        """Take the lease under a new epoch and read everything, verifying every row on the way.

        `now` is milliseconds since the epoch. Another `tracking_uri` than before is told everything anew.
        Raises StoreDamaged.
        """
        with faults.point("lease.take"), self._transaction() as connection:
            self._name = self._database.study(connection)
            ours = lease_table.c.study == self._name
            self._hold.take(connection, self._name)
            values: Row = {"host": socket.gethostname(), "pid": os.getpid(), "taken": now}
            connection.execute(
                update(lease_table).where(ours).values(epoch=lease_table.c.epoch + 1, **values)
            )
            if tracking_uri is not None:
                moved = update(lease_table).where(ours & (lease_table.c.tracking_uri != tracking_uri))
                fresh = {"tracking_uri": tracking_uri, "outbox_offset": 0, "parent_run_id": None}
                connection.execute(moved.values(**fresh))
        with reading(self._database):
            history = read_history(self._connection, self._database)
            lsn = select(lease_table.c.lsn).where(ours)
            self.lsn = self._connection.execute(lsn).scalar_one()
        self._epoch = history.epoch
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
        try:
            self._hold.assure()
            self._write(rows, lsn)
        except _ConnectionLost:
            self._settle(rows, lsn)
        self.lsn = lsn

    def close(self) -> None:
        """Keep the outbox's progress, close the connection, and free the study for the next driver."""
        try:
            if self._epoch and not self._unknown:
                self.commit(())
        finally:
            self._abandon()

    def _abandon(self) -> None:
        try:
            self._connection.close()
            self._engine.dispose()
        finally:
            self._hold.release()

    def _write(self, rows: Sequence[tuple[Table, Row]], lsn: int, *, again: bool = False) -> None:
        """Write rows and move the counter to `lsn`, in one transaction.

        `again`: it was tried before and may have happened; then nothing is written twice.
        """
        with self._transaction(again) as connection:
            if again and self._is_there(connection, lsn):
                return
            self._guard(connection, lsn)
            for table, group in _grouped(rows):
                connection.execute(insert(table), group)

    def _settle(self, rows: Sequence[tuple[Table, Row]], lsn: int) -> None:
        """The connection was lost, and nobody knows whether the commit happened: read it back by its key.

        What is there stays, what is not is written once more. Raises StudyBusy, Interrupted.
        """
        self._unknown = True
        with suppress(DBAPIError):
            self._connection.close()
        self._connection = self._database.reconnect(self._engine)
        self._hold.assure()
        self._write(rows, lsn, again=True)
        self._unknown = False

    def _is_there(self, connection: Connection, lsn: int) -> bool:
        """Whether the counter is at `lsn` under our epoch, and so are the rows up to it.

        The row is locked: a session that the server has not given up yet is waited for.
        """
        mine = (lease_table.c.study == self._name) & (lease_table.c.epoch == self._epoch)
        found = connection.execute(
            select(lease_table.c.lsn).where(mine).with_for_update()
        ).scalar_one_or_none()
        return found == lsn and lsn > self.lsn

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
    def _transaction(self, again: bool = False) -> Iterator[Connection]:
        try:
            with faults.point("store.begin"):
                transaction = self._connection.begin()
            with transaction:
                yield self._connection
                with faults.point("store.commit"):
                    transaction.commit()
        except (DBAPIError, OSError) as error:
            if not again and self._database.is_lost(error):
                raise _ConnectionLost from error
            self._unknown = True
            raise self._database.unwritable(error) from error


class _ConnectionLost(Exception):
    """The connection went in a transaction, which may have happened or not."""


def _exists(study: Study, database: Database) -> UsageError:
    return UsageError(
        f"study {study.name!r} exists in {database.among}",
        hint="go on with `hpsearch resume`, or choose another --study NAME",
    )


def is_owned(where: Place) -> bool:
    """True while a driver owns the study."""
    return database_of(where).is_owned()


def _grouped(rows: Sequence[tuple[Table, Row]]) -> Iterator[tuple[Table, list[Row]]]:
    """Rows by table, parents first, so that one statement inserts many."""
    for table in FACT_TABLES:
        group = [row for t, row in rows if t is table]
        if group:
            yield table, group
