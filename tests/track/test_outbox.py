"""The outbox over real MLflow databases: what a study and its trials become, and what that costs."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from mlflow_facts import Facts, Tracking, assert_delivered, expected_points, wait_for

from hpsearch.study.trial import Change, Measurement, Outcome, State
from hpsearch.track import outbox as outbox_module
from hpsearch.track.uri import default_uri


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
        "versions": "torch 2.13.0",
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
        ("loss", 30, 0.3, created + 3_999),
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


def test_a_bad_metric_name_is_cleaned_and_does_not_reject_its_batch(facts: Facts, tracking: Tracking) -> None:
    facts.suggest(0, **{"weight%": 1.0})
    facts.measure(0, 1, **{"loss": 1.0, "acc@5": 0.5, "../up": 1.0, "n" * 300: 2.0})
    assert facts.deliver().set_aside == 0
    run_id = tracking.run_ids()["trial-0"]
    names = {name for name, *_ in tracking.points(run_id)}
    assert {"loss", "acc_405"} < names
    assert len(names) == 4
    assert tracking.params(run_id) == {"weight_25": "1.0"}


def test_a_fresh_database_is_made_in_silence_and_mlflow_only_when_the_thread_starts(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from mlflow_facts import make_facts
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
    files = {p.name: p.stat().st_size for p in tmp_path.iterdir()}
    assert set(files) - {"mlflow.db-wal", "mlflow.db-shm"} == {"mlartifacts", "mlflow.db"}
    assert files.get("mlflow.db-wal", 0) == 0, "the file alone must be whole"
    assert_delivered_one(Tracking(tmp_path / "mlflow.db"))


def assert_delivered_one(tracking: Tracking) -> None:
    assert tracking.run(tracking.run_ids()["trial-0"])[0] == "FINISHED"


def test_the_embedded_default_is_an_absolute_address(tmp_path: Path) -> None:
    assert default_uri(tmp_path) == f"sqlite:////{str(tmp_path).lstrip('/')}/mlflow.db"
    assert default_uri(Path("studies")) == f"sqlite:///{Path('studies').absolute()}/mlflow.db"
