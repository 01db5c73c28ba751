"""Reading a SQLite store row by row, damaged or not: the rows that prove themselves, and every problem.

It reads by the standard library's driver and never writes. A row proves itself by its checksum, whatever file
it was found in.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from hpsearch.study.schema import (
    FACT_TABLES,
    MADE,
    Row,
    is_proven,
    known_table,
    lease_table,
    schema_mark,
    study_table,
)

MOST = 100  # lines that one kind of examination may tell
FACTS = tuple(table.name for table in FACT_TABLES)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a store: of what kind, in words, and where it is if that is known."""

    kind: str
    message: str
    table: str | None = None
    row: str | None = None
    lsn: int | None = None
    offset: int | None = None


@dataclass(slots=True)
class Scan:
    """All that one database file holds: the rows that prove themselves, and those of facts that do not."""

    problems: list[Problem] = field(default_factory=list)
    study: Row | None = None
    lease: Row | None = None
    unproven_lease: Row | None = None
    known: list[Row] = field(default_factory=list)
    facts: dict[int, tuple[str, Row]] = field(default_factory=dict)
    unproven: list[tuple[str, Row]] = field(default_factory=list)


def scan(path: Path, *, immutable: bool = False) -> Scan:
    """Everything in a database file; what SQLite cannot make sense of is a problem, not an error.

    `immutable`: nobody writes it, and SQLite puts no files beside it.
    """
    found, mode = Scan(), "mode=ro&immutable=1" if immutable else "mode=ro"
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=30)
        ) as connection:
            # A byte that is no text makes a row that does not match its checksum, and no other unreadable.
            connection.text_factory = lambda data: data.decode(errors="surrogateescape")
            connection.execute("BEGIN")
            _structure(connection, found)
            for table in (study_table.name, lease_table.name, known_table.name, *FACTS):
                for row in _rows(connection, table, found):
                    _sort(table, row, found)
    except sqlite3.Error as error:
        found.problems.append(Problem("structure", f"{path.name} cannot be opened: {error}"))
    return found


def _structure(connection: sqlite3.Connection, found: Scan) -> None:
    """What SQLite itself finds wrong, and whether the tables are as they were made."""
    try:
        for (line,) in connection.execute(f"PRAGMA integrity_check({MOST})"):
            if line != "ok":
                found.problems.append(Problem("structure", str(line).replace("\n", " ")))
        for table, rowid, parent, _ in connection.execute("PRAGMA foreign_key_check").fetchmany(MOST):
            text = f"a row of table {table} belongs to a row of table {parent} that is not there"
            found.problems.append(Problem("structure", text, table, f"rowid={rowid}"))
        made = schema_mark(connection.execute(MADE).fetchall())
        if made != connection.execute("PRAGMA user_version").fetchone()[0]:
            found.problems.append(Problem("structure", "the tables are not what the store was made with"))
    except sqlite3.Error as error:
        found.problems.append(Problem("structure", f"the file cannot be examined: {error}"))


def _rows(connection: sqlite3.Connection, table: str, found: Scan) -> Iterator[Row]:
    """The rows of a table; where a page in the middle is unreadable, those before it and those behind it."""
    for order in ("", " ORDER BY rowid DESC"):
        try:
            cursor = connection.execute(f"SELECT * FROM {table} NOT INDEXED{order}")
            names = [column[0] for column in cursor.description]
            for values in cursor:
                yield dict(zip(names, values, strict=True))
            return
        except sqlite3.Error as error:
            if not order:
                found.problems.append(Problem("structure", f"table {table} cannot be read: {error}", table))


def _sort(table: str, row: Row, found: Scan) -> None:
    """Put a row where it belongs: proven, or a problem."""
    proven = is_proven(table, row)
    if proven and table == study_table.name:
        found.study = row
    elif proven and table == known_table.name:
        found.known.append(row)
    elif table == lease_table.name:
        found.lease, found.unproven_lease = (row, None) if proven else (None, row)
    elif proven:
        found.facts[row["lsn"]] = table, row
    else:
        found.unproven.append((table, row))
    if not proven:
        lsn = row.get("lsn") if isinstance(row.get("lsn"), int) else None
        text = f"{where(table, row)} does not match its checksum"
        problem = Problem("row", text, table, where(table, row), lsn if table in FACTS else None)
        if problem not in found.problems:
            found.problems.append(problem)


def where(table: str, row: Row) -> str:
    """A row in words: its table and key."""
    names = ("name", "trial", "number", "step", "metric", "attempt", "epoch")
    keys = [
        f"{name}={row[name]!r}"
        for name in names
        if name in row and (table, name) != ("measurement", "attempt")
    ]
    return f"the row {', '.join(keys[:3])} of table {table}"
