"""A study as its service's resource: the documented fields and texts, the best trial first, strict JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import facts
import pytest
from facts import completed, failed, infeasible, pruned, running, scored
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.show.resources import cloudml, vertex
from hpsearch.spec.model import Goal, Objective, Selection
from hpsearch.study.front import best_of
from hpsearch.study.history import History
from hpsearch.study.trial import Measurement, Outcome, State, StudyEnding, Trial

Make = Callable[..., History]
REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "cloud_ml_engine.md"
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
MANY = [
    completed(0, 2.5),
    pruned(1, [9.0, 0.5]),
    completed(2, 1.5),
    failed(3),
    infeasible(4, [3.0, math.inf]),
]


def documented(name: str) -> set[str]:
    """The fields that the reference lists for an object of section 11."""
    row = next(line for line in REFERENCE.read_text().splitlines() if line.startswith(f"| {name} |"))
    return set(re.findall(r"`(\w+)", row.split("|")[2]))


def strict(resource: dict[str, Any]) -> dict[str, Any]:
    """The resource as another program reads it."""
    read: dict[str, Any] = json.loads(json.dumps(resource, allow_nan=False))
    return read


def with_goal(told: History, goal: Goal, selection: Selection) -> History:
    spec = replace(told.study.spec, objectives=(Objective("loss", goal),), selection=selection)
    return replace(told, study=replace(told.study, spec=spec))


# -- Cloud ML Engine ------------------------------------------------------------------------------------


def test_the_job_is_the_documented_resource(history: Make) -> None:
    told = history(*MANY, running(5, 7.0), ending=StudyEnding(Outcome.COMPLETED, "done", facts.NOON + 60_000))
    job = strict(cloudml(told, owned=False))
    assert list(job) == [
        "jobId",
        "trainingInput",
        "state",
        "createTime",
        "startTime",
        "endTime",
        "trainingOutput",
    ]
    assert (job["jobId"], job["state"]) == ("demo", "SUCCEEDED")
    assert job["createTime"] == "2026-01-31T12:00:00.000Z"
    assert job["startTime"] == "2026-01-31T12:00:00.007Z"
    assert job["endTime"] == "2026-01-31T12:01:00.000Z"
    output = job["trainingOutput"]
    assert output["completedTrialCount"] == "3"
    assert output["isHyperparameterTuningJob"] is True
    assert output["hyperparameterMetricTag"] == "loss"
    assert output["trials"][0] == {
        "trialId": "3",
        "hyperparameters": {"lr": "0.012345678", "depth": "3", "batch": "16", "kind": "a"},
        "state": "SUCCEEDED",
        "finalMetric": {"trainingStep": "200", "objectiveValue": 1.5},
        "startTime": "2026-01-31T12:00:00.007Z",
        "endTime": "2026-01-31T12:00:10.000Z",
    }


def test_its_fields_are_those_of_the_reference(history: Make) -> None:
    output = cloudml(history(*MANY), owned=True)["trainingOutput"]
    assert set(output) <= documented("TrainingOutput")
    for trial in output["trials"]:
        assert set(trial) <= documented("HyperparameterOutput")
        assert {"trialId", "hyperparameters", "state", "startTime", "endTime"} <= set(trial)


def test_the_best_trial_is_first_then_those_with_an_objective_then_the_others_by_id(history: Make) -> None:
    output = cloudml(history(*MANY, completed(5, 2.0), running(6, 0.1)), owned=True)["trainingOutput"]
    # Trial "2" was stopped early at the lowest loss of all, which never makes it the best one.
    assert [trial["trialId"] for trial in output["trials"]] == ["3", "2", "6", "1", "4", "5"]


def test_a_script_that_reads_the_first_trial_finds_the_best_one(history: Make) -> None:
    output = strict(cloudml(history(completed(0, 0.9), completed(1, 0.2)), owned=False))["trainingOutput"]
    first = output["trials"][0]
    assert float(first["hyperparameters"]["lr"]) == 0.012345678
    assert [int(first["hyperparameters"][name]) for name in ("depth", "batch")] == [3, 16]
    assert (int(first["finalMetric"]["trainingStep"]), first["finalMetric"]["objectiveValue"]) == (200, 0.2)
    assert int(output["completedTrialCount"]) == 2


def test_how_a_trial_ended_is_told_in_the_words_of_the_service(history: Make) -> None:
    output = cloudml(history(*MANY), owned=True)["trainingOutput"]
    trials = {trial["trialId"]: trial for trial in output["trials"]}
    assert {number: trial["state"] for number, trial in trials.items()} == {
        "1": "SUCCEEDED",
        "2": "SUCCEEDED",
        "3": "SUCCEEDED",
        "4": "FAILED",
        "5": "FAILED",
    }
    assert trials["2"]["isTrialStoppedEarly"] is True
    assert trials["2"]["finalMetric"] == {"trainingStep": "200", "objectiveValue": 0.5}
    assert [number for number, trial in trials.items() if "isTrialStoppedEarly" in trial] == ["2"]
    assert [number for number, trial in trials.items() if "finalMetric" not in trial] == ["4", "5"]


def test_a_failed_trial_shows_no_final_metric_although_it_measured_one(history: Make) -> None:
    broken = facts.trial(0, [0.001], State.FAILED, "it fell over")
    output = cloudml(history(broken, completed(1, 5.0)), owned=True)["trainingOutput"]
    assert [trial["trialId"] for trial in output["trials"]] == ["2", "1"]
    assert "finalMetric" not in output["trials"][1]


def test_before_the_first_trial_has_ended_there_are_no_trials(history: Make) -> None:
    assert cloudml(history(), owned=True)["trainingOutput"] == {"isHyperparameterTuningJob": True}
    job = cloudml(history(running(0, 1.0)), owned=True)
    assert job["trainingOutput"] == {"isHyperparameterTuningJob": True}
    assert (job["state"], "endTime" in job) == ("RUNNING", False)


STATES = [
    (Outcome.COMPLETED, "SUCCEEDED", None),
    (Outcome.FAILED, "FAILED", 2),
    (Outcome.DEADLINE, "CANCELLED", 4),
    (Outcome.INTERRUPTED, "CANCELLED", 1),
]


@pytest.mark.parametrize(("outcome", "state", "code"), STATES)
def test_the_state_of_a_job_and_why_it_failed(
    history: Make, outcome: Outcome, state: str, code: int | None
) -> None:
    told = history(completed(0, 1.0), ending=StudyEnding(outcome, "so it was", facts.NOON))
    job, theirs = cloudml(told, owned=False), vertex(told, owned=False)
    assert (job["state"], theirs["state"]) == (state, f"JOB_STATE_{state}")
    assert job.get("errorMessage") == (None if code is None else "so it was")
    assert theirs.get("error") == (None if code is None else {"code": code, "message": "so it was"})


def test_a_study_whose_driver_was_killed_is_cancelled_and_one_that_goes_on_runs(history: Make) -> None:
    killed = cloudml(history(running(0)), owned=False)
    assert (killed["state"], killed["errorMessage"]) == ("CANCELLED", "its driver was killed")
    again = history(running(0), ending=StudyEnding(Outcome.INTERRUPTED, "a signal", facts.NOON))
    going = cloudml(again, owned=True)
    assert going["state"] == "RUNNING"
    assert not {"errorMessage", "endTime"} & set(going)


TRIALS = st.lists(
    st.tuples(
        st.sampled_from([*State]),
        st.lists(st.floats(width=16) | st.sampled_from([0.0, 1.0]), max_size=3),
    ),
    max_size=12,
)


@given(TRIALS, st.sampled_from(Goal), st.sampled_from(Selection))
def test_element_zero_is_the_best_trial_whatever_happened(
    told: list[tuple[State, list[float]]], goal: Goal, selection: Selection
) -> None:
    trials = [
        facts.trial(number, values, None if state is State.RUNNING else state, "so it ended")
        for number, (state, values) in enumerate(told)
    ]
    made = with_goal(facts.history(facts.study(Path("home")), trials), goal, selection)
    output = strict(cloudml(made, owned=True))["trainingOutput"]
    listed = output.get("trials", [])
    assert sorted(int(trial["trialId"]) for trial in listed) == [t.number + 1 for t in trials if t.ending]
    best = best_of(trials, made.study)
    if best:
        assert listed[0]["trialId"] == str(best.number + 1)
    values = [trial["finalMetric"]["objectiveValue"] for trial in listed if "finalMetric" in trial]
    others = values[1:] if best else values
    assert others == sorted(others, reverse=goal is Goal.MAXIMIZE)
    assert all("finalMetric" in trial for trial in listed[: len(values)])
    assert len(strict(vertex(made, owned=True)).get("trials", [])) == len(trials)


def test_with_constraints_the_first_trial_is_the_best_safe_one(tmp_path: Path) -> None:
    trials = [scored(0, 1.0, 0.9, latency=101.0), scored(1, 2.0, 0.5, latency=99.0)]
    output = cloudml(facts.history(facts.several(tmp_path, limit=100.0), trials), owned=True)[
        "trainingOutput"
    ]
    assert [trial["trialId"] for trial in output["trials"]] == ["2", "1"]


# -- Vertex AI ------------------------------------------------------------------------------------------


def test_the_tuning_job_is_the_documented_resource(tmp_path: Path) -> None:
    lost = scored(2, math.nan, math.nan)
    lost.ending = facts.infeasible(2, []).ending
    unmeasured = Trial(3, "u-3", {"optimizer": "sgd", "rate": 0.5, "layers": 2, "width": 8}, facts.NOON)
    told = facts.history(
        facts.several(tmp_path, limit=100.0),
        [scored(0, 3.0, 0.5, latency=90.0), scored(1, 2.0, 0.5, latency=80.0), lost, unmeasured],
    )
    job = strict(vertex(told, owned=True))
    assert (job["displayName"], job["state"]) == ("demo", "JOB_STATE_RUNNING")
    assert (job["maxTrialCount"], job["parallelTrialCount"]) == (20, 2)
    assert "maxFailedTrialCount" not in job
    assert [trial["id"] for trial in job["trials"]] == ["1", "2", "3", "4"]
    assert [trial["state"] for trial in job["trials"]] == ["SUCCEEDED", "SUCCEEDED", "INFEASIBLE", "ACTIVE"]
    metrics = [
        {"metricId": "loss", "value": 3.0},
        {"metricId": "accuracy", "value": 0.5},
        {"metricId": "latency", "value": 90.0},
    ]
    assert job["trials"][0] == {
        "id": "1",
        "state": "SUCCEEDED",
        "parameters": [
            {"parameterId": "optimizer", "value": "adam"},
            {"parameterId": "rate", "value": 0.01},
            {"parameterId": "layers", "value": 1},
        ],
        "finalMeasurement": {"stepCount": "100", "metrics": metrics},
        "measurements": [{"stepCount": "100", "metrics": metrics}],
        "startTime": "2026-01-31T12:00:00.007Z",
        "endTime": "2026-01-31T12:00:10.000Z",
    }
    assert job["trials"][2]["infeasibleReason"] == "training loss is inf"
    assert not {"finalMeasurement", "measurements"} & set(job["trials"][2])
    assert set(job["trials"][3]) == {"id", "state", "parameters"}


def test_an_unfinished_trial_is_active_only_in_a_job_that_runs(history: Make) -> None:
    told = history(running(0, 1.0), ending=StudyEnding(Outcome.INTERRUPTED, "stopped", facts.NOON))
    shown = [vertex(told, owned=owned) for owned in (True, False)]
    assert [(job["state"], job["trials"][0]["state"]) for job in shown] == [
        ("JOB_STATE_RUNNING", "ACTIVE"),
        ("JOB_STATE_CANCELLED", "STOPPING"),
    ]


def test_a_trial_shows_every_finite_measurement_and_the_one_that_counts(history: Make) -> None:
    told = with_goal(
        history(completed(0, 1.0, 4.0), pruned(1, [1.0, math.nan, 4.0]), failed(2)),
        Goal.MINIMIZE,
        Selection.BEST,
    )
    told.trials[0].measurements.append(Measurement(300, {"loss": math.inf, "other": 1.0}, facts.NOON))
    first, second, third = strict(vertex(told, owned=True))["trials"]
    assert first["finalMeasurement"] == {"stepCount": "100", "metrics": [{"metricId": "loss", "value": 1.0}]}
    assert [each["stepCount"] for each in first["measurements"]] == ["100", "200"]
    assert [each["stepCount"] for each in second["measurements"]] == ["100", "300"]
    assert second["finalMeasurement"] == {"stepCount": "300", "metrics": [{"metricId": "loss", "value": 4.0}]}
    assert (third["state"], third["infeasibleReason"]) == ("INFEASIBLE", "ValueError: no data")


def test_times_are_utc_and_not_finite_params_do_not_break_the_json(history: Make) -> None:
    told = history(*MANY)
    told.trials[0].params = {"lr": math.nan}
    times: list[str] = []

    def walk(found: Any) -> None:
        if isinstance(found, dict):
            times.extend(value for name, value in found.items() if name.endswith("Time"))
            for value in found.values():
                walk(value)
        elif isinstance(found, list):
            for value in found:
                walk(value)

    walk(strict(cloudml(told, owned=False)))
    walk(strict(vertex(told, owned=False)))
    assert len(times) == 2 * (2 + 2 * len(MANY))
    assert all(RFC3339.fullmatch(time) for time in times)
