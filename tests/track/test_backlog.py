"""A long outage costs neither memory nor disk: facts wait in the store, one page of them in the outbox."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import outbox_life
import pytest
from mlflow_facts import Facts, failing, wait_for
from tcp_proxy import Proxy, Trouble

from hpsearch.study.home import Home
from hpsearch.study.trial import Change, Entry, Measurement
from hpsearch.track.following import following

Fired = Callable[..., None]

BACKLOG, DELIVERED, TRIALS = 200_000, 190_000, 4
# Tracing is slow: what is kept for good shows in the last of them, too.
TRACED = 150_000


@pytest.mark.fault("F50")
def test_a_backlog_of_two_hundred_thousand_facts_takes_the_memory_of_one_page(
    facts: Facts, fired: Fired, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(TRIALS):
        facts.suggest(number)
    first = facts.deliver()
    born = len(facts.changes)
    read: list[int] = []

    def changes(after: int, limit: int) -> Sequence[Change]:
        """The rest of the backlog, made when it is read."""
        if after >= TRACED and not tracemalloc.is_tracing():
            tracemalloc.start()
        page = list(facts.changes[after : after + limit])
        for lsn in range(max(after, born) + 1, min(after + limit, BACKLOG) + 1):
            page.append(Change(lsn, lsn % TRIALS, Measurement(lsn, {"loss": 1 / lsn, "acc": 0.5}, lsn)))
        read.append(len(page))
        return page

    monkeypatch.setattr(facts, "read", changes)
    outbox = facts.outbox(DELIVERED, first.parent_run_id)
    calls = failing(monkeypatch, "log_batch", before=10**9)
    try:
        outbox.start()
        wait_for(lambda: len(calls) > 3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    fired(outbox.problem and outbox.offset == DELIVERED)
    assert sum(read) > DELIVERED and max(read) == 5_000
    assert 1e6 < peak < 10e6, f"{peak / 1e6:.1f} MB"
    outbox.close(0)


@pytest.mark.fault("F51")
def test_the_stores_log_does_not_grow_while_mlflow_says_nothing(
    tmp_path: Path, proxy: Proxy, fired: Fired
) -> None:
    outbox_life.create(tmp_path)
    store = Home(tmp_path).open(outbox_life.NAME)
    history = store.take(0, proxy.uri)
    log = tmp_path / outbox_life.NAME / "study.db-wal"
    mute = Trouble(mute=True)
    proxy.rule = lambda path: mute if "log-batch" in path else None
    steps = iter(range(1, 10**6))

    def commit(transactions: int) -> None:
        for _ in range(transactions):
            store.commit([Entry(0, Measurement(next(steps), {"loss": 1.0}, 1)) for _ in range(60)])

    with following(store, history, interval=0.0) as outbox:
        store.commit(outbox_life.entries()[:2])
        wait_for(lambda: mute.happened)
        commit(400)
        bounded = log.stat().st_size
        fired(outbox.offset == 0 and proxy.in_flight == 1)
        # The same with a reader that stays, so that this test can fail.
        with store.reader()._engine.connect() as reader:
            reader.exec_driver_sql("select count(*) from measurement").fetchall()
            commit(400)
        assert log.stat().st_size > 2 * bounded
        assert bounded < 6e6, f"{bounded / 1e6:.1f} MB"
        outbox.hasten(0)
    store.close()
