"""The reading side of the store: a study's facts, read in order and folded.

Part of the SQLAlchemy door: every row is proven by its checksum as it is read, and none may be missing.
"""

from __future__ import annotations

import functools
import gc
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from sqlalchemy import Connection, Table, bindparam, select, text
from sqlalchemy.exc import SQLAlchemyError

from hpsearch.errors import StoreDamaged, UsageError
from hpsearch.spec.reading import parse
from hpsearch.study import measured
from hpsearch.study.database import Database
from hpsearch.study.schema import (
    FACT_TABLES,
    Row,
    check_version,
    fact_of,
    known_of,
    known_table,
    lease_table,
    measurement_table,
    study_table,
    trial_table,
    verify,
)
from hpsearch.study.sqlite import SqliteFile
from hpsearch.study.trial import (
    Attempt,
    Change,
    Checkpoint,
    Ending,
    Known,
    Measurement,
    Resumption,
    Revision,
    Study,
    StudyEnding,
    Trial,
)
from hpsearch.study.witness import compare

Place = Path | Database
PORTION = 5_000  # rows

# A text is a Spec for ever, and a driver reads its study more than once.
_parse = functools.lru_cache(maxsize=8)(parse)

# All at once, in order; there are far more of these than of all others.
_SEVERAL = tuple(table for table in FACT_TABLES if table is not measurement_table)
_MEASURED = (
    select(*(measurement_table.c[name] for name in measured.COLUMNS))
    .where(measurement_table.c.study == bindparam("ours"), measurement_table.c.lsn <= bindparam("until"))
    .order_by(measurement_table.c.lsn)
)
# Built once: the outbox asks every few seconds.
_NEWS = {
    table: select(table).where(
        table.c.study == bindparam("ours"),
        table.c.lsn > bindparam("after"),
        table.c.lsn <= bindparam("until"),
    )
    for table in FACT_TABLES
}


@dataclass(frozen=True, slots=True)
class History:
    """All that the store knows of a study, folded: trials by number, and what the sampler kept for each.

    `ending` is that of the last driver, None while one works or after one was killed; `last_ending` the last
    one there is, unless a later file asks for something else. `known` are the trials of an earlier study that
    it went on from, `revisions` what the study went by, the last one being what it goes by now. `ended` are
    the numbers of the trials that ended, in the order of their endings.
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
    ended: tuple[int, ...] = ()
    revisions: tuple[Revision, ...] = ()


class StoreReader:
    """The reading side, for the outbox and the commands: read-only, in short transactions."""

    def __init__(self, where: Place) -> None:
        require_study(where)
        self._database = database_of(where)
        self._engine = self._database.engine(read_only=True)

    def history(self) -> History:
        """Everything the store knows, every row verified. Raises StoreDamaged, ServiceUnavailable."""
        with reading(self._database), self._engine.connect() as connection:
            return read_history(connection, self._database)

    def tags(self) -> Mapping[str, str]:
        """What the study's runs say beside; read without its facts, and much faster."""
        with reading(self._database), self._engine.connect() as connection:
            row = _study_row(connection, self._database.study(connection))
            tags: Mapping[str, str] = json.loads(row["tags"])
            return tags

    def driver(self) -> tuple[str, int]:
        """The host and the pid of who took the study last, whether that still runs or not."""
        with reading(self._database), self._engine.connect() as connection:
            ours = lease_table.c.study == self._database.study(connection)
            asked = select(lease_table.c.host, lease_table.c.pid).where(ours)
            host, pid = connection.execute(asked).one()
            return str(host), int(pid)

    def changes(self, after: int, limit: int) -> Sequence[Change]:
        """The committed facts with after < lsn <= after + limit, in that order."""
        with reading(self._database), self._engine.connect() as connection:
            study = self._database.study(connection)
            ours = lease_table.c.study == study
            if connection.execute(select(lease_table.c.lsn).where(ours)).scalar_one() <= after:
                return ()
            return [change for change, _ in _changes(connection, study, after, after + limit)]

    def close(self) -> None:
        """Give the files back."""
        self._engine.dispose()


def holds_study(where: Place) -> bool:
    """Whether there is a study: a directory with the file of its store, or a place in another database."""
    return database_of(where).holds_study()


def require_study(where: Place) -> None:
    """Raise UsageError if there is no study."""
    database = database_of(where)
    if not database.holds_study():
        raise UsageError(
            f"no study {database.directory.name!r} in {database.among}",
            hint="`hpsearch list` names the studies here",
        )


def database_of(where: Place) -> Database:
    """The database that a place means; a directory is that of a SQLite file."""
    return SqliteFile(where) if isinstance(where, Path) else where


