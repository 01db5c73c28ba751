"""The reading side of the store: a study's database opened with its settings, and its facts folded.

Part of the SQLAlchemy door: every row is proven by its checksum as it is read, and none may be missing.
"""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, inspect, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool, StaticPool

from hpsearch.errors import StoreDamaged, UsageError
from hpsearch.spec.reading import parse
from hpsearch.study.schema import (
    FACT_TABLES,
    SCHEMA_VERSION,
    Row,
    fact_of,
    known_of,
    known_table,
    lease_table,
    study_table,
    trial_table,
    verify,
)
from hpsearch.study.trial import (
    Attempt,
    Change,
    Checkpoint,
    Ending,
    Known,
    Measurement,
    Study,
    StudyEnding,
    Trial,
)

DATABASE = "study.db"

# A text is a Spec for ever, and a driver reads its study more than once.
_parse = functools.lru_cache(maxsize=8)(parse)


@dataclass(frozen=True, slots=True)
class History:
    """All that the store knows of a study, folded: trials by number, and what the sampler kept for each.

    `ending` is that of the last driver, None while one works or after one was killed; `last_ending` the last
    one there is. `known` are the trials of an earlier study that it went on from.
    """

    study: Study
    tracking_uri: str
    trials: list[Trial]
    attributes: dict[int, Mapping[str, object]]
    ending: StudyEnding | None
    epoch: int
    offset: int
    parent_run_id: str | None
    known: tuple[Known, ...] = ()
    last_ending: StudyEnding | None = None


class StoreReader:
    """The reading side, for the outbox and the commands: read-only, in short transactions."""

    def __init__(self, directory: Path) -> None:
        require_study(directory)
        self.directory = directory
        self._engine = open_database(directory / DATABASE, read_only=True)

    def history(self) -> History:
        """Everything the store knows, every row verified. Raises StoreDamaged."""
        with reading(self.directory), self._engine.connect() as connection:
            return read_history(connection, self.directory)

    def changes(self, after: int, limit: int) -> Sequence[Change]:
        """The committed facts with after < lsn <= after + limit, in that order."""
        with reading(self.directory), self._engine.connect() as connection:
            study, lsn = connection.execute(select(lease_table.c.study, lease_table.c.lsn)).one()
            if lsn <= after:
                return ()
            return [change for change, _ in _changes(connection, study, after, after + limit)]

    def close(self) -> None:
        """Give the files back."""
        self._engine.dispose()


def holds_study(directory: Path) -> bool:
    """True if the directory holds a study; a database that a crash left without tables is none."""
    path = directory / DATABASE
    if not path.is_file():
        return False
    engine = open_database(path, read_only=True)
    try:
        with engine.connect() as connection:
            return inspect(connection).has_table(study_table.name)
    except DBAPIError as error:
        raise StoreDamaged(f"{path} cannot be read: {error.orig}", hint="restore it from a backup") from error
    finally:
        engine.dispose()


def require_study(directory: Path) -> None:
    if not holds_study(directory):
        raise UsageError(
            f"no study {directory.name!r} in {directory.parent}",
            hint="`hpsearch list` names the studies here",
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


@contextmanager
def reading(directory: Path) -> Iterator[None]:
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


def read_history(connection: Connection, directory: Path) -> History:
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
    last_ending: StudyEnding | None = None
    for change, fields in changes:
        if isinstance(change.fact, Trial):
            attributes[change.fact.number] = json.loads(fields["sampler"])
        if isinstance(change.fact, StudyEnding):
            last_ending = change.fact
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
        known=_known(connection, row),
        last_ending=last_ending,
    )


def _known(connection: Connection, study: Row) -> tuple[Known, ...]:
    found: list[Known] = []
    for record in connection.execute(select(known_table).order_by(known_table.c.number)).mappings():
        row = dict(record)
        verify(known_table, row)
        found.append(known_of(row))
    if len(found) != study["known"]:
        raise StoreDamaged(
            f"the store of study {study['name']!r} knows {len(found)} earlier trials "
            f"where {study['known']} were written",
            hint="restore the study directory from a backup; nothing was overwritten",
        )
    return tuple(found)


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
    reading = _parse(row["spec_text"], row["spec_source"])
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
        started_in=row["started_in"],
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
