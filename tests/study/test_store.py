"""The store: what was committed is there, once, in order, and nobody else writes."""

from __future__ import annotations

import fcntl
import math
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from hpsearch.errors import Interrupted, StoreDamaged, StudyBusy, UsageError
from hpsearch.spec.reading import parse
from hpsearch.study.history import StoreReader, holds_study
from hpsearch.study.schema import FACT_TABLES, sealed
from hpsearch.study.sqlite import DATABASE
from hpsearch.study.store import Store, is_owned
from hpsearch.study.trial import (
    Attempt,
    Cause,
    Checkpoint,
    Ending,
    Entry,
    Known,
    Measurement,
    Outcome,
    State,
    Study,
    StudyEnding,
    Trial,
)

YAML = """\
trainingInput:
  pythonModule: hpsearch.trainers.linear_regression
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 3
    params:
      - {parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}
"""
SUGGESTED = [Entry(0, Trial(0, "u-0", {"x": 0.1}, 5), attributes={"k": [1, 2.5]}), Entry(0, Attempt(1, 5))]


def new_store(home: Path, name: str = "s") -> Store:
    spec = parse(YAML, "x.yaml").spec
    assert spec
    study = Study(name, "u", 1, spec, home / name, "abc", {"torch": "2.13.0"})
    store = Store.create(study, "sqlite:///m.db")
    store.take(2)
    return store


