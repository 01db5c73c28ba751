"""The store in a SQLite file: its settings, its lock, its files, and errors that only files have."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from stores import SUGGESTED, new_store

from hpsearch.errors import Interrupted, StoreDamaged, UsageError
from hpsearch.study.history import StoreReader, holds_study
from hpsearch.study.schema import FACT_TABLES
from hpsearch.study.sqlite import DATABASE
from hpsearch.study.store import Store
from hpsearch.study.trial import Entry, Measurement


def test_the_settings_that_make_commits_durable_are_in_force(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    driver = store._connection
    values = [driver.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    driver.rollback()
    store.close()
    assert values == ["wal", 2]


def test_looking_whether_a_study_is_owned_keeps_nobody_out(tmp_path: Path) -> None:
    new_store(tmp_path).close()
    glance = os.open(tmp_path / "s" / "lock", os.O_RDONLY)
    fcntl.flock(glance, fcntl.LOCK_SH)
    threading.Timer(0.1, os.close, [glance]).start()
    Store.open(tmp_path / "s").close()


def test_reading_news_does_not_look_through_all_that_is_old(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    reader = StoreReader(tmp_path / "s")
    queries: list[str] = []
    store.commit(SUGGESTED)
    event.listen(reader._engine, "before_cursor_execute", lambda c, k, text, *rest: queries.append(text))
    reader.changes(0, 10)
    store.close()
    plans = []
    with sqlite3.connect(tmp_path / "s" / DATABASE) as database:
        for query in queries:
            if "lsn >" in query:
                explained = database.execute(f"EXPLAIN QUERY PLAN {query}", ("s", 0, 10)).fetchall()
                plans += [row[3] for row in explained if "TEMP B-TREE" not in row[3]]
    database.close()
    assert len(plans) == len(FACT_TABLES)
    assert all(plan.startswith("SEARCH") for plan in plans), plans


def test_a_file_that_is_no_database_is_damage(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.close()
    (tmp_path / "s" / DATABASE).write_bytes(b"not a database, certainly not one" * 100)
    with pytest.raises(StoreDamaged):
        holds_study(tmp_path / "s")


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    earlier = os.umask(0)
    try:
        store = new_store(tmp_path)
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "s").iterdir()}
        directory = stat.S_IMODE((tmp_path / "s").stat().st_mode)
        store.close()
    finally:
        os.umask(earlier)
    assert directory == 0o700
    assert set(modes) >= {"study.db", "study.db-wal", "lock"}
    assert set(modes.values()) == {0o600}


def test_after_a_commit_that_raised_nothing_more_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path)
    store.commit(SUGGESTED)
    dialect = store._engine.dialect
    really = dialect.do_commit

    def commit(connection: Any) -> None:
        really(connection)  # it happened, and nobody learns of it
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(dialect, "do_commit", commit)
    with pytest.raises(Interrupted, match="disk I/O error"):
        store.commit([Entry(0, Measurement(1, {"loss": 1.0}, 7))])
    monkeypatch.setattr(dialect, "do_commit", really)
    with pytest.raises(Interrupted, match="an earlier write"):
        store.commit([Entry(0, Measurement(2, {"loss": 1.0}, 7))])
    store.close()
    again = Store.open(tmp_path / "s")
    assert [m.step for m in again.take(9).trials[0].measurements] == [1]
    again.commit([Entry(0, Measurement(2, {"loss": 1.0}, 7))])
    again.close()


def test_an_unwritable_home_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UsageError, match="cannot write to the study directory"):
        new_store(blocked)
