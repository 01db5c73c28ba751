"""The outbox in trouble: nothing lost, one line about it, and the driver never waits."""

from __future__ import annotations

import time
from typing import Any

import pytest
from mlflow_facts import Facts, Tracking, assert_delivered, expected_points, failing, store_class, wait_for

from hpsearch.track.outbox import Outbox


def test_an_artifact_store_out_of_reach_does_not_hold_up_metrics(
    facts: Facts, tracking: Tracking, caplog: pytest.LogCaptureFixture
) -> None:
    (facts.study.directory.parent / "mlartifacts").write_text("a file where a directory should be")
    facts.trial(0, loss=0.5)
    assert facts.deliver().problem is None
    assert_delivered(facts, tracking, 1)
    assert sum("was not stored" in record.message for record in caplog.records) == 1


def test_a_poison_row_is_set_aside_and_the_rest_delivered(
    facts: Facts, tracking: Tracking, caplog: pytest.LogCaptureFixture
) -> None:
    facts.trial(0, loss=0.5, steps=40)
    facts.measure(0, 500, time=-1, loss=1.0)
    facts.changes.insert(2, facts.changes.pop())  # a clock before 1970, among good rows
    facts.measure(0, 2**63, loss=1.0)
    facts.changes = [type(c)(n, c.trial, c.fact) for n, c in enumerate(facts.changes, 1)]
    outbox = facts.deliver()
    assert outbox.set_aside == 2
    assert outbox.problem is None
    good = [p for p in expected_points(facts, 0) if p[3] != -1 and p[1] != 2**63]
    assert tracking.points(tracking.run_ids()["trial-0"]) == good
    assert sum("set aside" in r.message for r in caplog.records if r.levelname == "WARNING") == 1


def test_a_row_that_mlflow_refuses_is_found_by_halving(
    facts: Facts, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    real = store_class().log_batch
    sizes: list[int] = []

    def picky(self: Any, run_id: str, metrics: Any, params: Any, tags: Any) -> None:
        sizes.append(len(metrics))
        if any(metric.step in (70, 300) for metric in metrics):
            raise MlflowException("not that one", error_code=INVALID_PARAMETER_VALUE)
        real(self, run_id, metrics, params, tags)

    monkeypatch.setattr(store_class(), "log_batch", picky)
    facts.suggest(0)
    for step in range(10, 410, 10):
        facts.measure(0, step, loss=1.0)
    outbox = facts.deliver()
    assert outbox.set_aside == 2
    kept = [p for p in expected_points(facts, 0) if p[1] not in (70, 300)]
    assert tracking.points(tracking.run_ids()["trial-0"]) == kept
    assert tracking.params(tracking.run_ids()["trial-0"])
    assert len(sizes) < 40


def test_an_outage_is_said_once_without_secrets_and_nothing_is_lost(
    facts: Facts, tracking: Tracking, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="hpsearch")
    calls = failing(monkeypatch, "log_batch", before=4)
    monkeypatch.setattr("hpsearch.track.patience.LONGEST_PAUSE", 0.2)
    facts.trial(0, loss=0.5)
    outbox = facts.outbox()
    outbox.start()
    wait_for(lambda: outbox.problem or outbox.offset)
    assert outbox.problem is not None
    assert "connection to http://host lost" in outbox.problem
    assert "secret" not in outbox.problem
    assert "traceback" not in outbox.problem
    assert outbox.close(20)
    assert outbox.problem is None
    assert len(calls) == 6
    assert_delivered(facts, tracking, 1)
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]
    assert "secret" not in caplog.text


def test_a_store_that_cannot_be_read_is_a_problem_and_not_the_end(facts: Facts, tracking: Tracking) -> None:
    facts.trial(0, loss=0.5)
    read, broken = facts.read, [True]

    def sometimes(after: int, limit: int) -> Any:
        if broken:
            raise OSError("the disk is away")
        return read(after, limit)

    facts.read = sometimes  # type: ignore[method-assign]
    outbox = facts.outbox()
    outbox.start()
    wait_for(lambda: outbox.problem)
    assert "the disk is away" in str(outbox.problem)
    broken.clear()
    assert outbox.close(20)
    assert_delivered(facts, tracking, 1)


def test_close_ends_in_time_when_nobody_answers(facts: Facts) -> None:
    facts.trial(0, loss=0.5)
    outbox = facts.outbox(uri="http://ann:secret@127.0.0.1:9")
    outbox.start()
    wait_for(lambda: outbox.problem)
    assert "MLflow at http://127.0.0.1:9" in str(outbox.problem)
    assert "secret" not in str(outbox.problem)
    started = time.monotonic()
    assert not outbox.close(0.5)
    assert time.monotonic() - started < 1.0
    assert outbox.offset == 0
    assert outbox.parent_run_id is None


def test_close_ends_in_time_when_a_server_accepts_and_says_nothing(facts: Facts) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mute:
        outbox = facts.outbox(uri=f"http://127.0.0.1:{mute.getsockname()[1]}")
        outbox.start()
        connection, _ = mute.accept()
        with connection:
            started = time.monotonic()
            assert not outbox.close(0.5)
            assert time.monotonic() - started < 1.0


def test_an_outbox_that_never_started_has_delivered_nothing(facts: Facts) -> None:
    assert not facts.outbox().close(0.1)


def test_a_bug_in_the_thread_is_told_as_a_problem(facts: Facts, caplog: pytest.LogCaptureFixture) -> None:
    facts.add(0, None)
    facts.changes[0] = None  # type: ignore[call-overload]
    outbox: Outbox = facts.outbox()
    outbox.start()
    wait_for(lambda: outbox.problem)
    assert "the outbox stopped: AttributeError" in str(outbox.problem)
    assert not outbox.close(1)
    assert "the outbox stopped" in caplog.text
