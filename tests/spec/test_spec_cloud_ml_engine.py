"""The rules of `trainingInput`, one table row each: where the problem is, what it says, what it advises."""

from __future__ import annotations

import pytest

from hpsearch.spec.model import (
    Algorithm,
    Goal,
    Problem,
    PruningRule,
    Spec,
)
from hpsearch.spec.reading import parse

HEAD = """\
trainingInput:
  pythonModule: trainer.task
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 4
    params:
"""
LR = "    - {parameterName: lr, type: DOUBLE, minValue: 0.1, maxValue: 1}\n"


def good(text: str) -> Spec:
    reading = parse(text)
    assert reading.spec is not None, reading.errors
    assert not reading.warnings
    return reading.spec


def check(problem: Problem, line: int, column: int, value: str, message: str, hint: str) -> None:
    assert (problem.line, problem.column, problem.value) == (line, column, value), problem
    assert message in problem.message
    assert hint in problem.hint


def test_the_study_is_read_whole() -> None:
    spec = good(
        'trainingInput:\n  scaleTier: CUSTOM\n  masterType: standard_gpu\n  workerCount: "0"\n'
        "  region: us-east1\n  pythonVersion: 3.5\n  jobDir: out/x\n"
        '  pythonModule: trainer.task\n  args: ["--steps=3", --flag]\n'
        "  scheduling: {maxRunningTime: 7200s, priority: 3}\n"
        "  hyperparameters:\n    goal: MAXIMIZE\n    hyperparameterMetricTag: Taxi Model/Accuracy\n"
        '    maxTrials: "20"\n    maxParallelTrials: 2\n    maxFailedTrials: 3\n'
        "    resumePreviousJobId: job_7\n"
        "    enableTrialEarlyStopping: TRUE\n    algorithm: RANDOM_SEARCH\n    params:\n"
        + LR
        + "hpsearch: {resources: {gpu: 0}}\n"
    )
    assert (spec.objective.metric, spec.objective.goal) == ("Taxi Model/Accuracy", Goal.MAXIMIZE)
    assert (spec.max_trials, spec.max_parallel_trials, spec.limits.max_failed_trials) == (20, 2, 3)
    assert (spec.module, spec.args) == ("trainer.task", ("--steps=3", "--flag"))
    assert spec.limits.study_timeout == 7200
    assert (spec.pruner.type, spec.pruner.min_trials) == (PruningRule.MEDIAN, 5)
    assert spec.sampler.type is Algorithm.RANDOM
    assert spec.previous == "job_7"
    assert (spec.program.job_dir, spec.program.region, spec.dialect) == (
        "out/x",
        "us-east1",
        "cloud_ml_engine",
    )


@pytest.mark.parametrize(
    ("text", "count"), [("20", 20), ('"20"', 20), ("20.0", 20), ("1e2", 100), ("0x14", 20)]
)
def test_counts_may_be_texts_and_whole_floats(text: str, count: int) -> None:
    assert good(HEAD.replace("maxTrials: 4", f"maxTrials: {text}") + LR).max_trials == count


@pytest.mark.parametrize("word", ["true", "True", "TRUE ", "yes", "on", "y"])
def test_all_yaml_booleans_switch_early_stopping_on(word: str) -> None:
    spec = good(HEAD.replace("    params", f"    enableTrialEarlyStopping: {word}\n    params") + LR)
    assert spec.pruner.type is PruningRule.MEDIAN


def test_parallel_trials_are_clamped_to_the_trials() -> None:
    spec = good(HEAD.replace("    params", "    maxParallelTrials: 15\n    params") + LR)
    assert spec.max_parallel_trials == 4


