"""Runs of trials that nobody works on: closed when their driver stops in order, opened by the next one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mlflow_facts import Facts, Tracking, assert_delivered

from hpsearch.study.trial import Attempt, Outcome, State

Fired = Callable[..., None]


def statuses(tracking: Tracking) -> dict[str, tuple[str, str]]:
    """What each trial's run says: its status and its tag `state`."""
    return {
        uid: (tracking.run(run_id)[0], tracking.tags(run_id)["state"])
        for uid, run_id in tracking.run_ids().items()
    }


def go_on(facts: Facts, number: int, attempt: int) -> None:
    facts.add(number, Attempt(attempt, facts.study.created + 4_000_000 * attempt))


@pytest.mark.parametrize("outcome", [Outcome.INTERRUPTED, Outcome.DEADLINE, Outcome.FAILED])
def test_trials_that_a_stopped_driver_leaves_unfinished_do_not_stay_running(
    facts: Facts, tracking: Tracking, outcome: Outcome
) -> None:
    facts.trial(0, loss=0.5)
    facts.suggest(1)
    facts.measure(1, 10, loss=1.0)
    facts.suggest(2)
    facts.finish(outcome, "SIGTERM")
    facts.deliver()
    assert statuses(tracking) == {
        "trial-0": ("FINISHED", "completed"),
        "trial-1": ("KILLED", "interrupted"),
        "trial-2": ("KILLED", "interrupted"),
    }
    run_id = tracking.run_ids()["trial-1"]
    assert tracking.tags(run_id)["reason"] == "SIGTERM"
    assert tracking.run(run_id)[2] == facts.study.created + 3_600_000


def test_a_resume_opens_the_runs_that_it_goes_on_with_and_their_ends_are_theirs(
    facts: Facts, tracking: Tracking
) -> None:
    facts.suggest(0)
    facts.suggest(1)
    facts.finish(Outcome.INTERRUPTED, "SIGTERM")
    first = facts.deliver()
    go_on(facts, 0, 2)
    second = facts.deliver(first.offset, first.parent_run_id)
    assert statuses(tracking) == {"trial-0": ("RUNNING", "running"), "trial-1": ("KILLED", "interrupted")}
    assert tracking.tags(tracking.run_ids()["trial-0"])["reason"] == "resumed"
    facts.measure(0, 10, loss=1.0)
    facts.end(0, State.PRUNED, "worse")
    go_on(facts, 1, 2)
    facts.end(1, State.PRUNED, "worse, too")
    facts.finish()
    facts.deliver(second.offset, second.parent_run_id)
    assert set(statuses(tracking).values()) == {("KILLED", "pruned")}
    for number in (0, 1):
        end = facts.study.created + number * 1_000 + 999
        assert tracking.run(tracking.run_ids()[f"trial-{number}"])[2] == end, "the end is the trial's own"
    assert_delivered(facts, tracking, 2)


@pytest.mark.parametrize("back", [3, 1_000])
def test_a_life_that_stopped_and_went_on_told_again_changes_nothing(
    facts: Facts, tracking: Tracking, back: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts.trial(0, loss=0.5)
    facts.suggest(1)
    facts.suggest(2)
    facts.finish(Outcome.INTERRUPTED, "SIGTERM")
    go_on(facts, 1, 2)
    facts.end(1)
    facts.finish(Outcome.INTERRUPTED, "SIGTERM")
    first = facts.deliver()
    everything = tracking.everything()
    facts.deliver(max(0, first.offset - back), first.parent_run_id)
    assert tracking.everything() == everything
    monkeypatch.setattr("hpsearch.track.outbox.PAGE", 2)
    facts.deliver(max(0, first.offset - back), first.parent_run_id)
    assert statuses(tracking) == {
        "trial-0": ("FINISHED", "completed"),
        "trial-1": ("FINISHED", "completed"),
        "trial-2": ("KILLED", "interrupted"),
    }


@pytest.mark.fault("F57")
def test_runs_whose_end_was_told_once_and_that_say_running_are_closed_at_the_next_start(
    facts: Facts, tracking: Tracking, fired: Fired
) -> None:
    """As after a tracking database was restored from a backup, or a user opened a run again."""
    from mlflow.tracking import MlflowClient

    facts.trial(0, loss=0.5)
    facts.trial(1, loss=0.5, state=State.PRUNED)
    first = facts.deliver()
    for run_id in tracking.run_ids().values():
        MlflowClient(facts.uri).update_run(run_id, "RUNNING")
    fired(all(status == "RUNNING" for status, _ in statuses(tracking).values()))
    facts.deliver(first.offset, first.parent_run_id)
    assert statuses(tracking) == {"trial-0": ("FINISHED", "completed"), "trial-1": ("KILLED", "pruned")}
    assert_delivered(facts, tracking, 2)