def test_everything_that_was_committed_is_read_back(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.commit(SUGGESTED)
    store.commit(
        [
            Entry(0, Measurement(10, {"loss": 0.1 + 0.2, "acc": math.nan, "up": math.inf}, 7), 1),
            Entry(0, Checkpoint(10, 1, "c", 3, "ff"), 1),
        ]
    )
    store.commit(
        [Entry(0, Ending(State.PRUNED, "worse", 9)), Entry(None, StudyEnding(Outcome.DEADLINE, "late", 10))]
    )
    history = StoreReader(tmp_path / "s").history()
    store.close()
    [trial] = history.trials
    assert (trial.number, trial.uid, dict(trial.params), trial.created) == (0, "u-0", {"x": 0.1}, 5)
    assert trial.attempts == [Attempt(1, 5)]
    assert trial.checkpoints == [Checkpoint(10, 1, "c", 3, "ff")]
    assert trial.ending == Ending(State.PRUNED, "worse", 9)
    [measurement] = trial.measurements
    assert (measurement.step, measurement.time) == (10, 7)
    assert measurement.metrics["loss"] == 0.1 + 0.2
    assert math.isnan(measurement.metrics["acc"])
    assert measurement.metrics["up"] == math.inf
    assert history.attributes == {0: {"k": [1, 2.5]}}
    assert history.ending == StudyEnding(Outcome.DEADLINE, "late", 10)
    assert history.study.versions == {"torch": "2.13.0"}
    assert history.study.spec.max_trials == 3


def test_changes_come_in_the_order_of_a_counter_without_gaps(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.commit(SUGGESTED)
    store.commit([Entry(0, Measurement(1, {"loss": 1.0, "acc": 2.0}, 7))])
    store.commit([Entry(0, Ending(State.COMPLETED, "done", 9))])
    reader = StoreReader(tmp_path / "s")
    changes = reader.changes(0, 100)
    assert [change.lsn for change in changes] == [1, 2, 3, 4, 5]
    kinds = [type(change.fact).__name__ for change in changes]
    assert kinds == ["Trial", "Attempt", "Measurement", "Measurement", "Ending"]
    assert [change.lsn for change in reader.changes(2, 2)] == [3, 4]
    assert reader.changes(5, 100) == ()
    store.close()


def test_a_commit_is_all_or_nothing(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.commit(SUGGESTED)
    twice = Entry(0, Ending(State.COMPLETED, "done", 9))
    with pytest.raises(Interrupted, match="refused a write"):
        store.commit([Entry(0, Measurement(1, {"loss": 1.0}, 7)), twice, twice])
    history = StoreReader(tmp_path / "s").history()
    store.close()
    assert history.trials[0].measurements == []
    assert history.trials[0].ending is None


def test_the_settings_that_make_commits_durable_are_in_force(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    driver = store._connection
    values = [driver.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    driver.rollback()
    store.close()
    assert values == ["wal", 2]


def test_a_second_driver_is_refused_and_told_who_has_the_study(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    assert is_owned(tmp_path / "s")
    with pytest.raises(StudyBusy, match=f"process {os.getpid()}"):
        Store.open(tmp_path / "s")
    store.close()
    assert not is_owned(tmp_path / "s")
    again = Store.open(tmp_path / "s")
    assert again.take(3).epoch == 2
    again.close()


def test_a_driver_that_lost_its_lease_writes_nothing(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    with sqlite3.connect(tmp_path / "s" / DATABASE) as rival:
        rival.row_factory = sqlite3.Row
        lease = dict(rival.execute("SELECT * FROM lease").fetchone())
        taken = sealed(lease | {"epoch": lease["epoch"] + 1})
        rival.execute("UPDATE lease SET epoch = :epoch, checksum = :checksum", taken)
    rival.close()
    with pytest.raises(StudyBusy, match="nothing was written"):
        store.commit(SUGGESTED)
    assert StoreReader(tmp_path / "s").history().trials == []
    with pytest.raises(StudyBusy):
        store.close()


def test_the_outbox_offset_travels_with_the_next_commit(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.progress = lambda: (17, "run-1")
    store.commit(SUGGESTED)
    history = StoreReader(tmp_path / "s").history()
    assert (history.offset, history.parent_run_id) == (17, "run-1")
    store.progress = lambda: (18, "run-1")
    store.close()
    assert StoreReader(tmp_path / "s").history().offset == 18


def test_another_tracking_address_is_told_everything_anew(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.progress = lambda: (17, "run-1")
    store.close()
    for uri, expected in (("sqlite:///m.db", (17, "run-1")), ("http://new", (0, None)), (None, (0, None))):
        store = Store.open(tmp_path / "s")
        history = store.take(3, uri)
        store.close()
        assert (history.offset, history.parent_run_id) == expected
    assert history.tracking_uri == "http://new"


@given(st.lists(st.floats() | st.integers(-(2**53), 2**53), min_size=1, max_size=8))
@example([-0.0, 5e-324, math.inf, -math.inf, math.nan])
@settings(max_examples=50, deadline=None, derandomize=True)
def test_every_number_that_is_written_is_read_back_and_proven(values: list[float]) -> None:
    with tempfile.TemporaryDirectory() as home:
        store = new_store(Path(home))
        store.commit(SUGGESTED)
        metrics = {f"m{n}": value for n, value in enumerate(values)}
        store.commit([Entry(0, Measurement(1, metrics, 7))])
        [trial] = StoreReader(Path(home) / "s").history().trials
        store.close()
    found = trial.measurements[0].metrics
    assert all(found[n] == v or (math.isnan(found[n]) and math.isnan(v)) for n, v in metrics.items())


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


@pytest.mark.parametrize("table", ["trial", "attempt", "measurement", "checkpoint", "ending", "study"])
def test_a_row_that_was_changed_behind_its_back_is_damage(tmp_path: Path, table: str) -> None:
    store = new_store(tmp_path)
    store.commit(SUGGESTED)
    store.commit([Entry(0, Measurement(10, {"loss": 1.5}, 7)), Entry(0, Checkpoint(10, 1, "c", 3, "ff"))])
    store.commit([Entry(0, Ending(State.COMPLETED, "done", 9))])
    store.close()
    column = {
        "trial": "params='{\"x\": 0.2}'",
        "attempt": "started=6",
        "measurement": "value=1.25",
        "checkpoint": "sha256='fe'",
        "ending": "state='pruned'",
        "study": "uid='v'",
    }[table]
    with sqlite3.connect(tmp_path / "s" / DATABASE) as tamperer:
        assert tamperer.execute(f"UPDATE {table} SET {column}").rowcount == 1
    tamperer.close()
    with pytest.raises(StoreDamaged, match=f"table {table}"):
        StoreReader(tmp_path / "s").history()


def test_a_row_that_is_missing_is_damage(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.commit(SUGGESTED)
    store.commit([Entry(0, Measurement(10, {"loss": 1.5, "acc": 2.0}, 7))])
    store.close()
    with sqlite3.connect(tmp_path / "s" / DATABASE) as tamperer:
        tamperer.execute("DELETE FROM measurement WHERE metric='acc'")
    tamperer.close()
    with pytest.raises(StoreDamaged, match="3 facts where 4 were written"):
        StoreReader(tmp_path / "s").history()


def test_a_file_that_is_no_database_is_damage(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.close()
    (tmp_path / "s" / DATABASE).write_bytes(b"not a database, certainly not one" * 100)
    with pytest.raises(StoreDamaged):
        holds_study(tmp_path / "s")


def test_a_study_is_created_once(tmp_path: Path) -> None:
    new_store(tmp_path).close()
    with pytest.raises(UsageError, match="exists"):
        new_store(tmp_path)


def test_an_unknown_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no study 'nope'"):
        Store.open(tmp_path / "nope")
    assert not (tmp_path / "nope").exists()


def test_an_unwritable_home_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UsageError, match="cannot write to the study directory"):
        new_store(blocked)


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


def test_a_killed_driver_leaves_all_it_committed_and_the_lease_free(tmp_path: Path) -> None:
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_store import SUGGESTED, new_store
store = new_store(Path({str(tmp_path)!r}))
store.commit(SUGGESTED)
print("committed", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        assert child.stdout.readline() == b"committed\n"
        child.send_signal(signal.SIGKILL)
    store = Store.open(tmp_path / "s")
    history = store.take(9)
    assert [trial.uid for trial in history.trials] == ["u-0"]
    assert history.epoch == 2
    store.close()


def test_the_trials_that_a_study_knows_from_its_start_are_read_back_and_proven(tmp_path: Path) -> None:
    ended = Trial(
        7,
        "u-7",
        {"x": 0.25, "optimizer": "sgd"},
        5,
        [Attempt(1, 6), Attempt(2, 9, 10, Cause.OOM, "oom: 3 GiB")],
    )
    ended.measurements = [
        Measurement(10, {"loss": math.nan, "acc": 0.5}, 7),
        Measurement(20, {"loss": 1.5}, 8),
    ]
    ended.ending = Ending(State.PRUNED, "too bad", 9)
    known = Known(ended, {"internal": {"x": 0.75}})
    spec = parse(YAML).spec
    assert spec
    Store.create(Study("s", "v", 1, spec, tmp_path / "s"), "uri", [known]).close()
    reader = StoreReader(tmp_path / "s")
    (found,) = reader.history().known
    assert repr(found) == repr(known)  # NaN is not equal to itself
    assert reader.history().trials == []
    reader.close()
    with sqlite3.connect(tmp_path / "s" / DATABASE) as connection:
        connection.execute("UPDATE known SET ended = 10")
    with pytest.raises(StoreDamaged, match="table known"):
        StoreReader(tmp_path / "s").history()
    with sqlite3.connect(tmp_path / "s" / DATABASE) as connection:
        connection.execute("DELETE FROM known")
    with pytest.raises(StoreDamaged, match="knows 0 earlier trials where 1 were written"):
        StoreReader(tmp_path / "s").history()
