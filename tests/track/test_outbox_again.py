"""The outbox started again: every run and every point once, whatever happened in between."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from mlflow_facts import Facts, Tracking, assert_delivered, failing, store_class, wait_for

from hpsearch.study.trial import Attempt, Outcome


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