@pytest.mark.parametrize(
    ("change", "at", "message", "hint"),
    [
        (
            ("goal: MINIMIZE", "goal: MINIMUM"),
            (4, 11, "MINIMUM"),
            "goal MINIMUM is unknown",
            "mean MINIMIZE?",
        ),
        (("goal: MINIMIZE", "goal: max"), (4, 11, "max"), "goal max is unknown", "did you mean MAXIMIZE?"),
        (
            ("loss", "global_step"),
            (5, 30, "global_step"),
            "hyperparameterMetricTag is global_step",
            "another name",
        ),
        (("loss", "[a]"), (5, 30, ""), "is a list where", "one value"),
        (("loss", '"a\\nb"'), (5, 30, "a\\nb"), "line break", "one line"),
        (("maxTrials: 4", "maxTrials: 0"), (6, 16, "0"), "no trial would run", "give 1 or more"),
        (("maxTrials: 4", "maxTrials: -4"), (6, 16, "-4"), "maxTrials is -4: negative", "give 0 or more"),
        (("maxTrials: 4", "maxTrials: 4.5"), (6, 16, "4.5"), "4.5, not a whole number", "write 4"),
        (("maxTrials: 4", "maxTrials: ten"), (6, 16, "ten"), "ten, not a number", "such as 10"),
        (("maxTrials: 4", "maxTrials: 1e12"), (6, 16, "1e12"), "above 2147483647", "or less"),
        (("maxTrials: 4", "maxTrials: {a: 1}"), (6, 16, ""), "maxTrials is a map", "one value"),
        (("    params", "    maxParallelTrials: -1\n    params"), (7, 24, "-1"), "negative", "0 or more"),
        (("    params", "    maxFailedTrials: -1\n    params"), (7, 22, "-1"), "negative", "0 or more"),
        (
            ("    params", "    enableTrialEarlyStopping: maybe\n    params"),
            (7, 31, "maybe"),
            "neither true nor false",
            "write true or false",
        ),
        (
            ("    params", "    enableTrialEarlyStopping: 1\n    params"),
            (7, 31, "1"),
            "neither true nor false",
            "write true or false",
        ),
        (
            ("    params", "    algorithm: BAYESIAN\n    params"),
            (7, 16, "BAYESIAN"),
            "algorithm BAYESIAN is unknown",
            "did you mean ALGORITHM_UNSPECIFIED?",
        ),
        (
            ("    params", "    algorithm: CMA-ES\n    params"),
            (7, 16, "CMA-ES"),
            "algorithm CMA-ES is unknown",
            "sampler.type in the hpsearch: block",
        ),
        (
            ("    params", "    algorithm: GRID_SEARCH\n    params"),
            (9, 33, "DOUBLE"),
            "parameter lr: a grid over a DOUBLE has no end",
            "use DISCRETE or INTEGER",
        ),
        (
            ("trainer.task", "trainer/task.py"),
            (2, 17, "trainer/task.py"),
            "not the name",
            "mean trainer.task?",
        ),
        (("trainer.task", "task.py"), (2, 17, "task.py"), "not the name of a module", "did you mean task?"),
        (
            ("trainer.task", "python -m x"),
            (2, 17, "python -m x"),
            "not the name of a module",
            "like trainer.task",
        ),
        (("  hyper", "  args: [a, ~]\n  hyper"), (3, 13, "~"), "args[1] is empty", '"null"'),
        (("  hyper", "  args: --a\n  hyper"), (3, 9, "--a"), "args is --a, not a list", "write [--a]"),
        (("  hyper", "  args: --a b\n  hyper"), (3, 9, "--a b"), "not a list", "write [--a, b]"),
        (("  hyper", "  workerCount: few\n  hyper"), (3, 16, "few"), "not a number", "such as 10"),
        (
            ("  hyper", "  workerCount: 1,000\n  hyper"),
            (3, 16, "1,000"),
            "not a number",
            "did you mean 1000?",
        ),
        (("  hyper", "  workerCount: 2,\n  hyper"), (3, 16, "2,"), "not a number", "did you mean 2?"),
        (("  hyper", "  workerCount: $FEW\n  hyper"), (3, 16, "$FEW"), "not a number", "fill it in"),
        (("  hyper", "  workerCount: ''\n  hyper"), (3, 16, ""), 'workerCount is "", not', "such as 10"),
        (
            ("  hyper", "  scheduling: {maxRunningTime: soon}\n  hyper"),
            (3, 32, "soon"),
            "maxRunningTime is soon, not a duration",
            "30m",
        ),
    ],
)
def test_a_wrong_setting_of_the_study_is_one_error(
    change: tuple[str, str], at: tuple[int, int, str], message: str, hint: str
) -> None:
    reading = parse((HEAD + LR).replace(*change, 1))
    assert len(reading.errors) == 1, reading.errors
    check(reading.errors[0], *at, message, hint)


