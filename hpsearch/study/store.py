"""The writing side of the store: the one durable truth about a study, one writer, one lease.

Part of the SQLAlchemy door: hides SQL, transactions and locks.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace

from sqlalchemy import Connection, Table, bindparam, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError

from hpsearch import faults
from hpsearch.errors import Interrupted, StoreFull, StudyBusy, UsageError
from hpsearch.study.database import Database
from hpsearch.study.history import (
    History,
    Place,
    StoreReader,
    database_of,
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
    rows_of,
    sealed,
    storable,
    study_table,
)
from hpsearch.study.sqlite import SqliteFile, unwritable
from hpsearch.study.trial import Entry, Known, Study
from hpsearch.study.witness import Testimony

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

    def __init__(self, where: Place) -> None:
        self._database = database_of(where)
        self.directory = self._database.directory
        self.progress: Callable[[], tuple[int, str | None]] | None = None
        self._epoch = 0
        self._unknown = False  # whether a commit raised: it may have happened all the same
        self.lsn = 0
        self._name, self._uid = self.directory.name, ""
        self._lease: Row = {}
        self._hold = self._database.claim()
        try:
            self._engine = self._database.engine()
            self._connection = self._engine.connect()
        except (DBAPIError, OSError) as error:
            self._hold.release()
            raise self._database.unwritable(error) from error
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
            if study.directory.is_symlink():
                raise UsageError(
                    f"{study.directory} is a link, and is not followed", hint="choose another --study NAME"
                )
        except OSError as error:
            raise unwritable(study.directory, error) from error
        if database.holds_study():
            raise _exists(study, database)
        store = cls(database)
        try:
            with store._connection.begin():
                store._found(study, tracking_uri, known)
        except BaseException as error:
            store._abandon()
            if isinstance(error, IntegrityError):  # somebody was quicker
                raise _exists(study, database) from error
            if isinstance(error, DBAPIError):
                raise database.unwritable(error) from error
            raise
        store._settle_birth(study.uid)
        return store

    @classmethod
    def open(cls, where: Place) -> Store:
        """The store of an existing study, owned by this process from now on.

        Raises UsageError (no such study), StudyBusy (another driver owns it), StoreDamaged.
        """
        require_study(where)
        return cls(where)

    def take(self, now: int, tracking_uri: str | None = None) -> History:
        """Read everything, verifying every row on the way, and take the lease under a new epoch.

        `now` is milliseconds since the epoch. Another `tracking_uri` than before is told everything anew.
        Raises StoreDamaged, and then nothing was written.
        """
        with faults.point("lease.take"), self._transaction() as connection:
            self._name = self._database.study(connection)
            self._hold.take(connection, self._name)
            with reading(self._database):
                history = read_history(connection, self._database)
            ours = lease_table.c.study == self._name
            lease = dict(connection.execute(select(lease_table).where(ours)).mappings().one())
            lease |= {"epoch": history.epoch + 1, "pid": os.getpid(), "taken": now}
            lease |= {"host": socket.gethostname()}
            if tracking_uri not in (None, history.tracking_uri):
                lease |= {"tracking_uri": tracking_uri, "outbox_offset": 0, "parent_run_id": None}
            self._lease = sealed(lease)
            connection.execute(update(lease_table).where(ours).values(self._lease))
        self._epoch, self.lsn, self._uid = lease["epoch"], lease["lsn"], history.study.uid
        self._acknowledge()
        return replace(
            history,
            epoch=self._epoch,
            ending=None,
            tracking_uri=lease["tracking_uri"],
            offset=lease["outbox_offset"],
            parent_run_id=lease["parent_run_id"],
        )

    def commit(self, entries: Sequence[Entry]) -> None:
        """Commit facts in one transaction; they are durable when this returns.

        Raises StudyBusy if the lease was lost; StoreFull where there is no room: nothing was written, and it
        may be tried again; Interrupted if the database refuses otherwise: then the commit is unknown rather
        than undone, and the next start reads what is there.
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
        except StoreFull:
            if not self._was_written(lsn):
                raise
        except _ConnectionLost:
            self._settle(rows, lsn)
        self.lsn = lsn
        self._acknowledge()

    def _settle_birth(self, uid: str) -> None:
        with suppress(DBAPIError):  # a full disk: it is durable all the same
            self._database.settle(self._connection)
        self._hold.acknowledge(Testimony(0, 0, uid))

    def _acknowledge(self) -> None:
        self._hold.acknowledge(Testimony(self.lsn, self._epoch, self._uid))

    def reader(self) -> StoreReader:
        """The reading side of the same store, for another thread."""
        return StoreReader(self._database)

    def close(self) -> None:
        """Keep the outbox's progress, close the connection, and free the study for the next driver."""
        try:
            if self._epoch and not self._unknown:
                # What MLflow was told since is told again without harm.
                with suppress(StoreFull):
                    self.commit(())
        finally:
            self._abandon()

    def _found(self, study: Study, tracking_uri: str, known: Sequence[Known]) -> None:
        """Write what a study is born with, all tables included."""
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
            "tags": json.dumps(dict(study.tags)),
            "storage": study.storage,
            "known": len(known),
        }
        row = storable(row)
        row["checksum"] = checksum(row)
        lease = {"study": study.name, "epoch": 0, "lsn": 0, "outbox_offset": 0, "taken": 0}
        lease |= {"host": socket.gethostname(), "pid": os.getpid(), "tracking_uri": tracking_uri}
        self._database.create_tables(self._connection)
        self._connection.execute(insert(study_table), row)
        self._connection.execute(insert(lease_table), sealed(lease))
        if known:
            self._connection.execute(insert(known_table), [known_row(study.name, each) for each in known])
        self._hold.take(self._connection, study.name)

    def _abandon(self) -> None:
        try:
            # Whose epoch we never took may be damaged, and SQLite moves its log at the last close.
            with nullcontext() if self._epoch else self._database.untouched():
                self._connection.close()
                self._engine.dispose()
        finally:
            self._hold.release()

    def _write(self, rows: Sequence[tuple[Table, Row]], lsn: int, *, again: bool = False) -> None:
        """Write rows and move the counter to `lsn`, in one transaction.

        `again`: it was tried before and may have happened; then nothing is written twice.
        """
        with self._transaction(final=again) as connection:
            if again and self._is_there(connection, lsn):
                return
            self._guard(connection, lsn)
            for table, group in _grouped(rows):
                connection.execute(_INSERT[table], group)

    def _settle(self, rows: Sequence[tuple[Table, Row]], lsn: int) -> None:
        """The connection was lost, and nobody knows whether the commit happened: read it back by its key.

        What is there stays, what is not is written once more. Raises StudyBusy, Interrupted.
        """
        self._unknown = True
        with suppress(DBAPIError, InvalidRequestError):
            self._connection.invalidate()
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

    def _undo(self) -> None:
        """End a transaction whose COMMIT failed: SQLite leaves it open where it had no room for it."""
        with suppress(DBAPIError):
            self._connection.rollback()
            self._connection.connection.rollback()

    def _was_written(self, lsn: int) -> bool:
        """Whether a write that was refused for want of room is there all the same; only reading tells."""
        try:
            with self._connection.begin():
                return self._is_there(self._connection, lsn)
        except DBAPIError as error:
            self._unknown = True
            raise self._database.unwritable(error) from error

    def _guard(self, connection: Connection, lsn: int) -> None:
        """Move the counter under our epoch; a lost lease hits no row and so writes nothing."""
        if self.progress:
            self._lease["outbox_offset"], self._lease["parent_run_id"] = self.progress()
        self._lease = sealed(self._lease | {"lsn": lsn})
        names = ("lsn", "outbox_offset", "parent_run_id", "checksum")
        values = {name: self._lease[name] for name in names}
        mine = {"ours": self._name, "our_epoch": self._epoch, "our_lsn": self.lsn}
        if connection.execute(_GUARD, values | mine).rowcount != 1:
            raise StudyBusy(f"study {self._name!r} was taken over by another driver; nothing was written")

    @contextmanager
    def _transaction(self, *, final: bool = True) -> Iterator[Connection]:
        """A transaction; unless `final`, the loss of its connection is left to the caller."""
        try:
            with faults.point("store.begin"):
                transaction = self._connection.begin()
            with transaction:
                yield self._connection
                with faults.point("store.commit"):
                    transaction.commit()
        except (DBAPIError, OSError) as error:
            if not final and self._database.is_lost(error):
                raise _ConnectionLost from error
            self._undo()
            told = self._database.unwritable(error)
            self._unknown = not isinstance(told, StoreFull)
            raise told from error
        except MemoryError:
            # Wherever that was in it: nothing may be written after what may have happened.
            self._unknown = True
            raise


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
