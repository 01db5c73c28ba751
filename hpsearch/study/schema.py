"""The tables of the store, and how facts become rows and rows facts; every row carries its own proof."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, Column, Float, ForeignKeyConstraint, Index, Integer, MetaData, Table, Text

from hpsearch.errors import StoreDamaged, UsageError
from hpsearch.study.trial import (
    Attempt,
    Cause,
    Checkpoint,
    Ending,
    Entry,
    Fact,
    Known,
    Measurement,
    Outcome,
    Resumption,
    Revision,
    State,
    StudyEnding,
    Trial,
)

SCHEMA_VERSION = 6

Row = dict[str, Any]

# Damage can make bytes of a text: such a row has another proof, and that is all.
compact = json.JSONEncoder(separators=(",", ":"), default=repr).encode

metadata = MetaData()

study_table = Table(
    "study",
    metadata,
    Column("name", Text, primary_key=True),
    Column("uid", Text, nullable=False, unique=True),
    Column("created", BigInteger, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("spec_source", Text, nullable=False),
    Column("spec_text", Text, nullable=False),
    Column("git_sha", Text),
    Column("versions", Text, nullable=False),
    Column("started_in", Text, nullable=False),
    Column("tags", Text, nullable=False),
    Column("storage", Text, nullable=False),
    Column("known", Integer, nullable=False),  # how many rows the table of that name has
    Column("checksum", Text, nullable=False),
)

# The only row that changes: who may write, the last lsn given out, and how far MLflow has been fed.
lease_table = Table(
    "lease",
    metadata,
    Column("study", Text, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("taken", BigInteger, nullable=False),
    Column("lsn", BigInteger, nullable=False),
    Column("outbox_offset", BigInteger, nullable=False),
    Column("tracking_uri", Text, nullable=False),
    Column("parent_run_id", Text),
    Column("checksum", Text, nullable=False),  # over LEASED
    ForeignKeyConstraint(["study"], ["study.name"]),
)
# What of the lease a study depends on; who holds it, and since when, is for people.
LEASED = ("study", "epoch", "lsn", "outbox_offset", "tracking_uri", "parent_run_id")

# Ended trials of an earlier study that this one knows from its start: written once, with the study's row.
known_table = Table(
    "known",
    metadata,
    Column("study", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("uid", Text, nullable=False),
    Column("params", Text, nullable=False),
    Column("sampler", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("attempts", Text, nullable=False),
    Column("measurements", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("ended", BigInteger, nullable=False),
    Column("checksum", Text, nullable=False),
    ForeignKeyConstraint(["study"], ["study.name"]),
)


def _fact_table(name: str, key: tuple[str, ...], *columns: Column[Any]) -> Table:
    """A table of facts: its own columns, then the counter and the proof that each row carries."""
    for column in columns:
        column.primary_key = column.name in key
    parent = ["study", "trial"] if any(column.name == "trial" for column in columns) else ["study"]
    target = ["study.name"] if parent == ["study"] else ["trial.study", "trial.number"]
    return Table(
        name,
        metadata,
        Column("study", Text, primary_key=True),
        *columns,
        Column("lsn", BigInteger, nullable=False),
        Column("checksum", Text, nullable=False),
        ForeignKeyConstraint(parent, target),
        Index(f"{name}_lsn", "study", "lsn", unique=True),
    )


trial_table = _fact_table(
    "trial",
    ("number",),
    Column("number", Integer),
    Column("uid", Text, nullable=False),
    Column("params", Text, nullable=False),
    Column("sampler", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
)
attempt_table = _fact_table(
    "attempt",
    ("trial", "number"),
    Column("trial", Integer),
    Column("number", Integer),
    Column("started", BigInteger, nullable=False),
    Column("resumed_from", BigInteger),
    Column("cause", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
)
resumption_table = _fact_table(
    "resumption",
    ("trial", "attempt"),
    Column("trial", Integer),
    Column("attempt", Integer),
    Column("step", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
)
measurement_table = _fact_table(
    "measurement",
    ("trial", "step", "metric"),
    Column("trial", Integer),
    Column("step", BigInteger),
    Column("metric", Text),
    Column("value", Float(53)),  # NULL is NaN: SQLite cannot hold one
    Column("time", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
)
checkpoint_table = _fact_table(
    "checkpoint",
    ("trial", "step", "attempt"),
    Column("trial", Integer),
    Column("step", BigInteger),
    Column("attempt", Integer),
    Column("name", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
)
ending_table = _fact_table(
    "ending",
    ("trial",),
    Column("trial", Integer),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("time", BigInteger, nullable=False),
)
study_ending_table = _fact_table(
    "study_ending",
    ("epoch",),
    Column("epoch", Integer),
    Column("outcome", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("time", BigInteger, nullable=False),
)
revision_table = _fact_table(
    "revision",
    ("number",),
    Column("number", Integer),
    Column("time", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("spec_source", Text, nullable=False),
    Column("spec_text", Text),  # NULL: the one before
    Column("edits", Text, nullable=False),
    Column("git_sha", Text),
    Column("code", Text, nullable=False),
    Column("versions", Text, nullable=False),
)

FACT_TABLES = (
    trial_table,
    attempt_table,
    resumption_table,
    measurement_table,
    checkpoint_table,
    ending_table,
    study_ending_table,
    revision_table,
)


def checksum(row: Mapping[str, Any]) -> str:
    """The proof of a row: 64 bits of BLAKE2 over all its other columns, in order of their names."""
    content = [row[name] for name in sorted(row) if name != "checksum"]
    return hashlib.blake2b(compact(content).encode(), digest_size=8).hexdigest()


def verify(table: Table, row: Mapping[str, Any]) -> None:
    """Raise StoreDamaged if a row does not hold what was written."""
    if not is_proven(table.name, row):
        where = ", ".join(f"{c.name}={row[c.name]!r}" for c in table.primary_key)
        raise StoreDamaged(
            f"the row {where} of table {table.name} does not match its checksum {row['checksum']}",
            hint="`hpsearch store repair`, or restore a backup; nothing was overwritten",
        )


def is_proven(table: str, row: Mapping[str, Any]) -> bool:
    """Whether a row holds what was written."""
    return _proof(table, row) == row.get("checksum")


def sealed(lease: Mapping[str, Any]) -> Row:
    """The row of the lease with its proof."""
    return {**lease, "checksum": _proof(lease_table.name, lease)}


# The tables and indexes that we made, not those that SQLite makes for itself.
MADE = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite%'"


def schema_mark(tables: Iterable[Sequence[Any]]) -> int:
    """The proof of the tables themselves: 31 bits over what SQLite says of them."""
    text = repr(sorted(repr(tuple(row)) for row in tables))
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=4).digest(), "big") >> 1


def check_version(study: str, version: int) -> None:
    """Raise UsageError for a study in the tables of another version."""
    if version != SCHEMA_VERSION:
        age = "an older" if version < SCHEMA_VERSION else "a newer"
        raise UsageError(
            f"study {study!r} has schema version {version}, this hpsearch reads {SCHEMA_VERSION}",
            hint=f"it was made by {age} hpsearch: use that one",
        )


def _proof(table: str, row: Mapping[str, Any]) -> str:
    return checksum({name: row.get(name) for name in LEASED} if table == lease_table.name else row)


def known_row(study: str, known: Known) -> Row:
    """The row of a known trial, which has ended."""
    trial, ending = known.trial, known.trial.ending
    assert ending is not None
    row: Row = {
        "study": study,
        "number": trial.number,
        "uid": trial.uid,
        "params": json.dumps(dict(trial.params)),
        "sampler": json.dumps(dict(known.attributes)),
        "created": trial.created,
        "attempts": json.dumps([_fields(each) for each in trial.attempts]),
        "measurements": json.dumps([[m.step, dict(m.metrics), m.time] for m in trial.measurements]),
        "state": str(ending.state),
        "reason": ending.reason,
        "ended": ending.time,
    }
    row["checksum"] = checksum(row)
    return row


def known_of(row: Mapping[str, Any]) -> Known:
    """The known trial that a row holds."""
    trial = Trial(row["number"], row["uid"], json.loads(row["params"]), row["created"])
    trial.attempts = [_attempt(*each) for each in json.loads(row["attempts"])]
    trial.measurements = [Measurement(*each) for each in json.loads(row["measurements"])]
    trial.ending = Ending(State(row["state"]), row["reason"], row["ended"])
    return Known(trial, json.loads(row["sampler"]))


def _fields(attempt: Attempt) -> list[int | str | None]:
    return [attempt.number, attempt.started, attempt.resumed_from, str(attempt.cause), attempt.reason]


def _attempt(number: int, started: int, resumed_from: int | None, cause: str, reason: str) -> Attempt:
    return Attempt(number, started, resumed_from, Cause(cause), reason)


def storable(row: Row) -> Row:
    """A row with texts as every database keeps them: without NUL, and without halves of characters."""
    return {name: _kept(value) if isinstance(value, str) else value for name, value in row.items()}


def _kept(text: str) -> str:
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def rows_of(study: str, entry: Entry, lsn: int, epoch: int) -> Iterable[tuple[Table, Row]]:
    """The rows of a fact, numbered from `lsn` on: one for each metric of a measurement, else one."""
    fact = entry.fact
    if isinstance(fact, Measurement):
        contents = [(measurement_table, row) for row in _measurement_rows(entry.trial, entry.attempt, fact)]
    else:
        contents = [_single_row(entry, epoch)]
    for offset, (table, content) in enumerate(contents):
        row = storable({"study": study, "lsn": lsn + offset, **content})
        row["checksum"] = checksum(row)
        yield table, row


def _measurement_rows(trial: int | None, attempt: int, fact: Measurement) -> Iterable[Row]:
    for metric, value in fact.metrics.items():
        yield {
            "trial": trial,
            "step": fact.step,
            "metric": metric,
            # SQLite gives 0.0 back for -0.0, and the checksum is over what is read.
            "value": None if math.isnan(value) else float(value) + 0.0,
            "time": int(fact.time),
            "attempt": attempt,
        }


def _single_row(entry: Entry, epoch: int) -> tuple[Table, Row]:
    fact, trial = entry.fact, entry.trial
    match fact:
        case Trial():
            sampler = json.dumps(dict(entry.attributes or {}))
            params = json.dumps(dict(fact.params))
            row: Row = {"number": fact.number, "uid": fact.uid, "params": params, "created": fact.created}
            return trial_table, row | {"sampler": sampler}
        case Attempt():
            row = {"trial": trial, "number": fact.number, "started": fact.started}
            row |= {"resumed_from": fact.resumed_from, "cause": str(fact.cause), "reason": fact.reason}
            return attempt_table, row | {"epoch": epoch}
        case Resumption():
            row = {"trial": trial, "attempt": fact.attempt, "step": fact.step, "reason": fact.reason}
            return resumption_table, row
        case Revision():
            return revision_table, _revision_row(fact) | {"epoch": epoch}
        case Checkpoint():
            row = {"trial": trial, "step": fact.step, "attempt": fact.attempt, "name": fact.name}
            return checkpoint_table, row | {"size": fact.size, "sha256": fact.sha256}
        case Ending():
            row = {"trial": trial, "state": str(fact.state), "reason": fact.reason, "time": fact.time}
            return ending_table, row
        case StudyEnding():
            row = {"epoch": epoch, "outcome": str(fact.outcome), "reason": fact.reason, "time": fact.time}
            return study_ending_table, row
    raise TypeError(f"{type(fact).__name__} is no fact of the store")


def _revision_row(fact: Revision) -> Row:
    return {
        "number": fact.number,
        "time": fact.time,
        "spec_source": fact.source,
        "spec_text": fact.text,
        "edits": json.dumps(fact.edits),
        "git_sha": fact.git_sha,
        "code": json.dumps(dict(fact.code)),
        "versions": json.dumps(dict(fact.versions)),
    }


def _revision(row: Mapping[str, Any]) -> Revision:
    edits, code, versions = (json.loads(row[name]) for name in ("edits", "code", "versions"))
    file = row["spec_source"], row["spec_text"]
    return Revision(row["number"], row["time"], *file, tuple(edits), row["git_sha"], code, versions)


def fact_of(table: Table, row: Mapping[str, Any]) -> Fact:
    """The fact that a row holds; a measurement row holds one metric of its step."""
    match table.name:
        case "trial":
            return Trial(row["number"], row["uid"], json.loads(row["params"]), row["created"])
        case "attempt":
            names = ("number", "started", "resumed_from", "cause", "reason")
            return _attempt(*(row[name] for name in names))
        case "measurement":
            value = math.nan if row["value"] is None else row["value"]
            return Measurement(row["step"], {row["metric"]: value}, row["time"])
        case "resumption":
            return Resumption(row["attempt"], row["step"], row["reason"])
        case "revision":
            return _revision(row)
        case "checkpoint":
            return Checkpoint(row["step"], row["attempt"], row["name"], row["size"], row["sha256"])
        case "ending":
            return Ending(State(row["state"]), row["reason"], row["time"])
        case _:
            return StudyEnding(Outcome(row["outcome"]), row["reason"], row["time"])
