"""A file that holds nothing but the `hpsearch:` block, and readings that take no warning."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from hpsearch.spec.model import Double, PruningRule
from hpsearch.spec.reading import parse, read

OWN = """\
hpsearch:
  pythonModule: trainer.task
  args: [--a, "b c"]
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 4
    enableTrialEarlyStopping: true
    params: [{parameterName: lr, type: DOUBLE, minValue: 0.1, maxValue: 1}]
  limits: {maxFailedTrials: 2}
"""
ENGINE = """\
trainingInput:
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 4
    params: [{parameterName: lr, type: DOUBLE, minValue: 0.1, maxValue: 1}]
"""
VERTEX = """\
maxTrialCount: 1
parallelTrialCount: 1
studySpec:
  metrics: [{metricId: loss, goal: MINIMIZE}]
  parameters: [{parameterId: n, integerValueSpec: {minValue: 1, maxValue: 2}}]
"""


def test_the_block_alone_is_a_whole_study() -> None:
    reading = parse(OWN)
    assert reading.dialect == "hpsearch"
    assert reading.spec is not None, reading.errors
    assert not reading.warnings
    spec = reading.spec
    assert (spec.dialect, spec.module, spec.args) == ("hpsearch", "trainer.task", ("--a", "b c"))
    assert spec.space.parameters == (Double("lr", 0.1, 1.0),)
    assert (spec.max_trials, spec.limits.max_failed_trials, spec.pruner.type) == (4, 2, PruningRule.MEDIAN)
    assert json.loads(spec.program.job)["hyperparameters"]["maxTrials"] == 4
    assert json.loads(spec.program.job).keys() == {"pythonModule", "args", "hyperparameters"}


def test_conditions_and_commands_are_of_the_block_alone_as_well() -> None:
    text = OWN.replace("pythonModule: trainer.task", "command: [run]").replace(
        "params: [", "params: [{parameterName: o, type: CATEGORICAL, categoricalValues: [a, b]}, "
    )
    spec = parse(text + "  conditions: {lr: {o: [a]}}\n").spec
    assert spec is not None
    assert spec.space.conditional
    assert spec.program.command == ("run",)


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("hpsearch: {maxSteps: 3}\n", "hpsearch.hyperparameters", "nothing to tune"),
        ("hpsearch: {hyperparameters: {maxTrials: 1, goal: MINIMIZE, hyperparameterMetricTag: l}}\n",
         "hpsearch.hyperparameters.params", "params is missing"),
        ("hpsearch: 3\n", "hpsearch", "where a map is due"),
        ("hpsearch: {hyperparameters: 3}\n", "hpsearch.hyperparameters", "where a map is due"),
    ],
)  # fmt: skip
def test_a_block_without_a_study_is_one_error(text: str, path: str, message: str) -> None:
    reading = parse(text)
    assert (reading.dialect, reading.spec) == ("hpsearch", None)
    (error,) = reading.errors
    assert error.path == path
    assert message in error.message


@pytest.mark.parametrize(
    ("head", "key", "home"),
    [
        (ENGINE, "args: [a]", "trainingInput.args"),
        (ENGINE, "hyperparameters: {maxTrials: 3}", "trainingInput.hyperparameters"),
        (VERTEX, "args: [a]", "trialJobSpec.workerPoolSpecs[0].containerSpec.args"),
        (VERTEX, "hyperparameters: {maxTrials: 3}", "studySpec"),
    ],
)
def test_beside_a_dialect_the_study_has_its_place_there(head: str, key: str, home: str) -> None:
    reading = parse(f"{head}hpsearch: {{pythonModule: t, {key}}}\n")
    assert reading.spec is None
    (error,) = reading.errors
    assert error.path == f"hpsearch.{key.partition(':')[0]}"
    assert "does not belong here" in error.message
    assert error.hint == f"write {home}"


INSIDE = ENGINE.partition("\n")[2]
BARE = INSIDE.partition("\n")[2]


@pytest.mark.parametrize(
    ("head", "key", "hint"),
    [
        (INSIDE, "args: [a]", "write args: at the top level"),
        (INSIDE, "hyperparameters: {maxTrials: 3}", "write hyperparameters: at the top level"),
        (BARE, "args: [a]", "put the study below hyperparameters:, and args: beside that"),
        (BARE, "hyperparameters: {maxTrials: 3}", "keep the study at the top level"),
    ],
)
def test_beside_a_study_without_its_wrapper_the_hint_names_what_works(head: str, key: str, hint: str) -> None:
    reading = parse(f"{textwrap.dedent(head)}hpsearch: {{pythonModule: t, {key}}}\n")
    (error,) = reading.errors
    named = key.partition(":")[0]
    assert error.message == f"{named} does not belong here: the file holds more than the hpsearch block"
    assert error.hint == hint


def test_what_the_hint_names_is_read() -> None:
    block = "hpsearch: {pythonModule: t}\n"
    for text in (
        f"args: [a]\n{textwrap.dedent(INSIDE)}{block}",
        f"args: [a]\nhyperparameters:\n{BARE}{block}",
    ):
        spec = parse(text).spec
        assert spec is not None
        assert spec.args == ("a",)


WARNED = ENGINE.replace("goal: MINIMIZE", "goal: minimize") + "hpsearch: {pythonModule: t, maxStep: 3}\n"


def test_strict_makes_every_warning_an_error_in_the_same_words() -> None:
    lenient, strict = parse(WARNED), parse(WARNED, strict=True)
    assert lenient.spec is not None
    assert len(lenient.warnings) == 2
    assert (strict.spec, strict.warnings) == (None, ())
    assert strict.errors == lenient.warnings
    both = WARNED.replace("maxTrials: 4", "maxTrials: many")
    assert len(parse(both, strict=True).errors) == 3
    assert parse(OWN, strict=True).spec == parse(OWN).spec is not None


def test_a_file_can_be_read_strictly(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(WARNED)
    assert read(file).spec is not None
    reading = read(file, strict=True)
    assert reading.spec is None
    assert [error.hint for error in reading.errors] == ["write MINIMIZE", "did you mean maxSteps?"]