@contextmanager
def reading(database: Database) -> Iterator[None]:
    """What the database says while reading is told as what it means: damage, or a server that is away."""
    try:
        yield
    # A driver's own words may quote bytes that are no text any more.
    except (SQLAlchemyError, UnicodeDecodeError) as error:
        raise database.unreadable(error) from error


def _changes(
    connection: Connection, study: str, after: int, until: int, tables: Sequence[Table] = FACT_TABLES
) -> list[tuple[Change, Row]]:
    found: list[tuple[Change, Row]] = []
    within = {"ours": study, "after": after, "until": until}
    for table in tables:
        for record in connection.execute(_NEWS[table], within).mappings():
            row = dict(record)
            verify(table, row)
            trial = row["number"] if table is trial_table else row.get("trial")
            found.append((Change(row["lsn"], trial, fact_of(table, row)), row))
    found.sort(key=lambda pair: pair[0].lsn)
    return found


@contextmanager
def _no_collections() -> Iterator[None]:
    """Millions of objects are made, none of them in a cycle: looking for those would double the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def read_history(connection: Connection, database: Database) -> History:
    """Fold all facts, checking that none is missing: the counter has no gaps."""
    seen = database.testimony()  # asked first: what is acknowledged meanwhile is in what is read
    database.prove_tables(connection)
    row = _study_row(connection, database.study(connection))
    ours = lease_table.c.study == row["name"]
    lease = dict(connection.execute(select(lease_table).where(ours)).mappings().one())
    verify(lease_table, lease)
    if seen:
        compare(seen, row["uid"], lease["lsn"])
    with _no_collections():
        changes = _changes(connection, row["name"], 0, lease["lsn"], _SEVERAL)
        trials = {change.fact.number: change.fact for change, _ in changes if isinstance(change.fact, Trial)}
        records = connection.execute(_MEASURED, {"ours": row["name"], "until": lease["lsn"]})
        lsns = measured.fold(row["name"], chain.from_iterable(records.partitions(PORTION)), trials)
    lsns += [change.lsn for change, _ in changes]
    lsns.sort()
    if lsns != list(range(1, lease["lsn"] + 1)):
        raise StoreDamaged(
            f"the store of study {row['name']!r} has {len(lsns)} facts where {lease['lsn']} were written",
            hint="restore the study directory from a backup; nothing was overwritten",
        )
    attributes: dict[int, Mapping[str, object]] = {}
    ending: StudyEnding | None = None
    last_ending: StudyEnding | None = None
    revisions: list[Revision] = []
    for change, fields in changes:
        if isinstance(change.fact, Trial):
            attributes[change.fact.number] = json.loads(fields["sampler"])
        if isinstance(change.fact, StudyEnding):
            last_ending = change.fact
            ending = change.fact if fields["epoch"] == lease["epoch"] else None
        elif isinstance(change.fact, Revision):
            revisions.append(change.fact)
            last_ending = None if change.fact.edits else last_ending
        else:
            apply(trials, change)
    return History(
        study=_study(row, database.directory, revisions),
        tracking_uri=lease["tracking_uri"],
        trials=[trials[number] for number in sorted(trials)],
        attributes=attributes,
        ending=ending,
        epoch=lease["epoch"],
        offset=lease["outbox_offset"],
        parent_run_id=lease["parent_run_id"],
        known=_known(connection, row),
        last_ending=last_ending,
        ended=tuple(
            change.trial
            for change, _ in changes
            if isinstance(change.fact, Ending) and change.trial is not None
        ),
        revisions=tuple(revisions),
    )


def _known(connection: Connection, study: Row) -> tuple[Known, ...]:
    found: list[Known] = []
    ours = select(known_table).where(known_table.c.study == study["name"])
    for record in connection.execute(ours.order_by(known_table.c.number)).mappings():
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


def _study_row(connection: Connection, name: str) -> Row:
    # Whatever columns another version has: the proof is over all there are.
    asked = select(text("*")).select_from(study_table).where(study_table.c.name == name)
    row = dict(connection.execute(asked).mappings().one())
    verify(study_table, row)
    check_version(row["name"], row["schema_version"])
    return row


def _study(row: Row, directory: Path, revisions: Sequence[Revision]) -> Study:
    """The study as it was created, but for its file, which is the last one that it was given."""
    files = [(row["spec_text"], row["spec_source"]), *((r.text, r.source) for r in revisions if r.text)]
    reading = _parse(*files[-1])
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
        tags=json.loads(row["tags"]),
        storage=row["storage"],
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
        case Resumption():
            trial.attempts = [
                replace(each, resumed_from=fact.step or None) if each.number == fact.attempt else each
                for each in trial.attempts
            ]
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
