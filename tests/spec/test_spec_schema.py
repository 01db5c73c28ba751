"""The JSON schema of whole files: valid itself, as wide as what is read without a warning, and no wider."""

from __future__ import annotations

import copy
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from hpsearch.spec.reading import parse, read
from hpsearch.spec.schema import schema

COMPAT = Path(__file__).parents[2].parent / "shared" / "compat"
DIALECTS = ("cloud_ml_engine", "vertex_ai", "hpsearch")
# What the reader takes with a warning and a schema does not: unknown and misspelt keys, other spellings.
OTHER_SPELLING = re.compile(r"^unknown key |^key \w+ is read as |is read as [A-Z_0-9]+$")

ENGINE: dict[str, Any] = {
    "jobId": "x",
    "trainingInput": {
        "scaleTier": "CUSTOM",
        "masterType": "n1-standard-4",
        "masterConfig": {"acceleratorConfig": {"count": "1", "type": "NVIDIA"}},
        "pythonVersion": 3.5,
        "args": ["--a", 3],
        "hyperparameters": {
            "goal": "MINIMIZE",
            "maxTrials": "20",
            "enableTrialEarlyStopping": "yes",
            "resumePreviousJobId": None,
            "params": [
                {"parameterName": "lr", "type": "DOUBLE", "minValue": "1e-4", "maxValue": 1},
                {"parameterName": "o", "type": "CATEGORICAL", "categoricalValues": ["a", 1, True]},
            ],
        },
    },
    "hpsearch": {
        "maxSteps": 100,
        "pruner": {"type": "CONVEX", "maxStepCount": 10},
        "limits": {"trialTimeout": "30m", "gracePeriod": 3, "progressTimeout": "0s", "maxOutput": "1Mi"},
        "resources": {"memory": "2Gi", "cpu": 0.5},
        "conditions": {"lr": {"o": ["a"]}},
        "workingDirectory": "TRIAL",
    },
}
VERTEX: dict[str, Any] = {
    "displayName": "x",
    "maxTrialCount": 3,
    "parallelTrialCount": "1",
    "studySpec": {
        "metrics": {"metricId": "loss", "goal": "MINIMIZE", "safetyConfig": {"safetyThreshold": 1}},
        "parameters": [
            {
                "parameterId": "o",
                "categoricalValueSpec": {"values": ["a", "b"], "defaultValue": "a"},
                "conditionalParameterSpecs": [
                    {
                        "parentCategoricalValues": {"values": ["a"]},
                        "parameterSpec": {
                            "parameterId": "n",
                            "integerValueSpec": {"minValue": "1", "maxValue": 4},
                            "scaleType": "UNIT_LOG_SCALE",
                        },
                    }
                ],
            }
        ],
        "medianAutomatedStoppingSpec": {},
        "studyStoppingConfig": {"maximumRuntimeConstraint": {"endTime": "2024-01-31T18:00:00Z"}},
    },
    "trialJobSpec": {
        "workerPoolSpecs": [{"containerSpec": {"imageUri": "x", "command": ["run"]}}],
        "network": "n",
    },
    "hpsearch": {"sampler": {"seed": 0}},
}
OWN: dict[str, Any] = {
    "hpsearch": {"pythonModule": "t", "hyperparameters": ENGINE["trainingInput"]["hyperparameters"]}
}
FILES = dict(zip(DIALECTS, (ENGINE, VERTEX, OWN), strict=True))


@cache
def validator(dialect: str | None) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema(dialect))


@pytest.mark.parametrize("dialect", [*DIALECTS, None])
def test_the_schema_is_one_and_says_what_fields_mean(dialect: str | None) -> None:
    made = schema(dialect)
    jsonschema.Draft202012Validator.check_schema(made)
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(made)) == made
    block = next(form for name, form in made["$defs"].items() if name.startswith("BlockForm."))
    assert block["properties"]["maxSteps"]["description"] == "Steps of a full training."
    assert block["description"].startswith("What the services have no word for")


def test_there_is_no_schema_of_an_unknown_dialect() -> None:
    with pytest.raises(KeyError):
        schema("vizier")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_file_fits_its_own_schema_and_the_one_of_all(dialect: str) -> None:
    file = FILES[dialect]
    assert parse(json.dumps(file)).dialect == dialect
    for other in (*DIALECTS, None):
        assert validator(other).is_valid(file) is (other in (dialect, None)), other


