"""A lease with an end, for a database that drivers on several hosts can reach.

Part of the SQLAlchemy door. The server's clock alone says whether a lease has ended. A thread renews it on a
connection of its own, because the loop, which has the writing one, may wait for Ray or do nothing for long;
the thread touches nothing but the moment of the end, and only while the lease is ours. The holder counts by
its own steady clock, from before it asked, and writes nothing near the end without a renewal that succeeded.
What makes a write of a former holder impossible is not time, though, but the epoch in every transaction.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Engine,
    Interval,
    MetaData,
    Table,
    Text,
    cast,
    extract,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, OperationalError

from hpsearch import faults
from hpsearch.errors import Interrupted, StudyBusy
from hpsearch.redaction import redact
from hpsearch.study import owner
from hpsearch.study.schema import Row, lease_table
from hpsearch.study.witness import Testimony

LEASE = 30.0  # seconds
# What the holder's clock may differ from the server's over a lease, and a write may take to get there.
MARGIN = 0.2  # of the lease
RENEWALS = 3  # within a lease
READING = 300  # seconds that a statement, or the reading of all facts, may take

tenure_metadata = MetaData()
tenure_table = Table(
    "tenure",
    tenure_metadata,
    Column("study", Text, primary_key=True),
    Column("holder", Text, nullable=False),  # drawn anew by each driver
    Column("process", Text, nullable=False),
    Column("expires", DateTime(timezone=True), nullable=False),
)

Answer = TypeVar("Answer")
Clock = Callable[[], float]
_log = logging.getLogger(__name__)


def steady() -> float:
    """Seconds on a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Tenure:
    """The lease of one study as this process holds it, or wants to; `duration` is in seconds."""

    def __init__(self, engine: Engine, study: str, duration: float = LEASE, clock: Clock = steady) -> None:
        self._engine = engine
        self._study = study
        self._duration = duration
        self._clock = clock
        self._holder = uuid.uuid4().hex
        self._until = clock()
        self._lost: StudyBusy | None = None
        self._done = threading.Event()
        self._turn = threading.Lock()
        self._keeper = threading.Thread(target=self._keep, name=f"lease-{study}", daemon=True)

    def look(self, connection: Connection) -> None:
        """Raise StudyBusy if another driver has the study; takes nothing."""
        owned = self._owner(connection)
        if owned:
            self._refuse(connection, owned)

    def take(self, connection: Connection, study: str) -> None:
        """Own the study, in the transaction that moves its epoch. Raises StudyBusy."""
        # Everybody who writes or takes locks this row first, so that what is read next stays so.
        mine = lease_table.c.study == study
        connection.execute(select(lease_table.c.epoch).where(mine).with_for_update())
        if owned := self._owner(connection, lock=True):
            self._refuse(connection, owned)
        asked = self._clock()
        fresh = {"holder": self._holder, "process": owner.identity(), "expires": self._end()}
        statement = insert(tenure_table).values(study=study, **fresh)
        connection.execute(statement.on_conflict_do_update(index_elements=["study"], set_=fresh))
        # All facts are read in this transaction, which takes its time where there are many.
        connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{READING}s'")
        self._until = asked + self._duration * (1 - MARGIN)

    def acknowledge(self, testimony: Testimony) -> None:
        """The transaction that took it is there for others to see: from now on it is renewed."""
        if self._keeper.ident is None:
            self._keeper.start()

    def assure(self) -> None:
        """Make sure that the lease has not ended, renewing it if need be. Raises StudyBusy, Interrupted."""
        if self._lost:
            raise self._lost
        if self._clock() >= self._until:
            patiently(self.renew, self._duration)

    def renew(self) -> None:
        """Move the end of the lease, if it is still ours, be it over or not. Raises StudyBusy."""
        with self._turn:
            if self._done.is_set():
                return
            asked = self._clock()
            with faults.point("lease.renew"), self._engine.begin() as connection:
                moved = connection.execute(
                    update(tenure_table).where(self._mine()).values(expires=self._end())
                ).rowcount
            if not moved:
                self._lost = StudyBusy(
                    f"study {self._study!r} was taken over by another driver; nothing was written"
                )
                raise self._lost
            self._until = asked + self._duration * (1 - MARGIN)

    def release(self) -> None:
        """End the lease now, if it is ours; where the server is away, it ends by itself."""
        self._done.set()
        with self._turn:
            if self._keeper.ident is not None and not self._lost:
                try:
                    with self._engine.begin() as connection:
                        ended = update(tenure_table).values(expires=func.clock_timestamp())
                        connection.execute(ended.where(self._mine()))
                except DBAPIError as error:
                    _log.warning("the lease of %s ends by itself: %s", self._study, first_line(error))
        self._engine.dispose()

    def _keep(self) -> None:
        pause, well = self._duration / RENEWALS, True
        while not self._done.wait(pause):
            try:
                self.renew()
                pause, well = self._duration / RENEWALS, True
            except StudyBusy:
                return
            except (DBAPIError, OSError) as error:
                if well:  # once, however long the server is away
                    _log.warning("the lease of %s could not be renewed: %s", self._study, first_line(error))
                well = False
                pause = self._duration / RENEWALS / 4

    def _owner(self, connection: Connection, *, lock: bool = False) -> Row | None:
        """The row of another driver whose lease has not ended, unless that process is gone for sure."""
        left = extract("epoch", tenure_table.c.expires - func.clock_timestamp()).label("left")
        asked = select(tenure_table, left).where(tenure_table.c.study == self._study)
        row = connection.execute(asked.with_for_update() if lock else asked).mappings().one_or_none()
        if row is None or row["holder"] == self._holder or row["left"] <= 0:
            return None
        return None if owner.is_gone(row["process"]) else dict(row)

    def _refuse(self, connection: Connection, row: Row) -> None:
        who = select(lease_table.c.pid, lease_table.c.host).where(lease_table.c.study == self._study)
        pid, host = connection.execute(who).one()
        raise StudyBusy(
            f"study {self._study!r} is being run by process {pid} on {host}, "
            f"whose lease ends in {row['left']:.1f} s unless it is renewed",
            hint="wait for it, or stop that process; if it is gone, try again when the lease has ended",
        )

    def _mine(self) -> Any:
        return (tenure_table.c.study == self._study) & (tenure_table.c.holder == self._holder)

    def _end(self) -> Any:
        return func.clock_timestamp() + cast(literal(f"{self._duration} seconds"), Interval)


def is_owned(connection: Connection, study: str) -> bool:
    """Whether a driver has the study: its lease has not ended, and it is not gone for sure."""
    current = (tenure_table.c.study == study) & (tenure_table.c.expires > func.clock_timestamp())
    process = connection.execute(select(tenure_table.c.process).where(current)).scalar_one_or_none()
    return process is not None and not owner.is_gone(process)


def patiently(action: Callable[[], Answer], patience: float) -> Answer:
    """Do what needs the server, again and again for so many seconds. Raises Interrupted at their end."""
    deadline, pause = time.monotonic() + patience, 0.05
    while True:
        try:
            return action()
        except (OperationalError, OSError) as error:
            if time.monotonic() + pause > deadline:
                raise Interrupted(
                    f"the database could not be reached for {patience:g} s: {first_line(error)}",
                    hint="resume when it is there again: nothing committed is lost",
                ) from error
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


def first_line(error: Exception) -> str:
    """What a database said, on one line and without secrets; never the statement with its values."""
    text = str(getattr(error, "orig", None) or error).strip()
    return redact(" ".join(text.split()))[:400]
