"""The store in whatever kind of database: what was committed is there, once, in order, by one writer."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from stores import SUGGESTED, Stores

from hpsearch.errors import HpsearchError, Interrupted, StoreDamaged, StudyBusy, UsageError
from hpsearch.study.schema import sealed
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
    StudyEnding,
    Trial,
)


def test_everything_that_was_committed_is_read_back(stores: Stores) -> None:
    store = stores.new()
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
    history = stores.home.history("s")
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


def test_changes_come_in_the_order_of_a_counter_without_gaps(stores: Stores) -> None:
    store = stores.new()
    store.commit(SUGGESTED)
    store.commit([Entry(0, Measurement(1, {"loss": 1.0, "acc": 2.0}, 7))])
    store.commit([Entry(0, Ending(State.COMPLETED, "done", 9))])
    reader = stores.home.reader("s")
    changes = reader.changes(0, 100)
    assert [change.lsn for change in changes] == [1, 2, 3, 4, 5]
    kinds = [type(change.fact).__name__ for change in changes]
    assert kinds == ["Trial", "Attempt", "Measurement", "Measurement", "Ending"]
    assert [change.lsn for change in reader.changes(2, 2)] == [3, 4]
    assert reader.changes(5, 100) == ()
    reader.close()
    store.close()


def test_a_commit_is_all_or_nothing(stores: Stores) -> None:
    store = stores.new()
    store.commit(SUGGESTED)
    twice = Entry(0, Ending(State.COMPLETED, "done", 9))
    with pytest.raises(Interrupted, match="refused a write"):
        store.commit([Entry(0, Measurement(1, {"loss": 1.0}, 7)), twice, twice])
    history = stores.home.history("s")
    store.close()
    assert history.trials[0].measurements == []
    assert history.trials[0].ending is None


def test_a_second_driver_is_refused_within_a_second_and_told_who_has_the_study(stores: Stores) -> None:
    store = stores.new()
    assert stores.home.is_owned("s")
    asked = time.monotonic()
    with pytest.raises(StudyBusy, match=f"process {os.getpid()}"):
        stores.home.open("s")
    assert time.monotonic() - asked < 1
    store.close()
    assert not stores.home.is_owned("s")
    again = stores.home.open("s")
    assert again.take(3).epoch == 2
    again.close()


def test_a_driver_that_lost_its_lease_writes_nothing(stores: Stores) -> None:
    store = stores.new()
    [lease] = stores.rows("SELECT * FROM lease")
    taken = sealed(lease | {"epoch": lease["epoch"] + 1})
    assert stores.behind_its_back("UPDATE lease SET epoch = :epoch, checksum = :checksum", taken) == 1
    with pytest.raises(StudyBusy, match="nothing was written"):
        store.commit(SUGGESTED)
    assert stores.home.history("s").trials == []
    with pytest.raises(StudyBusy):
        store.close()


def test_the_outbox_offset_travels_with_the_next_commit(stores: Stores) -> None:
    store = stores.new()
    store.progress = lambda: (17, "run-1")
    store.commit(SUGGESTED)
    history = stores.home.history("s")
    assert (history.offset, history.parent_run_id) == (17, "run-1")
    store.progress = lambda: (18, "run-1")
    store.close()
    assert stores.home.history("s").offset == 18


def test_another_tracking_address_is_told_everything_anew(stores: Stores) -> None:
    store = stores.new()
    store.progress = lambda: (17, "run-1")
    store.close()
    for uri, expected in (("sqlite:///m.db", (17, "run-1")), ("http://new", (0, None)), (None, (0, None))):
        store = stores.home.open("s")
        history = store.take(3, uri)
        store.close()
        assert (history.offset, history.parent_run_id) == expected
    assert history.tracking_uri == "http://new"


def test_every_number_that_is_written_is_read_back_and_proven(stores: Stores) -> None:
    store = stores.new()
    store.commit(SUGGESTED)
    reader, written = stores.home.reader("s"), 0

    @given(st.lists(st.floats() | st.integers(-(2**53), 2**53), min_size=1, max_size=8))
    @example([-0.0, 5e-324, math.inf, -math.inf, math.nan, 1.7976931348623157e308])
    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def check(values: list[float]) -> None:
        nonlocal written
        written += 1
        metrics = {f"m{n}": value for n, value in enumerate(values)}
        before = store.lsn
        store.commit([Entry(0, Measurement(written, metrics, 7))])
        facts = [change.fact for change in reader.changes(before, 100)]
        found = {n: v for fact in facts if isinstance(fact, Measurement) for n, v in fact.metrics.items()}
        assert found.keys() == metrics.keys()
        assert all(found[n] == v or (math.isnan(found[n]) and math.isnan(v)) for n, v in metrics.items())

    check()
    assert written > 30
    reader.close()
    store.close()


TEXTS = ["", "ä ∂ 𝄞 \N{PILE OF POO}", "a'b\"c\\d", "%s %(x)s :name {0}", "\x1b[31m\r\n\t\x7f", "x" * 100_000]


@pytest.mark.parametrize("text", [*TEXTS, "a\0b", "\udcff half a character"], ids=range(8))
def test_every_text_that_is_written_is_read_back_and_proven(stores: Stores, text: str) -> None:
    store = stores.new()
    store.commit([Entry(0, Trial(0, "u-0", {"x": text}, 5), attributes={text[:9]: text}), SUGGESTED[1]])
    store.commit([Entry(0, Ending(State.FAILED, text, 9))])
    store.close()
    [trial] = stores.home.history("s").trials
    assert dict(trial.params) == {"x": text}
    assert trial.ending
    if text in TEXTS:
        assert trial.ending.reason == text
    else:  # what no database keeps must not end a study, either
        assert trial.ending.reason in ("a\N{REPLACEMENT CHARACTER}b", "? half a character")


@pytest.mark.parametrize("table", ["trial", "attempt", "measurement", "checkpoint", "ending", "study"])
def test_a_row_that_was_changed_behind_its_back_is_damage(stores: Stores, table: str) -> None:
    store = stores.new()
    store.commit(SUGGESTED)
    store.commit([Entry(0, Measurement(10, {"loss": 1.5}, 7)), Entry(0, Checkpoint(10, 1, "c", 3, "ff"))])
    store.commit([Entry(0, Ending(State.COMPLETED, "done", 9))])
    store.close()
    column, value = {
        "trial": ("params", '{"x": 0.2}'),
        "attempt": ("started", 6),
        "measurement": ("value", 1.25),
        "checkpoint": ("sha256", "fe"),
        "ending": ("state", "pruned"),
        "study": ("uid", "v"),
    }[table]
    assert stores.behind_its_back(f"UPDATE {table} SET {column} = :value", {"value": value}) == 1
    with pytest.raises(StoreDamaged, match=f"table {table}"):
        stores.home.history("s")


def test_a_row_that_is_missing_is_damage(stores: Stores) -> None:
    store = stores.new()
    store.commit(SUGGESTED)
    store.commit([Entry(0, Measurement(10, {"loss": 1.5, "acc": 2.0}, 7))])
    store.close()
    assert stores.behind_its_back("DELETE FROM measurement WHERE metric = 'acc'") == 1
    with pytest.raises(StoreDamaged, match="3 facts where 4 were written"):
        stores.home.history("s")


def test_a_study_is_created_once(stores: Stores) -> None:
    stores.new().close()
    with pytest.raises(UsageError, match="exists"):
        stores.new()


def test_of_drivers_that_create_the_same_study_at_once_one_does(stores: Stores) -> None:
    barrier = threading.Barrier(4)
    made: list[int] = []
    refused: list[HpsearchError] = []

    def drive(uid: str) -> None:
        barrier.wait()
        try:
            store = stores.made(uid=uid)
        except HpsearchError as error:
            refused.append(error)
        else:
            made.append(store.take(2).epoch)
            store.commit(SUGGESTED)
            store.close()

    threads = [threading.Thread(target=drive, args=(f"u{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1], refused
    assert all(isinstance(error, UsageError | StudyBusy) for error in refused), refused
    assert len(stores.home.history("s").trials) == 1


def test_studies_of_one_home_know_nothing_of_each_other(stores: Stores) -> None:
    first, second = stores.new("a"), stores.new("b")
    first.commit(SUGGESTED)
    second.commit([Entry(0, Trial(0, "u-1", {"x": 0.2}, 5)), Entry(0, Attempt(1, 5))])
    second.commit([Entry(0, Measurement(1, {"loss": 1.0}, 7))])
    assert stores.home.names() == ["a", "b"]
    assert [trial.uid for trial in stores.home.history("a").trials] == ["u-0"]
    assert [trial.uid for trial in stores.home.history("b").trials] == ["u-1"]
    first.close()
    assert [stores.home.is_owned(name) for name in "ab"] == [False, True]
    second.close()


def test_an_unknown_study_is_named(stores: Stores) -> None:
    with pytest.raises(UsageError, match="no study 'nope'"):
        stores.home.open("nope")
    assert not stores.home.holds("nope")
    assert not stores.home.is_owned("nope")
    assert not stores.home.place("nope").exists()


def test_a_new_study_gets_a_number_above_all_that_are_taken(stores: Stores) -> None:
    assert stores.home.free_name("s") == "s-1"
    stores.new("s-4").close()
    stores.home.place("s-6").mkdir()
    assert stores.home.free_name("s") == "s-7"


def test_a_killed_driver_leaves_all_it_committed_and_the_study_free(stores: Stores) -> None:
    script = f"""
