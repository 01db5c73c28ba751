"""The JSON objects: exact keys, values that strict parsers read, and states that facts give."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import facts
import pytest
from facts import YAML, completed, failed, infeasible, pruned, running, scored

from hpsearch.show import answers
from hpsearch.spec.model import Reading, Selection
from hpsearch.spec.reading import parse
from hpsearch.study.history import History
from hpsearch.study.trial import Outcome, StudyEnding

TRIAL_KEYS = {
    "number",
    "uid",
    "state",
    "reason",
    "params",
    "step",
    "objective",
    "objectives",
    "attempts",
    "started",
    "ended",
}
Make = Callable[..., History]


def test_check_has_every_documented_key_and_each_type_of_parameter() -> None:
    answer = answers.check(parse(YAML, "x.yaml"))
    assert set(answer) == {
        "file",
        "dialect",
        "valid",
        "errors",
        "warnings",
        "parameters",
        "objectives",
        "maxTrials",
        "maxParallelTrials",
    }
    assert answer["valid"] is True
    assert answer["dialect"] == "cloud_ml_engine"
    assert answer["objectives"] == [{"metric": "loss", "goal": "MINIMIZE"}]
    assert (answer["maxTrials"], answer["maxParallelTrials"]) == (20, 2)
    assert answer["parameters"] == [
        {
            "name": "lr",
            "type": "DOUBLE",
            "min": 0.0001,
            "max": 0.1,
            "values": None,
            "scale": "UNIT_LOG_SCALE",
            "condition": None,
        },
        {
            "name": "depth",
            "type": "INTEGER",
            "min": 1,
            "max": 8,
            "values": None,
            "scale": "UNIT_LINEAR_SCALE",
            "condition": None,
        },
        {
            "name": "batch",
            "type": "DISCRETE",
            "min": None,
            "max": None,
            "values": [16, 32],
            "scale": "UNIT_LINEAR_SCALE",
            "condition": None,
        },
        {
            "name": "kind",
            "type": "CATEGORICAL",
            "min": None,
            "max": None,
            "values": ["a", "b"],
            "scale": None,
            "condition": None,
        },
    ]


def test_check_shows_for_which_values_of_its_parent_a_parameter_is_active(tmp_path: Path) -> None:
    shown = answers.parameters(facts.several(tmp_path).spec.space)
    assert [(one["name"], one["condition"]) for one in shown] == [
        ("optimizer", None),
        ("rate", {"parent": "optimizer", "values": ["adam"]}),
        ("rate", {"parent": "optimizer", "values": ["sgd"]}),
        ("layers", None),
        ("width", {"parent": "layers", "values": [2, 3]}),
        ("dropout", {"parent": "width", "values": [16.5]}),
    ]


def test_check_of_an_invalid_file_lists_its_errors_and_no_parameters() -> None:
    reading = parse(YAML.replace("maxTrials: 20", "maxTrials: many"), "x.yaml")
    answer = answers.check(reading)
    assert (answer["valid"], answer["parameters"], answer["objectives"]) == (False, [], [])
    assert answer["maxTrials"] is None
    (error,) = answer["errors"]
    assert set(error) == {"line", "column", "path", "value", "message", "hint"}
    assert error["value"] == "many"
    assert (error["line"], error["column"]) == (6, 16)


def test_an_unreadable_reading_is_not_valid() -> None:
    assert answers.check(Reading("x", "cloud_ml_engine", None, (), ()))["valid"] is False


def test_trials_have_the_documented_keys_and_utc_times(history: Make) -> None:
    answer = answers.trials(history(completed(0, 2.5), running(1)))
    assert set(answer) == {"study", "trials"}
    first, second = answer["trials"]
    assert set(first) == set(second) == TRIAL_KEYS
    assert first == {
        "number": 0,
        "uid": "u-0",
        "state": "completed",
        "reason": "reached step 200",
        "params": {"lr": 0.012345678, "depth": 3, "batch": 16, "kind": "a"},
        "step": 200,
        "objective": 2.5,
        "objectives": {"loss": 2.5},
        "attempts": 1,
        "started": "2026-01-31T12:00:00.007Z",
        "ended": "2026-01-31T12:00:10.000Z",
    }
    assert (second["state"], second["reason"], second["ended"]) == ("running", None, None)


def test_a_pruned_trial_shows_its_last_finite_value_and_an_infeasible_one_none(history: Make) -> None:
    told = history(pruned(0, [5.0, 6.0, math.nan]), infeasible(1, [3.0, math.inf]), failed(2))
    first, second, third = answers.trials(told)["trials"]
    assert (first["objective"], first["step"]) == (6.0, 300)
    assert (second["objective"], second["step"]) == (None, 200)
    assert (third["objective"], third["step"]) == (None, None)


def test_what_counts_follows_the_selection_for_completed_trials_only(history: Make) -> None:
    told = history(completed(0, 1.0, 4.0), pruned(1, [1.0, 4.0]))
    study = replace(told.study, spec=replace(told.study.spec, selection=Selection.BEST))
    assert [answers.trial(trial, study)["objective"] for trial in told.trials] == [1.0, 4.0]


def test_best_names_the_trial_and_the_step_that_counts(history: Make) -> None:
    answer = answers.best(history(completed(0, 2.5), completed(1, 1.5), pruned(2, [0.1])))
    keys = {"study", "trial", "metric", "goal", "value", "step", "objectives", "constraints", "front"}
    assert set(answer) == keys
    assert answer["constraints"] == []
    assert set(answer["trial"]) == TRIAL_KEYS
    assert answer["objectives"] == [{"metric": "loss", "goal": "MINIMIZE", "value": 1.5}]
    assert answer["front"] == [answer["trial"]]
    assert (answer["trial"]["number"], answer["value"], answer["step"]) == (1, 1.5, 200)
    assert (answer["metric"], answer["goal"]) == ("loss", "MINIMIZE")


def test_best_without_a_completed_trial_has_a_null_trial(history: Make) -> None:
    answer = answers.best(history(pruned(0, [0.1])))
    assert (answer["trial"], answer["value"], answer["step"], answer["front"]) == (None, None, None, [])
    assert answer["objectives"] == [{"metric": "loss", "goal": "MINIMIZE", "value": None}]


def test_best_of_several_objectives_names_the_front_and_its_best_by_the_first(tmp_path: Path) -> None:
    trials = [scored(0, 3.0, 0.9), scored(1, 1.0, 0.5), scored(2, 2.0, 0.4), scored(3, 2.0, 0.8)]
    answer = answers.best(facts.history(facts.several(tmp_path), trials))
    assert [one["number"] for one in answer["front"]] == [0, 1, 3]
    assert (answer["trial"]["number"], answer["value"], answer["step"]) == (1, 1.0, 100)
    assert answer["objectives"] == [
        {"metric": "loss", "goal": "MINIMIZE", "value": 1.0},
        {"metric": "accuracy", "goal": "MAXIMIZE", "value": 0.5},
    ]
    assert answer["trial"]["objectives"] == {"loss": 1.0, "accuracy": 0.5}


def test_a_trial_that_lacks_an_objective_shows_null_for_it_and_is_not_on_the_front(tmp_path: Path) -> None:
    told = facts.history(facts.several(tmp_path), [scored(0, 1.0, math.nan), scored(1, 2.0, 0.5)])
    assert answers.trials(told)["trials"][0]["objectives"] == {"loss": 1.0, "accuracy": None}
    assert [one["number"] for one in answers.best(told)["front"]] == [1]


def test_only_safe_trials_are_the_best(tmp_path: Path) -> None:
    trials = [scored(0, 1.0, 0.9, latency=101.0), scored(1, 2.0, 0.5, latency=100.0), scored(2, 0.5, 0.9)]
    answer = answers.best(facts.history(facts.several(tmp_path, limit=100.0), trials))
    assert ([one["number"] for one in answer["front"]], answer["trial"]["number"]) == ([1], 1)


def test_best_has_the_values_of_the_constraints_and_null_where_no_trial_keeps_them(tmp_path: Path) -> None:
    study = facts.several(tmp_path, limit=100.0)
    kept = {"metric": "latency", "goal": "MINIMIZE", "threshold": 100.0}
    answer = answers.best(facts.history(study, [scored(0, 1.0, 0.9, latency=99.5)]))
    assert answer["constraints"] == [kept | {"value": 99.5}]
    answer = answers.best(facts.history(study, [scored(0, 1.0, 0.9, latency=100.5)]))
    assert answer["constraints"] == [kept | {"value": None}]


def test_show_has_the_documented_keys(history: Make, tmp_path: Path) -> None:
    told = history(completed(0, 2.5), pruned(1, [9.0]), failed(2), infeasible(3, [math.inf]), running(4))
    answer = answers.show(told, owned=True, tracking_uri="http://host")
    assert {"study", "state", "counts", "best", "home", "tracking_uri", "parent_run_id"} <= set(answer)
    assert answer["counts"] == {"completed": 1, "pruned": 1, "failed": 1, "infeasible": 1, "running": 1}
    assert answer["best"]["number"] == 0
    assert answer["home"] == str(tmp_path)
    assert answer["tracking_uri"] == "http://host"
    assert answer["parent_run_id"] is None


@pytest.mark.parametrize("outcome", Outcome)
def test_the_state_of_a_study_is_its_last_outcome(history: Make, outcome: Outcome) -> None:
    told = history(completed(0, 1.0), ending=StudyEnding(outcome, "so it was", 5))
    assert answers.state(told, owned=False) == outcome
    assert answers.state(told, owned=True) == "running"


def test_a_study_whose_driver_was_killed_is_interrupted(history: Make) -> None:
    assert answers.state(history(running(0)), owned=False) == "interrupted"


def test_list_shows_each_study_and_names_the_unreadable_one(history: Make, tmp_path: Path) -> None:
    shown = answers.show(history(completed(0, 1.0)), owned=False, tracking_uri="u")
    answer = answers.studies(tmp_path, [("fine", shown), ("broken", None)])
    assert set(answer) == {"home", "studies"}
    assert answer["studies"][0] == shown
    assert answer["studies"][1] == {"study": "broken", "state": "unreadable", "counts": None, "best": None}


def test_no_object_holds_nan_or_infinity(history: Make) -> None:
    told = history(infeasible(0, [math.inf]), completed(1, math.nan, 1.0), pruned(2, [math.nan]))
    told.trials[0].params = {"lr": math.nan}
    for answer in (
        answers.trials(told),
        answers.best(told),
        answers.show(told, owned=False, tracking_uri=""),
    ):
        json.dumps(answer, allow_nan=False)
    assert answers.trials(told)["trials"][0]["params"] == {"lr": None}


def test_moments_keep_their_milliseconds() -> None:
    assert answers.moment(1_769_860_800_001) == "2026-01-31T12:00:00.001Z"
    assert answers.moment(None) is None