@pytest.mark.parametrize(
    ("change", "at", "message", "hint"),
    [
        (
            ("    goal: MINIMIZE\n", ""),
            (3, 3, ""),
            "goal is absent: MAXIMIZE is used",
            "MAXIMIZE or MINIMIZE",
        ),
        (("goal: MINIMIZE", "goal:"), (3, 3, ""), "goal is absent: MAXIMIZE is used", "MAXIMIZE or MINIMIZE"),
        (
            ("goal: MINIMIZE", "goal: GOAL_TYPE_UNSPECIFIED"),
            (4, 11, "GOAL_TYPE_UNSPECIFIED"),
            "goal is unspecified: MAXIMIZE is used",
            "MINIMIZE",
        ),
        (("goal: MINIMIZE", "goal: maximize"), (4, 11, "maximize"), "is read as MAXIMIZE", "write MAXIMIZE"),
        (("    maxTrials: 4\n", ""), (3, 3, ""), "maxTrials is absent: 1 trial is run", "write maxTrials:"),
        (
            ("    hyperparameterMetricTag: loss\n", ""),
            (3, 3, ""),
            "training/hptuning/metric is used",
            "metric",
        ),
        (("loss", '""'), (3, 3, ""), "training/hptuning/metric is used", "metric"),
        (
            ("    params", "    maxParallelTrials: 0\n    params"),
            (7, 24, "0"),
            "maxParallelTrials is 0: the default of 1 is used",
            "1 or more",
        ),
        (
            ("    params", "    maxFailedTrials: 0\n    params"),
            (7, 22, "0"),
            "maxFailedTrials is 0: the default is used",
            "1 to stop at the first failure",
        ),
        (
            ("    params", "    max_parallel_trials: 2\n    params"),
            (7, 5, "max_parallel_trials"),
            "read as maxParallelTrials",
            "write maxParallelTrials",
        ),
        (
            ("    params", "    maxParalelTrials: 2\n    params"),
            (7, 5, "maxParalelTrials"),
            "unknown key maxParalelTrials: ignored",
            "did you mean maxParallelTrials?",
        ),
        (
            ("    params", "    metricTag: acc\n    params"),
            (7, 5, "metricTag"),
            "unknown key metricTag: ignored",
            "did you mean hyperparameterMetricTag?",
        ),
        (
            ("    params", '    enableTrialEarlyStopping: "True"\n    params'),
            (7, 31, "True"),
            "read as true",
            "write true unquoted",
        ),
        (
            ("  hyper", "  scaleTier: STANDARD-1 \n  hyper"),
            (3, 14, "STANDARD-1"),
            "read as STANDARD_1",
            "STANDARD_1",
        ),
        (
            ("  hyper", "  args: [--a, 3]\n  hyper"),
            (3, 15, "3"),
            "3 is a number to YAML",
            'write "3"',
        ),
        (
            ("  hyper", "  pythonVersio: 3\n  hyper"),
            (3, 3, "pythonVersio"),
            "unknown key",
            "mean pythonVersion?",
        ),
        (
            ("  pythonModule: trainer.task\n", ""),
            (1, 1, ""),
            "pythonModule is absent: nothing to run",
            "trainer",
        ),
    ],
)
def test_a_doubtful_setting_of_the_study_is_one_warning(
    change: tuple[str, str], at: tuple[int, int, str], message: str, hint: str
) -> None:
    reading = parse((HEAD + LR).replace(*change, 1))
    assert reading.spec is not None, reading.errors
    assert len(reading.warnings) == 1, reading.warnings
    check(reading.warnings[0], *at, message, hint)


def test_null_is_the_same_as_absent() -> None:
    good(
        (HEAD + LR).replace("    params", "    resumePreviousJobId: null\n    maxFailedTrials: ~\n    params")
    )


def test_a_key_and_its_snake_case_twin_are_the_same_key_twice() -> None:
    reading = parse((HEAD + LR).replace("    params", "    max_trials: 9\n    params"))
    check(
        reading.errors[0],
        7,
        5,
        "max_trials",
        "maxTrials stands twice in one map: in line 6 and in line 7",
        "keep",
    )