import os, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from stores import SUGGESTED, new_store
store = new_store(Path({str(stores.home.directory)!r}), store=os.environ.get("HPSEARCH_STORE"))
store.commit(SUGGESTED)
print("committed", flush=True)
sys.stdin.read()
"""
    where = {"HPSEARCH_STORE": stores.home.store} if stores.home.store else {}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **where},
    ) as child:
        assert child.stdout
        assert child.stdout.readline() == b"committed\n"
        with pytest.raises(StudyBusy, match=f"process {child.pid}"):
            stores.home.open("s")
        child.send_signal(signal.SIGKILL)
    assert not stores.home.is_owned("s")
    store = stores.home.open("s")
    history = store.take(9)
    assert [trial.uid for trial in history.trials] == ["u-0"]
    assert history.epoch == 2
    store.close()


def test_the_trials_that_a_study_knows_from_its_start_are_read_back_and_proven(stores: Stores) -> None:
    attempts = [Attempt(1, 6), Attempt(2, 9, 10, Cause.OOM, "oom: 3 GiB")]
    ended = Trial(7, "u-7", {"x": 0.25, "optimizer": "sgd"}, 5, attempts)
    ended.measurements = [
        Measurement(10, {"loss": math.nan, "acc": 0.5}, 7),
        Measurement(20, {"loss": 1.5}, 8),
    ]
    ended.ending = Ending(State.PRUNED, "too bad", 9)
    known = Known(ended, {"internal": {"x": 0.75}})
    stores.made(known=[known]).close()
    (found,) = stores.home.history("s").known
    assert repr(found) == repr(known)  # NaN is not equal to itself
    assert stores.home.history("s").trials == []
    assert stores.behind_its_back("UPDATE known SET ended = 10") == 1
    with pytest.raises(StoreDamaged, match="table known"):
        stores.home.history("s")
    assert stores.behind_its_back("DELETE FROM known") == 1
    with pytest.raises(StoreDamaged, match="knows 0 earlier trials where 1 were written"):
        stores.home.history("s")
