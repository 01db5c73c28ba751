"""A Spec in the words of both services: what is printed reads back as the same search."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import facts
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.show.dialects import study_spec, training_input, trial_job_spec
from hpsearch.show.resources import vertex
from hpsearch.show.secrets import masked
from hpsearch.spec.model import (
    Algorithm,
    Limits,
    Program,
    PrunerSpec,
    PruningRule,
    SamplerSpec,
    SearchSpace,
    Selection,
    Spec,
    Stopping,
)
from hpsearch.spec.reading import parse, read
from hpsearch.study.trial import Study

COMPAT = Path(__file__).parents[2].parent / "shared" / "compat"


def accepted(dialect: str) -> list[Path]:
    """The public files of a dialect that a reader must accept."""
    with (COMPAT / dialect / "MANIFEST.tsv").open(encoding="utf-8") as stream:
        rows = csv.DictReader(stream, delimiter="\t")
        return [COMPAT / dialect / row["file"] for row in rows if row["class"] != "error"]


FILES = [*accepted("cloud_ml_engine"), *accepted("vertex_ai")]


def plain(home: Path) -> Spec:
    return facts.study(home).spec


def read_again(resource: dict[str, Any]) -> Spec:
    reading = parse(json.dumps(resource, allow_nan=False), "again.json")
    assert reading.spec, reading.errors
    return reading.spec


def as_cloudml(spec: Spec) -> Spec:
    return read_again({"trainingInput": training_input(spec)})


def as_vertex(spec: Spec) -> Spec:
    study = Study("demo", "u", 0, spec, Path("demo"))
    job = vertex(facts.history(study, []), owned=True)
    keys = ("displayName", "studySpec", "maxTrialCount", "parallelTrialCount", "maxFailedTrialCount")
    return read_again({key: job[key] for key in (*keys, "trialJobSpec") if key in job})


def search(spec: Spec) -> dict[str, Any]:
    """What both dialects can say of a search."""
    return {
        "parameters": spec.space.parameters,
        "objective": spec.objective,
        "maxTrials": spec.max_trials,
        "maxParallelTrials": spec.max_parallel_trials,
        "maxFailedTrials": spec.limits.max_failed_trials,
        "algorithm": spec.sampler.type,
        "module": spec.module,
        "args": spec.args,
    }


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name[:60])
def test_a_public_file_is_the_same_search_in_both_dialects(file: Path) -> None:
    spec = read(file).spec
    assert spec is not None
    told = as_cloudml(spec)
    assert search(told) == search(spec)
    assert told.pruner.type is spec.pruner.type
    if " " in spec.objective.metric:  # which only Cloud ML Engine allows
        return
    told = as_vertex(spec)
    assert search(told) == search(spec)
    assert (told.pruner, told.selection) == (spec.pruner, spec.selection)


def test_the_files_own_training_input_is_kept_beside_the_hyperparameters(tmp_path: Path) -> None:
    yaml = facts.YAML.replace(
        "trainingInput:\n", "trainingInput:\n  scaleTier: BASIC_GPU\n  args: [--epochs, '3']\n"
    )
    told = training_input(facts.study(tmp_path, yaml=yaml).spec)
    assert (told["scaleTier"], told["args"]) == ("BASIC_GPU", ["--epochs", "3"])
    assert told["hyperparameters"] == {
        "goal": "MINIMIZE",
        "hyperparameterMetricTag": "loss",
        "maxTrials": 20,
        "maxParallelTrials": 2,
        "params": [
            {
                "parameterName": "lr",
                "type": "DOUBLE",
                "minValue": 0.0001,
                "maxValue": 0.1,
                "scaleType": "UNIT_LOG_SCALE",
            },
            {
                "parameterName": "depth",
                "type": "INTEGER",
                "minValue": 1,
                "maxValue": 8,
                "scaleType": "UNIT_LINEAR_SCALE",
            },
            {"parameterName": "batch", "type": "DISCRETE", "discreteValues": [16, 32]},
            {"parameterName": "kind", "type": "CATEGORICAL", "categoricalValues": ["a", "b"]},
        ],
    }


def test_what_is_set_is_told_and_defaults_are_not(tmp_path: Path) -> None:
    spec = replace(
        plain(tmp_path),
        limits=Limits(max_failed_trials=3),
        pruner=PrunerSpec(PruningRule.ASHA),
        sampler=SamplerSpec(Algorithm.GRID),
        previous="demo-1",
    )
    told = training_input(spec)["hyperparameters"]
    assert (told["maxFailedTrials"], told["enableTrialEarlyStopping"]) == (3, True)
    assert (told["algorithm"], told["resumePreviousJobId"]) == ("GRID_SEARCH", "demo-1")
    # Vertex AI has no word for ASHA.
    assert set(study_spec(spec)) == {"metrics", "parameters", "algorithm"}


def test_a_program_of_one_service_is_told_to_the_other(tmp_path: Path) -> None:
    program = Program(env=(("A", "1"),), job_dir="gs://b/jobs", output="gs://b/out", region="us-central1")
    spec = replace(
        plain(tmp_path),
        dialect="hpsearch",
        args=("--x=1",),
        program=program,
        limits=Limits(study_timeout=7200.0, trial_timeout=600.0),
    )
    told = training_input(spec)
    del told["hyperparameters"]
    assert told == {
        "pythonModule": "hpsearch.trainers.linear_regression",
        "args": ["--x=1"],
        "jobDir": "gs://b/jobs",
        "region": "us-central1",
        "scheduling": {"maxRunningTime": "7200s"},
    }
    started = {
        "pythonModule": "hpsearch.trainers.linear_regression",
        "args": ["--x=1"],
        "env": [{"name": "A", "value": "1"}],
    }
    assert trial_job_spec(spec) == {
        "workerPoolSpecs": [{"replicaCount": "1", "pythonPackageSpec": started}],
        "scheduling": {"timeout": "600s"},
        "baseOutputDirectory": {"outputUriPrefix": "gs://b/out"},
    }


def test_a_command_is_told_as_that_of_a_container(tmp_path: Path) -> None:
    spec = replace(
        plain(tmp_path),
        dialect="hpsearch",
        args=("--x=1",),
        program=Program(command=("python", "train.py")),
    )
    told = training_input(spec)
    assert told["masterConfig"] == {"containerCommand": ["python", "train.py"], "containerArgs": ["--x=1"]}
    assert not {"pythonModule", "args"} & set(told)
    (pool,) = trial_job_spec(spec)["workerPoolSpecs"]
    assert pool["containerSpec"] == {"command": ["python", "train.py"], "args": ["--x=1"]}


def test_a_resource_of_the_file_that_holds_no_number_is_told_as_text(tmp_path: Path) -> None:
    spec = replace(plain(tmp_path), program=Program(job='{"labels": {"a": NaN}}'))
    assert training_input(spec)["labels"] == {"a": "NaN"}


def test_secrets_of_what_is_run_are_not_told_in_either_dialect(tmp_path: Path) -> None:
    yaml = facts.YAML.replace(
        "trainingInput:\n",
        "trainingInput:\n  args: ['--api-key=a b', --token, abc, '--db=http://ann:x@host/x', '--epochs=3']\n",
    )
    spec = facts.study(tmp_path, yaml=yaml).spec
    shown = ["--api-key=***", "--token", "***", "--db=http://host/x", "--epochs=3"]
    assert training_input(spec)["args"] == shown
    (pool,) = trial_job_spec(spec)["workerPoolSpecs"]
    assert pool["pythonPackageSpec"]["args"] == shown


def test_secrets_of_a_file_of_vertex_ai_are_not_told_whatever_the_order_of_their_keys(tmp_path: Path) -> None:
    env = "[{name: WANDB_API_KEY, value: abc}, {value: abc, name: HF_TOKEN}, {name: HOME, value: /h}]"
    package = f"{{pythonModule: t, args: ['--password=a\"bc'], env: {env}}}"
    study = "{metrics: [{metricId: loss}], parameters: [{parameterId: token, doubleValueSpec: "
    study += "{minValue: 0, maxValue: 1}}]}"
    yaml = f"studySpec: {study}\ntrialJobSpec: {{workerPoolSpecs: [{{pythonPackageSpec: {package}}}]}}\n"
    spec = facts.study(tmp_path, yaml=yaml).spec
    (pool,) = trial_job_spec(spec)["workerPoolSpecs"]
    assert pool["pythonPackageSpec"] == {
        "pythonModule": "t",
        "args": ["--password=***"],
        "env": [
            {"name": "WANDB_API_KEY", "value": "***"},
            {"name": "HF_TOKEN", "value": "***"},
            {"name": "HOME", "value": "/h"},
        ],
    }
    # The parameter is no secret, though it is called so.
    assert study_spec(spec)["parameters"][0]["doubleValueSpec"] == {"minValue": 0, "maxValue": 1}


@given(st.recursive(st.text() | st.none() | st.integers(), lambda inner: st.lists(inner)))
def test_secrets_are_found_whatever_they_hold(part: Any) -> None:
    odd = [part, "--api-key=" + json.dumps(part), "--token", part, {"value": part, "name": "A_TOKEN"}, "x"]
    told = json.loads(json.dumps(masked(odd)))
    assert told[1:4] == ["--api-key=***", "--token", told[3]]
    assert told[3] == "***" or str(part).startswith("-")
    assert told[4] == {"value": "***" if part else part, "name": "A_TOKEN"}
    assert told[5] == "x"


def test_conditions_are_a_tree_in_vertex_and_a_list_in_cloud_ml_engine(tmp_path: Path) -> None:
    spec = facts.several(tmp_path).spec
    rate = {"doubleValueSpec": {"minValue": 0.001, "maxValue": 0.1}, "scaleType": "UNIT_LOG_SCALE"}
    optimizer, layers = study_spec(spec)["parameters"]
    assert optimizer["categoricalValueSpec"] == {"values": ["adam", "sgd"]}
    assert optimizer["conditionalParameterSpecs"][0] == {
        "parentCategoricalValues": {"values": ["adam"]},
        "parameterSpec": {"parameterId": "rate"} | rate,
    }
    assert layers["integerValueSpec"] == {"minValue": "1", "maxValue": "3"}
    (below,) = layers["conditionalParameterSpecs"]
    assert below["parentIntValues"] == {"values": ["2", "3"]}
    (leaf,) = below["parameterSpec"]["conditionalParameterSpecs"]
    assert leaf["parentDiscreteValues"] == {"values": [16.5]}
    assert leaf["parameterSpec"]["parameterId"] == "dropout"
    names = [each["parameterName"] for each in training_input(spec)["hyperparameters"]["params"]]
    assert names == ["optimizer", "rate", "layers", "width", "dropout"]
    # A job may name a parameter only once.
    assert training_input(spec)["hyperparameters"]["params"][1]["maxValue"] == 0.1


def test_a_search_with_all_that_vertex_ai_knows_reads_back_the_same(tmp_path: Path) -> None:
    spec = replace(
        facts.several(tmp_path, limit=12.5).spec,
        sampler=SamplerSpec(Algorithm.RANDOM),
        limits=Limits(max_failed_trials=3, trial_timeout=3600.0),
        stopping=Stopping(
            as_soon_as_possible=True,
            min_runtime=60.0,
            max_end=facts.NOON,
            min_trials=3,
            max_trials=50,
        ),
        first={"optimizer": "sgd", "rate": 0.5, "layers": 2, "width": 16.5, "dropout": 0.25},
        program=Program(output="/out", env=(("A", "b c"),)),
    )
    again = as_vertex(spec)
    for part in ("space", "objectives", "constraints", "sampler", "stopping", "first"):
        assert getattr(again, part) == getattr(spec, part), part
    assert search(again) == search(spec)
    assert again.limits == spec.limits
    assert (again.program.env, again.program.output) == (spec.program.env, spec.program.output)


def test_one_objective_may_count_at_its_best_and_end_a_study_without_progress(tmp_path: Path) -> None:
    stopping = Stopping(max_trials_no_progress=5, max_seconds_no_progress=90.5)
    spec = replace(plain(tmp_path), stopping=stopping, selection=Selection.BEST)
    told = study_spec(spec)["studyStoppingConfig"]
    assert told == {"maxNumTrialsNoProgress": 5, "maxDurationNoProgress": "90.5s"}
    again = as_vertex(spec)
    assert (again.stopping, again.selection) == (stopping, Selection.BEST)


RULES = [
    (PrunerSpec(PruningRule.MEDIAN), {"medianAutomatedStoppingSpec": {}}),
    (
        PrunerSpec(PruningRule.DECAY_CURVE, use_elapsed=True),
        {"decayCurveStoppingSpec": {"useElapsedDuration": True}},
    ),
    (
        PrunerSpec(PruningRule.CONVEX, min_steps=20, final_step=100.0, min_measurements=7),
        {
            "convexAutomatedStoppingSpec": {
                "maxStepCount": "100",
                "minStepCount": "20",
                "minMeasurementCount": "7",
            }
        },
    ),
    (
        PrunerSpec(PruningRule.CONVEX, min_steps=10, final_step=100.0),
        {"convexAutomatedStoppingSpec": {"maxStepCount": "100"}},
    ),
    (
        PrunerSpec(PruningRule.CONVEX, min_steps=0, final_step=100.0),
        {"convexAutomatedStoppingSpec": {"maxStepCount": "100", "minStepCount": "0"}},
    ),
]


@pytest.mark.parametrize(("rule", "said"), RULES, ids=lambda one: getattr(one, "type", None))
def test_the_rules_of_vertex_ai_are_told(tmp_path: Path, rule: PrunerSpec, said: dict[str, Any]) -> None:
    spec = replace(plain(tmp_path), pruner=rule)
    told = study_spec(spec)
    assert {key: told[key] for key in said} == said
    assert as_vertex(spec).pruner == rule


def test_a_deep_tree_is_told_without_end_of_the_stack(tmp_path: Path) -> None:
    spec = plain(tmp_path)
    parent = spec.space.parameters[1]
    deep: Sequence[Any] = [parent]
    for _ in range(200):
        above = deep[-1]
        condition = facts.Condition(facts.key_of(above), (1,))
        deep = [*deep, replace(parent, name=f"p{len(deep)}", condition=condition)]
    told = study_spec(replace(spec, space=SearchSpace(tuple(deep))))["parameters"][0]
    for _ in range(200):
        told = told["conditionalParameterSpecs"][0]["parameterSpec"]
    assert told["parameterId"] == "p200"
