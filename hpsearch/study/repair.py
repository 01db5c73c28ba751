"""Repair of a SQLite store: what proves itself is kept, up to the first gap, and what goes is named.

The damaged files are first copied into the study's directory. Facts are only ever added and each proves
itself, so it does not matter in which version of the file one is found: the file with its log as SQLite reads
it, with every frame of the log whether it fits or not, and without the log. A fresh database is written from
them, read back, and put in the place of the old one.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hpsearch.errors import StoreDamaged, UsageError
from hpsearch.study import opening, witness
from hpsearch.study.health import Health, examine, spans
from hpsearch.study.history import StoreReader
from hpsearch.study.opening import DATABASE, LOG, TRIALS, UNFINISHED, strays
from hpsearch.study.salvage import Scan, scan
from hpsearch.study.schema import (
    FACT_TABLES,
    Row,
    check_version,
    known_table,
    lease_table,
    sealed,
    study_table,
)
from hpsearch.study.sqlite import FileLock, SqliteFile
from hpsearch.study.wal import resealed
from hpsearch.study.witness import Testimony

Fact = tuple[str, Row]


@dataclass(frozen=True, slots=True)
class Lost:
    """A fact that went, in words; `what` is None for a span, up to `until`, of which no copy was found."""

    lsn: int
    until: int
    what: str | None = None


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done: where the old files are (None: nothing was wrong), the last lsn kept, and what went."""

    kept: Path | None
    lsn: int
    lost: tuple[Lost, ...] = ()
    moved: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Findings:
    """The best of all versions: what is proven, and the lsns at which a commit is known to have ended."""

    study: Row
    lease: Row | None
    unproven_lease: Row | None
    known: list[Row]
    facts: dict[int, Fact]
    ends: set[int]
    epoch: int


def repair(directory: Path) -> Repair:
    """Make a store whole again.

    Raises StudyBusy while a driver owns it, StoreDamaged where the study's own row cannot be had back (then
    nothing was changed), UsageError (no store, another version, a foreign or network directory).
    """
    opening.check_place(directory)
    if not (directory / DATABASE).is_file() and witness.read(directory) is None:
        raise UsageError(f"no study {directory.name!r} in {directory.parent}")
    opening.check_owner(directory)
    lock = FileLock(directory)
    try:
        unfinished = sorted(directory.glob(f"repair-*{UNFINISHED}"))
        health = examine(directory)
        if health.whole and not unfinished:
            return Repair(None, health.lsn)
        return _mend(directory, health, unfinished)
    finally:
        lock.release()


def _mend(directory: Path, health: Health, unfinished: list[Path]) -> Repair:
    keep = _copied(directory)
    seen = witness.read(directory)
    try:
        found = _findings(_versions([keep, *unfinished], keep / "work"), directory)
    except StoreDamaged:
        shutil.rmtree(keep)
        raise
    last = _cut(found)
    lost = tuple(_lost(found, last, seen))
    lease, notes = _lease(found, last, seen, whole=not lost)
    _write(keep / "new", found, last, lease)
    _read_back(keep / "new")
    kept = {lsn: fact for lsn, fact in found.facts.items() if lsn <= last}
    moved = _moved(directory, keep, kept.values())
    _exchange(directory, keep, unfinished)
    witness.write(directory, Testimony(last, lease["epoch"], found.study["uid"]))
    _sync(directory)
    return Repair(keep.with_suffix(""), last, lost, tuple(moved), tuple(notes))


def _copied(directory: Path) -> Path:
    """Durable copies of the files as they are, in a new directory of the study."""
    used = [path.name.removesuffix(UNFINISHED) for path in directory.glob("repair-*")]
    number = 1 + max((int(name[7:]) for name in used if name[7:].isdecimal()), default=0)
    keep = directory / f"repair-{number}{UNFINISHED}"
    keep.mkdir(mode=0o700)
    for name in (DATABASE, LOG, witness.NAME):
        if (directory / name).is_file():
            _copy(directory / name, keep / name)
    _sync(keep)
    _sync(directory)
    return keep


def _versions(sources: Iterable[Path], work: Path) -> Iterator[Scan]:
    """What each version of the database holds, the most trusted first; each is read as a copy in `work`."""
    for source in sources:
        if not (source / DATABASE).is_file():
            continue
        log = (source / LOG).read_bytes() if (source / LOG).is_file() else b""
        for version in dict.fromkeys((log, _every_frame(source, log), b"")):
            work.mkdir(mode=0o700)
            try:
                _copy(source / DATABASE, work / DATABASE)
                (work / LOG).write_bytes(version)
                yield scan(work / DATABASE)
            finally:
                shutil.rmtree(work)


def _every_frame(source: Path, log: bytes) -> bytes:
    with (source / DATABASE).open("rb") as file:
        header = file.read(18)
    size = int.from_bytes(header[16:18], "big") if len(header) == 18 else 4096
    return resealed(log, 65536 if size == 1 else size) if len(log) > 32 else b""


def _findings(versions: Iterable[Scan], directory: Path) -> _Findings:
    found: _Findings | None = None
    for each in versions:
        if each.study is None:
            continue
        if found is None:
            found = _Findings(each.study, None, None, [], {}, set(), 0)
        if each.study != found.study:
            continue
        found.unproven_lease = found.unproven_lease or each.unproven_lease
        found.known = max(found.known, each.known, key=len)
        found.facts = each.facts | found.facts
        if each.lease:
            found.ends.add(each.lease["lsn"])
            found.lease = max(
                found.lease or each.lease, each.lease, key=lambda row: (row["epoch"], row["lsn"])
            )
    if found is None or len(found.known) != found.study["known"]:
        raise StoreDamaged(
            f"what study {directory.name!r} was started with cannot be read from any version of its store",
            hint="restore it from a backup; nothing was changed",
        )
    check_version(found.study["name"], found.study["schema_version"])
    epochs = (row.get("epoch", 0) for _, row in found.facts.values())
    found.epoch = max(found.lease["epoch"] if found.lease else 0, *epochs, 0)
    return found