@pytest.mark.parametrize(
    ("text", "line", "column", "path"),
    [
        ("# x\ntrainingInput:\n  scaleTier: BASIC\n", 2, 1, "trainingInput.hyperparameters"),
        ("hpsearch: {maxSteps: 3}\n", 1, 1, "hpsearch.hyperparameters"),
        ("hpsearch:\n", 1, 1, "hpsearch.hyperparameters"),
        ("trainingInputs: {}\n", 1, 1, "trainingInput"),
        ("trainingInput:\n", 1, 1, "trainingInput"),
        ("trainingInput:\n  hyperparameters:\n", 1, 1, "trainingInput.hyperparameters"),
    ],
)
def test_a_file_without_hyperparameters_has_nothing_to_tune(
    text: str, line: int, column: int, path: str
) -> None:
    (error,) = parse(text).errors
    assert (error.line, error.column, error.path) == (line, column, path)
    what = "no hyperparameters" if path.startswith("hpsearch") else f"{path} is absent or empty"
    assert error.message == f"nothing to tune: {what}"
    assert "one plain run" in error.hint


@pytest.mark.parametrize(
    ("params", "line", "column", "message"),
    [
        ("    params:\n", 3, 3, "params is missing"),
        ("    params: []\n", 4, 13, "params is empty"),
        ("    params: 7\n", 4, 13, "params is 7, not a list"),
        ("    params:\n    - 7\n", 5, 7, "params[0] is 7 where a map is due"),
    ],
)
def test_a_study_without_parameters_is_an_error(params: str, line: int, column: int, message: str) -> None:
    text = "trainingInput:\n  pythonModule: t\n  hyperparameters:\n" + params
    (error,) = parse(text).errors
    assert (error.line, error.column) == (line, column)
    assert message in error.message


@pytest.mark.parametrize("wrapper", ["hyperparameters:\n", ""])
def test_a_file_without_its_wrapper_is_read_with_a_warning(wrapper: str) -> None:
    study = "goal: MINIMIZE\nhyperparameterMetricTag: loss\nmaxTrials: 4\n"
    study += "params:\n- {parameterName: x, type: FLOAT}\n"
    indent = "  " if wrapper else ""
    text = "# c\n" + wrapper + "".join(indent + line + "\n" for line in study.splitlines())
    text += "hpsearch: {pythonModule: trainer.task}\n"
    reading = parse(text)
    check(reading.warnings[0], 2, 1, "", "trainingInput: is missing", "write trainingInput:")
    assert len(reading.warnings) == 1, reading.warnings
    (error,) = reading.errors
    assert error.path == ("hyperparameters." if wrapper else "") + "params[0].type"
    good_text = text.replace("FLOAT", "DOUBLE, minValue: 0, maxValue: 1")
    spec = parse(good_text).spec
    assert spec is not None
    assert (spec.max_trials, spec.module) == (4, "trainer.task")


def test_a_grid_larger_than_the_trials_is_a_warning_and_constants_are_allowed_in_it() -> None:
    text = HEAD.replace("    params", "    algorithm: GRID_SEARCH\n    params") + (
        "    - {parameterName: a, type: INTEGER, minValue: 1, maxValue: 3}\n"
        "    - {parameterName: b, type: CATEGORICAL, categoricalValues: [u, v]}\n"
        "    - {parameterName: c, type: DOUBLE, minValue: 2, maxValue: 2}\n"
    )
    reading = parse(text)
    assert reading.spec is not None
    assert reading.spec.sampler.type is Algorithm.GRID
    (warning,) = reading.warnings
    check(warning, 7, 16, "GRID_SEARCH", "the grid has 6 points, but maxTrials is 4", "raise maxTrials")
    assert not parse(text.replace("maxTrials: 4", "maxTrials: 6")).warnings


def test_all_errors_of_a_file_are_told_together_in_file_order() -> None:
    text = HEAD.replace("MINIMIZE", "MIN").replace("maxTrials: 4", "maxTrials: x") + (
        "    - {parameterName: a, type: FDOUBLE, minValue: abc}\n"
        "    - 7\n"
        "    - {parameterName: b, type: DISCRETE, discreteValues: [1, z, 1]}\n"
        "    - {parameterName: c, type: DOUBLE, minValue: 3, maxValue: 2}\n"
        "hpsearch: {sampler: {seed: -1}, maxSteps: 0}\n"
    )
    places = [(p.line, p.column) for p in parse(text).errors]
    assert places == [
        (4, 11),
        (6, 16),
        (8, 32),
        (8, 51),
        (9, 7),
        (10, 62),
        (10, 65),
        (11, 50),
        (12, 28),
        (12, 43),
    ]