@pytest.mark.parametrize(
    ("dialect", "path", "value"),
    [
        ("cloud_ml_engine", "trainingInput.hyperparameters.maxTrial", 3),
        ("cloud_ml_engine", "trainingInput.hyperparameters.max_trials", 3),
        ("cloud_ml_engine", "trainingInput.hyperparameters.goal", "minimize"),
        ("cloud_ml_engine", "trainingInput.hyperparameters.maxTrials", "many"),
        ("cloud_ml_engine", "trainingInput.hyperparameters.maxTrials", -1),
        ("cloud_ml_engine", "trainingInput.hyperparameters.maxTrials", 1.5),
        ("cloud_ml_engine", "trainingInput.hyperparameters.enableTrialEarlyStopping", "maybe"),
        ("cloud_ml_engine", "trainingInput.hyperparameters.params.0.type", "FLOAT"),
        ("cloud_ml_engine", "trainingInput.hyperparameters.params.0.minValue", "low"),
        ("cloud_ml_engine", "trainingInput.hyperparameters.params.0.minValue", ...),
        ("cloud_ml_engine", "trainingInput.hyperparameters.params.0.parameterName", ...),
        ("cloud_ml_engine", "trainingInput.hyperparameters.params.0.scaleType", "LOG"),
        ("cloud_ml_engine", "trainingInput.hyperparameters.params.1.categoricalValues", ["a", None]),
        ("cloud_ml_engine", "trainingInput.hyperparameters.params", "lr"),
        ("cloud_ml_engine", "trainingInput.hyperparameters.params", ...),
        ("cloud_ml_engine", "trainingInput.hyperparameters", ...),
        ("cloud_ml_engine", "trainingInput.scaleTier", "BASIC-GPU"),
        ("cloud_ml_engine", "hpsearch.maxStep", 3),
        ("cloud_ml_engine", "hpsearch.args", ["a"]),
        ("cloud_ml_engine", "hpsearch.pruner.type", "MEDIUM"),
        ("cloud_ml_engine", "hpsearch.pruner.type", ...),
        ("cloud_ml_engine", "hpsearch.limits.trialTimeout", "soon"),
        ("cloud_ml_engine", "hpsearch.resources.memory", "2GB"),
        ("cloud_ml_engine", "hpsearch.conditions.lr.p", ["b"]),
        ("cloud_ml_engine", "hpsearch.conditions.lr.o", "a"),
        ("vertex_ai", "studySpec.parameter", 3),
        ("vertex_ai", "studySpec.metrics.goal", "MIN"),
        ("vertex_ai", "studySpec.metrics.metricId", ...),
        ("vertex_ai", "studySpec.parameters.0.doubleValueSpec", {"minValue": 1, "maxValue": 2}),
        (
            "vertex_ai",
            "studySpec.parameters.0.conditionalParameterSpecs.0.parameterSpec.integerValueSpec",
            ...,
        ),
        ("vertex_ai", "studySpec.parameters.0.conditionalParameterSpecs.0.parameterSpec.scaletype", "NONE"),
        ("vertex_ai", "studySpec.parameters.0.conditionalParameterSpecs.0.parentIntValues", {"values": [1]}),
        ("vertex_ai", "studySpec.medianAutomatedStoppingSpec", "on"),
        ("vertex_ai", "trialJobSpec.workerPoolSpecs.0.containerSpec.command", "run"),
        ("vertex_ai", "hpsearch.conditions", {"n": {"o": ["a"]}}),
        ("vertex_ai", "studySpec", ...),
        ("hpsearch", "hpsearch.hyperparameters", ...),
        ("hpsearch", "trainingInput", {"args": []}),
    ],
)
def test_a_mistake_does_not_fit_and_is_not_read_without_a_word(dialect: str, path: str, value: Any) -> None:
    file = copy.deepcopy(FILES[dialect])
    *way, key = path.split(".")
    place: Any = file
    for step in way:
        place = place[int(step) if step.isdigit() else step]
    if value is ...:
        del place[key]
    else:
        place[key] = value
    for made in (dialect, None):
        assert not validator(made).is_valid(file)
    reading = parse(json.dumps(file))
    assert reading.errors + reading.warnings


def test_keys_that_are_known_and_not_read_may_hold_anything() -> None:
    file = copy.deepcopy(ENGINE)
    file["labels"] = {"a": [1]}
    file["trainingInput"]["encryptionConfig"] = [{"kmsKeyName": 3}]
    assert validator("cloud_ml_engine").is_valid(file)


def compatibility_files() -> list[Path]:
    return sorted(file for file in COMPAT.glob("*/*") if file.suffix in (".yaml", ".json"))


def test_the_compatibility_files_are_there() -> None:
    assert len(compatibility_files()) == 60, f"../shared/compat is not whole: {COMPAT}"


@pytest.mark.parametrize("file", compatibility_files(), ids=lambda file: file.stem)
def test_a_public_file_that_is_read_fits_unless_it_is_spelt_otherwise(file: Path) -> None:
    reading = read(file)
    if reading.spec is None:
        return
    data = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    fits = not any(OTHER_SPELLING.search(warning.message) for warning in reading.warnings)
    for dialect in (reading.dialect, None):
        assert validator(dialect).is_valid(data) is fits
