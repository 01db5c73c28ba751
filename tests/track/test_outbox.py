"""The outbox over real MLflow databases: one run per trial, every point once, and nothing in the driver's way."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import Facts, Tracking, expected_points

from hpsearch.study.trial import Attempt, Change, Measurement, Outcome, State
from hpsearch.track import outbox as outbox_module
from hpsearch.track.outbox import Outbox
from hpsearch.track.uri import default_uri


def wait_for(condition: Any, timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def store_class() -> Any:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    return SqlAlchemyStore


def failing(monkeypatch: pytest.MonkeyPatch, method: str, *, before: int = 0, after: int = 0) -> list[str]:
    """Make a method of the store fail some times, before or after doing its work; returns the calls."""
    from mlflow.exceptions import MlflowException

    real = getattr(store_class(), method)
    calls: list[str] = []

    def faulty(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(method)
        if len(calls) <= before:
            raise MlflowException("connection to http://ann:secret@host lost\nand a traceback")
        answer = real(self, *args, **kwargs)
        if len(calls) <= after:
            raise MlflowException("the reply was lost")
        return answer

    monkeypatch.setattr(store_class(), method, faulty)
    monkeypatch.setattr("hpsearch.track.patience.FIRST_PAUSE", 0.01)
    return calls


def assert_delivered(facts: Facts, tracking: Tracking, trials: int) -> None:
    """One parent, one run per trial, every point of every trial exactly once."""
    assert len(tracking.parents()) == 1
    runs = tracking.run_ids()
    assert len(runs) == trials
    for number in range(trials):
        run_id = runs[f"trial-{number}"]
        assert tracking.points(run_id) == expected_points(facts, number)
        assert tracking.tags(run_id)["mlflow.parentRunId"] == tracking.parents()[0]


def test_a_trial_becomes_a_run_with_its_params_tags_and_points(facts: Facts, tracking: Tracking) -> None:
    facts.trial(0, loss=0.5)
    outbox = facts.deliver()
    run_id = tracking.run_ids()["trial-0"]
    created = facts.study.created
    assert tracking.run(run_id) == ("FINISHED", created, created + 999, "auto_mpg-1/0000")
    assert tracking.params(run_id) == {"learning_rate": "1e-05", "layers": "1", "optimizer": "adam"}
    assert tracking.points(run_id) == expected_points(facts, 0)
    tags = tracking.tags(run_id)
    assert tags.pop("mlflow.user")
    assert tags == {
        "attempts": "1",
        "git_sha": "c0ffee",
        "hpsearch.study_uid": "study-1",
        "hpsearch.trial_uid": "trial-0",
        "mlflow.note.content": "reached its last step",
        "mlflow.parentRunId": outbox.parent_run_id,
        "mlflow.runName": "auto_mpg-1/0000",
        "mlflow.source.git.commit": "c0ffee",
        "mlflow.source.name": "auto_mpg.yaml",
        "mlflow.source.type": "JOB",
        "pruner": "NONE",
        "reason": "reached its last step",
        "sampler": "TPE",
        "seed": "0",
        "spec_sha256": "ab" * 32,
        "state": "completed",
        "step": "30",
        "study": "auto_mpg-1",
        "trial": "0",
        "version.torch": "2.13.0",
    }


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (State.COMPLETED, "FINISHED"),
        (State.PRUNED, "KILLED"),
        (State.FAILED, "FAILED"),
        (State.INFEASIBLE, "FAILED"),
    ],
)
def test_an_ending_is_told_as_what_it_was(
    facts: Facts, tracking: Tracking, state: State, status: str
) -> None:
    facts.trial(0, loss=1.0, state=state)
    facts.deliver()
    run_id = tracking.run_ids()["trial-0"]
    assert tracking.run(run_id)[0] == status
    assert tracking.tags(run_id)["state"] == state.value


def test_a_trial_without_an_ending_stays_running(facts: Facts, tracking: Tracking) -> None:
    facts.suggest(0)
    facts.measure(0, 10, loss=1.0)
    facts.deliver()
    run_id = tracking.run_ids()["trial-0"]
    assert tracking.run(run_id)[0] == "RUNNING"
    assert tracking.tags(run_id)["state"] == "running"
    assert "attempts" not in tracking.tags(run_id)


def test_the_parent_run_tells_the_best_completed_trial(facts: Facts, tracking: Tracking) -> None:
    facts.trial(0, loss=0.5)
    facts.trial(1, loss=0.9)
    facts.trial(2, loss=0.1, state=State.PRUNED)
    facts.trial(3, loss=0.3)
    facts.finish()
    facts.deliver()
    (parent,) = tracking.parents()
    created = facts.study.created
    assert tracking.points(parent) == [
        ("best/loss", 1, 0.5, created + 999),
        ("best/loss", 3, 0.3, created + 3_999),
        ("loss", 30, 0.3, created + 3_600_000),
    ]
    tags = tracking.tags(parent)
    assert tags["best_trial"] == "3"
    assert json.loads(tags["best_params"]) == {"learning_rate": 4e-05, "layers": 4, "optimizer": "adam"}
    assert tags["best_run_id"] == tracking.run_ids()["trial-3"]
    assert (tags["state"], tags["reason"]) == ("completed", "all trials ended")
    assert tracking.params(parent) == {"learning_rate": "4e-05", "layers": "4", "optimizer": "adam"}
    assert tracking.run(parent) == ("FINISHED", created, created + 3_600_000, "auto_mpg-1")


def test_the_text_of_the_spec_is_kept_with_the_parent(facts: Facts, tracking: Tracking) -> None:
    facts.deliver()
    (parent,) = tracking.parents()
    ((location,),) = tracking.rows("select artifact_uri from runs where run_uuid = ?", parent)
    kept = Path(location.removeprefix("file://")) / "auto_mpg.yaml"
    assert kept.read_text() == facts.study.spec.text
    assert facts.study.directory.parent / "mlartifacts" in kept.parents


def test_an_artifact_store_out_of_reach_does_not_hold_up_metrics(
    facts: Facts, tracking: Tracking, caplog: pytest.LogCaptureFixture
) -> None:
    (facts.study.directory.parent / "mlartifacts").write_text("a file where a directory should be")
    facts.trial(0, loss=0.5)
    assert facts.deliver().problem is None
    assert_delivered(facts, tracking, 1)
    assert sum("was not stored" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome.COMPLETED, "FINISHED"),
        (Outcome.FAILED, "FAILED"),
        (Outcome.DEADLINE, "KILLED"),
        (Outcome.INTERRUPTED, "KILLED"),
    ],
)
def test_the_parent_run_never_says_running_after_the_study_ended(
    facts: Facts, tracking: Tracking, outcome: Outcome, status: str
) -> None:
    facts.trial(0, loss=0.5)
    facts.finish(outcome)
    facts.deliver()
    (parent,) = tracking.parents()
    assert tracking.run(parent)[0] == status
    assert tracking.tags(parent)["state"] == outcome.value
    assert bool(tracking.params(parent)) == (outcome in (Outcome.COMPLETED, Outcome.FAILED))


def test_a_resumed_study_runs_again_and_keeps_its_best(facts: Facts, tracking: Tracking) -> None:
    facts.trial(0, loss=0.5)
    facts.suggest(1)
    facts.finish(Outcome.INTERRUPTED, "Ctrl-C")
    first = facts.deliver()
    facts.add(1, Attempt(2, facts.study.created + 5_000, resumed_from=10))
    second = facts.deliver(first.offset, first.parent_run_id)
    assert second.parent_run_id == first.parent_run_id
    assert tracking.run(str(first.parent_run_id))[0] == "RUNNING"
    assert tracking.tags(str(first.parent_run_id))["state"] == "running"
    tags = tracking.tags(tracking.run_ids()["trial-1"])
    assert (tags["attempts"], tags["resumed_from"]) == ("2", "10")
    facts.measure(1, 20, loss=0.7)
    facts.end(1)
    facts.finish()
    facts.deliver(second.offset, second.parent_run_id)
    assert tracking.run(str(first.parent_run_id))[0] == "FINISHED"
    assert tracking.tags(str(first.parent_run_id))["best_trial"] == "0"
    assert [p for p in tracking.points(str(first.parent_run_id)) if p[0] == "best/loss"] == [
        ("best/loss", 1, 0.5, facts.study.created + 999)
    ]


def test_delivering_an_ended_study_once_more_does_not_reopen_it(facts: Facts, tracking: Tracking) -> None:
    facts.trial(0, loss=0.5)
    facts.finish(Outcome.DEADLINE)
    first = facts.deliver()
    facts.deliver(first.offset, first.parent_run_id)
    assert tracking.run(tracking.parents()[0])[0] == "KILLED"


def test_params_of_an_earlier_best_stay_and_the_tags_tell_the_new_one(
    facts: Facts, tracking: Tracking
) -> None:
    facts.trial(0, loss=0.5)
    facts.finish()
    first = facts.deliver()
    facts.trial(1, loss=0.1)
    facts.finish()
    second = facts.deliver(first.offset, first.parent_run_id)
    (parent,) = tracking.parents()
    assert tracking.params(parent)["layers"] == "1"
    assert json.loads(tracking.tags(parent)["best_params"])["layers"] == 2
    assert second.set_aside == 0


@pytest.mark.parametrize("back", [1, 4, 7, 1_000])
def test_facts_told_again_change_nothing(facts: Facts, tracking: Tracking, back: int) -> None:
    for number in range(3):
        facts.trial(number, loss=number + 0.5)
    facts.measure(2, 40, loss=math.nan, accuracy=math.inf)
    facts.finish()
    first = facts.deliver()
    everything = tracking.everything()
    again = facts.deliver(max(0, first.offset - back), first.parent_run_id)
    assert again.offset == first.offset == len(facts.changes)
    assert again.set_aside == 0
    assert tracking.everything() == everything


def test_nan_and_infinities_are_stored_in_mlflows_way(facts: Facts, tracking: Tracking) -> None:
    facts.suggest(0)
    facts.measure(0, 1, loss=math.nan, up=math.inf, down=-math.inf)
    facts.deliver()
    when = facts.study.created + 1
    assert tracking.points(tracking.run_ids()["trial-0"]) == [
        ("down", 1, -sys.float_info.max, when),
        ("loss", 1, None, when),
        ("up", 1, sys.float_info.max, when),
    ]


def test_a_server_that_never_heard_of_the_study_is_told_all_of_it(facts: Facts, tracking: Tracking) -> None:
    facts.trial(0, loss=0.5)
    facts.trial(1, loss=0.4)
    outbox = facts.deliver(offset=len(facts.changes), parent="0" * 32)
    assert_delivered(facts, tracking, 2)
    assert outbox.parent_run_id == tracking.parents()[0]


def test_a_crash_after_create_run_makes_no_second_run(
    facts: Facts, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts.trial(0, loss=0.5)
    calls = failing(monkeypatch, "log_batch", before=10**9)
    crashed = facts.outbox()
    crashed.start()
    wait_for(lambda: calls)
    assert not crashed.close(0.1)
    assert crashed.offset == 0
    assert len(tracking.run_ids()) == 1
    monkeypatch.undo()
    facts.deliver(crashed.offset, None)
    assert_delivered(facts, tracking, 1)


def test_a_lost_reply_to_create_run_makes_no_second_run(
    facts: Facts, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = failing(monkeypatch, "create_run", after=2)
    facts.trial(0, loss=0.5)
    facts.trial(1, loss=0.4)
    facts.deliver()
    assert len(calls) == 3
    assert_delivered(facts, tracking, 2)


def test_a_run_made_late_by_a_request_without_an_answer_is_removed(
    facts: Facts, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store_class().create_run
    held: list[tuple[Any, ...]] = []

    def late(self: Any, *args: Any, **kwargs: Any) -> Any:
        from mlflow.exceptions import MlflowException

        if kwargs["run_name"] == "auto_mpg-1/0000" and not held:
            held.append((self, args, kwargs))
            raise MlflowException("timed out")
        answer = real(self, *args, **kwargs)
        if kwargs["run_name"] == "auto_mpg-1/0000":
            real(held[0][0], *held[0][1], **held[0][2])
        return answer

    monkeypatch.setattr(store_class(), "create_run", late)
    monkeypatch.setattr("hpsearch.track.patience.FIRST_PAUSE", 0.01)
    facts.trial(0, loss=0.5)
    facts.deliver()
    assert_delivered(facts, tracking, 1)


def test_two_runs_of_one_trial_are_reduced_to_the_one_that_holds_more(
    facts: Facts, tracking: Tracking
) -> None:
    from mlflow.tracking import MlflowClient

    facts.suggest(0)
    facts.measure(0, 10, loss=1.0)
    first = facts.deliver()
    kept = tracking.run_ids()["trial-0"]
    tags = tracking.tags(kept)
    ((experiment,),) = tracking.rows("select experiment_id from runs where run_uuid = ?", kept)
    MlflowClient(facts.uri).create_run(str(experiment), tags=tags, run_name=tags["mlflow.runName"])
    facts.end(0)
    facts.deliver(first.offset, first.parent_run_id)
    assert tracking.run_ids()["trial-0"] == kept
    assert_delivered(facts, tracking, 1)


def test_a_short_trial_costs_three_requests(facts: Facts, requests: Counter[str]) -> None:
    facts.deliver()
    requests.clear()
    for number in range(10):
        facts.trial(number, loss=number + 1.0, steps=50)
    facts.deliver(parent=None)
    # Besides the trials: the search for known runs, and one batch for the best of the study.
    assert requests == {
        "search_runs": 1,
        "create_run": 10,
        "log_batch": 11,
        "update_run_info": 10,
    }


def metrics_at(step: int, count: int) -> Measurement:
    return Measurement(step, {f"metric_{n}": float(step) for n in range(count)}, step)


def test_a_running_trial_costs_one_request_per_flush_whatever_it_measures(
    facts: Facts, requests: Counter[str]
) -> None:
    facts.suggest(0)
    facts.suggest(1)
    outbox = facts.outbox()
    outbox.start()
    wait_for(lambda: outbox.offset == len(facts.changes))
    requests.clear()
    following = list(facts.changes)
    for step in range(1, 101):
        following.append(Change(len(following) + 1, 0, metrics_at(step, 9)))
    facts.changes = following  # all at once, as one page
    wait_for(lambda: outbox.offset == len(facts.changes))
    assert outbox.close(10)
    assert requests == {"log_batch": 1}


def test_more_points_than_one_request_may_hold_are_split(
    facts: Facts, tracking: Tracking, requests: Counter[str]
) -> None:
    facts.suggest(0)
    for step in range(1_201):
        facts.measure(0, step, loss=1.0, accuracy=0.5)
    facts.deliver()
    assert_delivered(facts, tracking, 1)
    assert requests["log_batch"] == 3


def test_facts_beyond_one_page_are_read_page_by_page(
    facts: Facts, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "PAGE", 7)
    asked: list[tuple[int, int]] = []
    read = facts.read
    facts.read = lambda after, limit: asked.append((after, limit)) or read(after, limit)  # type: ignore[method-assign,func-returns-value]
    for number in range(4):
        facts.trial(number, loss=number + 0.5)
    facts.deliver()
    assert_delivered(facts, tracking, 4)
    assert {limit for _, limit in asked} == {7}


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


def test_a_bad_metric_name_is_cleaned_and_does_not_reject_its_batch(facts: Facts, tracking: Tracking) -> None:
    facts.suggest(0, **{"weight%": 1.0})
    facts.measure(0, 1, **{"loss": 1.0, "acc@5": 0.5, "../up": 1.0, "n" * 300: 2.0})
    assert facts.deliver().set_aside == 0
    run_id = tracking.run_ids()["trial-0"]
    names = {name for name, *_ in tracking.points(run_id)}
    assert {"loss", "acc_405"} < names
    assert len(names) == 4
    assert tracking.params(run_id) == {"weight_25": "1.0"}


def test_a_run_deleted_by_a_user_is_left_alone_and_the_rest_goes_on(facts: Facts, tracking: Tracking) -> None:
    from mlflow.tracking import MlflowClient

    facts.suggest(0)
    facts.suggest(1)
    outbox = facts.outbox()
    outbox.start()
    wait_for(lambda: outbox.offset == len(facts.changes))
    deleted = tracking.run_ids()["trial-0"]
    MlflowClient(facts.uri).delete_run(deleted)
    for number in (0, 1):
        facts.measure(number, 10, loss=1.0)
        facts.end(number)
    assert outbox.close(20)
    assert outbox.set_aside == 0
    assert tracking.points(deleted) == []
    assert tracking.run(tracking.run_ids()["trial-1"])[0] == "FINISHED"
    assert list(tracking.run_ids()) == ["trial-1"]
    facts.deliver(0, outbox.parent_run_id)
    assert list(tracking.run_ids()) == ["trial-1"]


def test_a_deleted_experiment_is_restored_at_start(facts: Facts, tracking: Tracking) -> None:
    from mlflow.tracking import MlflowClient

    facts.trial(0, loss=0.5)
    first = facts.deliver()
    client = MlflowClient(facts.uri)
    client.delete_experiment(client.get_experiment_by_name("lessons").experiment_id)
    facts.trial(1, loss=0.4)
    facts.deliver(first.offset, first.parent_run_id)
    assert_delivered(facts, tracking, 2)
    assert tracking.rows("select lifecycle_stage from experiments where name = 'lessons'") == [("active",)]


def test_an_experiment_deleted_in_the_middle_is_restored_for_the_next_trial(
    facts: Facts, tracking: Tracking
) -> None:
    from mlflow.tracking import MlflowClient

    facts.trial(0, loss=0.5)
    outbox = facts.outbox()
    outbox.start()
    wait_for(lambda: outbox.offset == len(facts.changes))
    client = MlflowClient(facts.uri)
    client.delete_experiment(client.get_experiment_by_name("lessons").experiment_id)
    facts.trial(1, loss=0.4)
    assert outbox.close(20)
    assert_delivered(facts, tracking, 2)


def test_a_renamed_experiment_is_found_by_the_parent_run(facts: Facts, tracking: Tracking) -> None:
    from mlflow.tracking import MlflowClient

    facts.trial(0, loss=0.5)
    first = facts.deliver()
    client = MlflowClient(facts.uri)
    client.rename_experiment(client.get_experiment_by_name("lessons").experiment_id, "the good one")
    facts.trial(1, loss=0.4)
    facts.deliver(first.offset, first.parent_run_id)
    assert_delivered(facts, tracking, 2)


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


def test_a_locked_database_is_waited_for(
    facts: Facts, tracking: Tracking, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import sqlite3
    from contextlib import closing

    monkeypatch.setattr("hpsearch.track.patience.FIRST_PAUSE", 0.01)
    facts.deliver()
    facts.trial(0, loss=0.5)
    with closing(sqlite3.connect(tracking.path)) as other:
        other.execute("begin exclusive")
        outbox = facts.outbox()
        outbox.start()
        time.sleep(0.3)
        assert outbox.offset == 0
        other.rollback()
    assert outbox.close(25)
    assert_delivered(facts, tracking, 1)
    assert capfd.readouterr() == ("", "")


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


def test_a_hint_ends_the_idle_wait(facts: Facts, tracking: Tracking) -> None:
    outbox = facts.outbox(interval=30)
    outbox.start()
    wait_for(lambda: outbox.parent_run_id)
    time.sleep(0.2)
    facts.trial(0, loss=0.5)
    outbox.wake()
    wait_for(lambda: outbox.offset == len(facts.changes), 5)
    assert outbox.close(10)


def test_a_fresh_database_is_made_in_silence_and_mlflow_only_when_the_thread_starts(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from conftest import make_facts
from hpsearch.track.uri import default_uri
home = Path({str(tmp_path)!r})
facts = make_facts(home, default_uri(home))
facts.trial(0, loss=0.5)
facts.finish()
outbox = facts.outbox()
assert "mlflow" not in sys.modules, "imported too early"
outbox.start()
assert outbox.close(60), outbox.problem
assert "mlflow" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mlartifacts", "mlflow.db"]
    assert_delivered_one(Tracking(tmp_path / "mlflow.db"))


def assert_delivered_one(tracking: Tracking) -> None:
    assert tracking.run(tracking.run_ids()["trial-0"])[0] == "FINISHED"


def test_the_embedded_default_is_an_absolute_address(tmp_path: Path) -> None:
    assert default_uri(tmp_path) == f"sqlite:////{str(tmp_path).lstrip('/')}/mlflow.db"
    assert default_uri(Path("studies")) == f"sqlite:///{Path('studies').absolute()}/mlflow.db"


def test_a_bug_in_the_thread_is_told_as_a_problem(facts: Facts, caplog: pytest.LogCaptureFixture) -> None:
    facts.add(0, None)
    facts.changes[0] = None  # type: ignore[call-overload]
    outbox: Outbox = facts.outbox()
    outbox.start()
    wait_for(lambda: outbox.problem)
    assert "the outbox stopped: AttributeError" in str(outbox.problem)
    assert not outbox.close(1)
    assert "the outbox stopped" in caplog.text