def _cut(found: _Findings) -> int:
    """The last lsn to keep: before the first gap, and where no commit is torn in two."""
    last = 0
    while last + 1 in found.facts:
        last += 1
    if last in found.ends:
        return last
    while last and found.facts[last][0] == "trial":  # its first attempt is of the same commit
        last -= 1
    torn = _step(found, last)
    while torn and _step(found, last) == torn:  # there may have been more metrics of the same step
        last -= 1
    return last


def _step(found: _Findings, lsn: int) -> tuple[int, int] | None:
    """The trial and step that a fact measures, None if it is no measurement."""
    table, row = found.facts.get(lsn, ("", {}))
    return (row["trial"], row["step"]) if table == "measurement" else None


def _lost(found: _Findings, last: int, seen: Testimony | None) -> Iterator[Lost]:
    """All that was written after the last fact that is kept, as far as anything tells of it."""
    newest = max(last, *found.ends, *found.facts, seen.lsn if seen and seen.uid == found.study["uid"] else 0)
    there = [lsn for lsn in range(last + 1, newest + 1) if lsn in found.facts]
    gone = spans([lsn for lsn in range(last + 1, newest + 1) if lsn not in found.facts])
    told = [Lost(lsn, lsn, _words(*found.facts[lsn])) for lsn in there]
    yield from sorted([*told, *(Lost(first, until) for first, until in gone)], key=lambda each: each.lsn)


def _words(table: str, row: Row) -> str:
    """A fact in words."""
    match table:
        case "trial":
            return f"trial {row['number']} with its params {row['params']}"
        case "attempt":
            return f"attempt {row['number']} at trial {row['trial']}"
        case "measurement":
            return f"{row['metric']}={row['value']} at step {row['step']} of trial {row['trial']}"
        case "ending":
            return f"the ending of trial {row['trial']}: {row['state']} ({row['reason']})"
        case "checkpoint":
            return f"the checkpoint {row['name']} of trial {row['trial']}"
        case "study_ending":
            return f"the study's ending: {row['outcome']} ({row['reason']})"
        case _:
            return table if row.get("trial") is None else f"{table} of trial {row['trial']}"


def _lease(found: _Findings, last: int, seen: Testimony | None, *, whole: bool) -> tuple[Row, list[str]]:
    """The row of the lease anew; MLflow is told everything again unless nothing went."""
    notes = []
    old = found.lease or found.unproven_lease or {}
    proven = found.lease is not None
    if not proven:
        notes.append(
            f"the tracking address {old.get('tracking_uri')!r} is not proven: see it on the next resume"
        )
    lease = {
        "study": found.study["name"],
        "epoch": max(found.epoch, seen.epoch if seen else 0),
        "lsn": last,
        "outbox_offset": min(last, old["outbox_offset"]) if whole and proven else 0,
        "tracking_uri": str(old.get("tracking_uri", "")),
        "parent_run_id": old.get("parent_run_id") if proven else None,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "taken": 0,
    }
    return sealed(lease), notes


def _write(directory: Path, found: _Findings, last: int, lease: Row) -> None:
    """A fresh database with what is kept, moved out of its log at the close."""
    directory.mkdir(mode=0o700)
    database = SqliteFile(directory)
    engine = database.engine()
    try:
        with engine.begin() as connection:
            database.create_tables(connection)
            connection.execute(study_table.insert(), [found.study])
            connection.execute(lease_table.insert(), [lease])
            if found.known:
                connection.execute(known_table.insert(), found.known)
            facts = [found.facts[lsn] for lsn in range(1, last + 1)]
            for table in FACT_TABLES:
                rows = [row for name, row in facts if name == table.name]
                if rows:
                    connection.execute(table.insert(), rows)
    finally:
        engine.dispose()


def _read_back(directory: Path) -> None:
    reader = StoreReader(directory)
    try:
        reader.history()
    finally:
        reader.close()


def _moved(directory: Path, keep: Path, facts: Iterable[Fact]) -> list[str]:
    """Put the directories of trials that went beside the old files: their numbers are given out again."""
    found = strays(directory, {row["number"] for table, row in facts if table == "trial"})
    for path in found:
        (keep / TRIALS).mkdir(mode=0o700, exist_ok=True)
        path.rename(keep / TRIALS / path.name)
    return [f"{TRIALS}/{path.name}" for path in found]


def _exchange(directory: Path, keep: Path, unfinished: Iterable[Path]) -> None:
    """Put the new database in the place of the old one; the old log must go before, or it would be replayed.

    Between the two there is a database without its log, which no driver opens while a repair is unfinished;
    the next repair goes on from the copies.
    """
    for name in (LOG, f"{DATABASE}-shm"):
        (directory / name).unlink(missing_ok=True)
    (keep / "new" / DATABASE).replace(directory / DATABASE)
    shutil.rmtree(keep / "new")
    _sync(directory)
    for each in (*unfinished, keep):
        each.rename(each.with_suffix(""))


def _copy(source: Path, target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with source.open("rb") as old, os.fdopen(descriptor, "wb") as new:
        shutil.copyfileobj(old, new, 1 << 20)
        new.flush()
        os.fsync(new.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
