"""The rules of a HyperparameterTuningJob: the study it becomes, and what each mistake says and advises."""

from __future__ import annotations

import pytest

from hpsearch.spec.model import (
    Algorithm,
    Constraint,
    Goal,
    Objective,
    Problem,
    PrunerSpec,
    PruningRule,
    Selection,
    Spec,
    Stopping,
)
from hpsearch.spec.reading import parse

JOB = """\
maxTrialCount: 9
parallelTrialCount: 2
studySpec:
  metrics:
  - {metricId: loss, goal: MINIMIZE}
  parameters:
  - {parameterId: lr, doubleValueSpec: {minValue: 0.1, maxValue: 1}}
trialJobSpec: {workerPoolSpecs: [{pythonPackageSpec: {pythonModule: trainer.task}}]}
"""
# Where a line of the studySpec can be put.
STUDY = "  parameters:\n"
TWO = (
    "  - {metricId: loss, goal: MINIMIZE}\n",
    "  - {metricId: loss, goal: MINIMIZE}\n  - {metricId: acc, goal: MAXIMIZE}\n",
)


def changed(*changes: tuple[str, str]) -> str:
    text = JOB
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def with_study(line: str, *changes: tuple[str, str]) -> str:
    """The job with one more line in its studySpec: line 6, or 7 with two metrics."""
    return changed(*changes, (STUDY, f"  {line}\n{STUDY}"))


def good(text: str) -> Spec:
    reading = parse(text)
    assert reading.dialect == "vertex_ai"
    assert reading.spec is not None, reading.errors
    assert not reading.warnings
    return reading.spec


def one(problems: tuple[Problem, ...]) -> Problem:
    (problem,) = problems
    assert problem.hint
    return problem


def test_a_whole_job_becomes_a_study() -> None:
    spec = good(
        "displayName: x\nlabels: {a: b}\nencryptionSpec: {kmsKeyName: k}\n"
        + changed(
            ("parallelTrialCount: 2", 'parallelTrialCount: "2"\nmaxFailedTrialCount: 3'),
            (STUDY, "  algorithm: RANDOM_SEARCH\n  measurementSelectionType: BEST_MEASUREMENT\n" + STUDY),
            ("trialJobSpec: {", "trialJobSpec: {scheduling: {timeout: 3600s, disableRetries: true}, "),
        )
    )
    assert (spec.dialect, spec.objectives) == ("vertex_ai", (Objective("loss", Goal.MINIMIZE),))
    assert (spec.max_trials, spec.max_parallel_trials, spec.limits.max_failed_trials) == (9, 2, 3)
    assert (spec.sampler.type, spec.selection) == (Algorithm.RANDOM, Selection.BEST)
    assert (spec.module, spec.limits.trial_timeout, spec.limits.study_timeout) == ("trainer.task", 3600, None)
    assert spec.pruner == PrunerSpec()
    assert spec.stopping == Stopping()


def test_what_the_service_shows_of_a_job_is_read_as_well() -> None:
    shown = "name: projects/1/x\nstate: JOB_STATE_SUCCEEDED\ntrials: [{id: '1'}]\ncreateTime: t\n"
    good(shown + "error: {code: 3}\nupdateTime: t\nstartTime: t\nendTime: t\n" + JOB)


def test_json_is_read_as_yaml_is() -> None:
    text = """{
\t"displayName":"x", "maxTrialCount": 4, "parallelTrialCount": "2",
\t"studySpec": {"metrics": [{"metricId": "loss", "goal": "MINIMIZE"}],
\t\t"parameters": [{"parameterId": "n", "integerValueSpec": {"minValue": "1", "maxValue": "1e1"}},
\t\t\t{"parameterId":"lr","doubleValueSpec":{"minValue":1e-4,"maxValue":1},"scaleType":"UNIT_LOG_SCALE"}]},
\t"trialJobSpec": {"workerPoolSpecs": [{"pythonPackageSpec": {"pythonModule": "trainer.task"}}]}
}"""
    spec = good(text)
    assert [(p.name, p.low, p.high) for p in spec.space.parameters] == [("n", 1, 10), ("lr", 1e-4, 1.0)]


def test_python_s_spelling_is_taken_with_a_warning_for_each_key() -> None:
    text = changed(
        ("studySpec", "study_spec"), ("metricId", "metric_id"), ("doubleValueSpec", "double_value_spec")
    )
    reading = parse(text)
    assert reading.dialect == "vertex_ai"
    assert reading.spec == parse(text).spec is not None
    assert [w.message for w in reading.warnings] == [
        "key study_spec is read as studySpec",
        "metric loss: key metric_id is read as metricId",
        "parameter lr: key double_value_spec is read as doubleValueSpec",
    ]


def test_several_metrics_are_several_objectives_in_file_order() -> None:
    spec = good(changed(TWO))
    assert spec.objectives == (Objective("loss", Goal.MINIMIZE), Objective("acc", Goal.MAXIMIZE))
    assert spec.sampler.type is Algorithm.TPE


def test_a_metric_with_a_safety_config_is_a_constraint_beside_the_objective() -> None:
    text = changed(
        (
            "  parameters:",
            "  - {metricId: time, goal: MINIMIZE, safetyConfig: {safetyThreshold: 3.5}}\n"
            "  - {metricId: gain, goal: MAXIMIZE, safetyConfig: {}}\n  parameters:",
        )
    )
    spec = good(text)
    assert spec.objectives == (Objective("loss", Goal.MINIMIZE),)
    assert spec.constraints == (
        Constraint(Objective("time", Goal.MINIMIZE), 3.5),
        Constraint(Objective("gain", Goal.MAXIMIZE), 0.0),
    )
    warning = one(parse(text.replace("3.5", "3.5, desiredMinSafeTrialsFraction: 0.9")).warnings)
    assert "metric time" not in warning.message
    assert "desiredMinSafeTrialsFraction is not followed" in warning.message


@pytest.mark.parametrize(
    ("line", "pruner"),
    [
        ("medianAutomatedStoppingSpec: {}", PrunerSpec(PruningRule.MEDIAN, min_trials=5)),
        (
            "medianAutomatedStoppingSpec: {useElapsedDuration: true}",
            PrunerSpec(PruningRule.MEDIAN, use_elapsed=True),
        ),
        ("decayCurveStoppingSpec: {}", PrunerSpec(PruningRule.DECAY_CURVE)),
        (
            "decayCurveStoppingSpec: {useElapsedDuration: yes}",
            PrunerSpec(PruningRule.DECAY_CURVE, use_elapsed=True),
        ),
        ("convexAutomatedStoppingSpec: {}", PrunerSpec(PruningRule.CONVEX)),
        (
            'convexAutomatedStoppingSpec: {maxStepCount: "105"}',
            PrunerSpec(PruningRule.CONVEX, min_steps=10, final_step=105),
        ),
        (
            "convexAutomatedStoppingSpec: {maxStepCount: 100, minStepCount: 0, minMeasurementCount: 7}",
            PrunerSpec(PruningRule.CONVEX, final_step=100, min_measurements=7),
        ),
        (
            "convexAutomatedStoppingSpec: {minStepCount: 3, useElapsedDuration: true}",
            PrunerSpec(PruningRule.CONVEX, min_steps=3, use_elapsed=True),
        ),
        (
            "convexStopConfig: {maxNumSteps: 50, minNumSteps: 4, autoregressiveOrder: 3, useSeconds: true}",
            PrunerSpec(PruningRule.CONVEX, min_steps=4, final_step=50, min_measurements=3, use_elapsed=True),
        ),
        ("medianAutomatedStoppingSpec: null", PrunerSpec()),
    ],
)
def test_automated_stopping_is_a_pruner(line: str, pruner: PrunerSpec) -> None:
    assert good(with_study(line)).pruner == pruner


def test_our_pruner_wins_with_a_warning_only_where_it_is_off() -> None:
    text = with_study("decayCurveStoppingSpec: {}")
    assert good(text + "hpsearch: {pruner: {type: ASHA}}\n").pruner.type is PruningRule.ASHA
    reading = parse(text + "hpsearch: {pruner: {type: NONE}}\n")
    assert reading.spec is not None
    assert reading.spec.pruner == PrunerSpec()
    assert "pruner.type NONE wins over decayCurveStoppingSpec" in one(reading.warnings).message


def test_the_study_s_own_end_is_read_whole() -> None:
    spec = good(
        with_study(
            "studyStoppingConfig: {shouldStopAsap: true, minimumRuntimeConstraint: {maxDuration: 60s}, "
            "maximumRuntimeConstraint: {endTime: '2024-01-31T18:00:00.123456789+01:00'}, minNumTrials: 2, "
            "maxNumTrials: 50, maxNumTrialsNoProgress: 7, maxDurationNoProgress: 3600.5s}"
        )
    )
    assert spec.stopping == Stopping(
        as_soon_as_possible=True,
        min_runtime=60.0,
        max_end=1_706_720_400_123,
        min_trials=2,
        max_trials=50,
        max_trials_no_progress=7,
        max_seconds_no_progress=3600.5,
    )
    other = good(
        with_study(
            "studyStoppingConfig: {minNumTrials: 0, "
            "minimumRuntimeConstraint: {endTime: 1970-01-01T00:00:01Z}, "
            "maximumRuntimeConstraint: {maxDuration: 1d}}"
        )
    )
    assert other.stopping == Stopping(min_end=1000, max_runtime=86400.0)


@pytest.mark.parametrize(
    ("change", "at", "message", "hint"),
    [
        (("maxTrialCount: 9", "maxTrialCount: 0"), (1, 16, "0"), "maxTrialCount is 0: no trial", "1 or more"),
        (("maxTrialCount: 9", "maxTrialCount: $N"), (1, 16, "$N"), "not a number", "such as 10"),
        (("Count: 2", "Count: -2"), (2, 21, "-2"), "parallelTrialCount is -2: negative", "0 or more"),
        (("metricId: loss", "metricId: 'a b'"), (5, 16, "a b"), "metricId holds a blank", "reports"),
        (("metricId: loss", "metricId: trial"), (5, 16, "trial"), "metricId is trial", "another name"),
        (("metricId: loss, ", ""), (5, 5, ""), "the metric has no name", "write metricId:"),
        (("goal: MINIMIZE", "goal: LESS"), (5, 28, "LESS"), "goal LESS is unknown", "use MAXIMIZE, MINIMIZE"),
        (
            ("  parameters", "  - {metricId: loss, goal: MAXIMIZE}\n  parameters"),
            (6, 16, "loss"),
            "metric loss: the metricId stands in line 5 already",
            "rename one",
        ),
        (
            ("goal: MINIMIZE}", "goal: MINIMIZE, safetyConfig: {}}"),
            (5, 3, ""),
            "every metric has a safetyConfig",
            "remove the safetyConfig",
        ),
        (
            ("  metrics:\n  - {metricId: loss, goal: MINIMIZE}\n", ""),
            (3, 1, ""),
            "metrics is missing",
            "metrics:",
        ),
        (
            ("metrics:\n  - {metricId: loss, goal: MINIMIZE}", "metrics: []"),
            (3, 1, ""),
            "metrics is missing",
            "write metrics:",
        ),
        (
            ("  - {parameterId: lr, doubleValueSpec: {minValue: 0.1, maxValue: 1}}\n", "    []\n"),
            (7, 5, ""),
            "parameters is empty: nothing to tune",
            "list the parameters",
        ),
        (
            ("  parameters:\n  - {parameterId: lr, doubleValueSpec: {minValue: 0.1, maxValue: 1}}\n", ""),
            (3, 1, ""),
            "parameters is missing: nothing to tune",
            "list the parameters",
        ),
        (
            (STUDY, "  algorithm: GRID_SEARCH\n" + STUDY),
            (8, 40, ""),
            "parameter lr: a grid over a DOUBLE has no end",
            "DISCRETE or INTEGER",
        ),
        (
            (STUDY, "  algorithm: GAUSSIAN\n" + STUDY),
            (6, 14, "GAUSSIAN"),
            "algorithm GAUSSIAN is unknown",
            "use GRID_SEARCH, RANDOM_SEARCH",
        ),
        (
            (STUDY, "  decayCurveStoppingSpec: {}\n  medianAutomatedStoppingSpec: {}\n" + STUDY),
            (6, 27, ""),
            "medianAutomatedStoppingSpec and decayCurveStoppingSpec exclude each other",
            "keep one",
        ),
        (
            (STUDY, "  medianAutomatedStoppingSpec: on\n" + STUDY),
            (6, 32, "on"),
            "medianAutomatedStoppingSpec is on where a map is due",
            "lines below",
        ),
        (
            (STUDY, "  convexAutomatedStoppingSpec: {learningRateParameterName: rate}\n" + STUDY),
            (6, 60, "rate"),
            "learningRateParameterName rate is no parameter",
            "name one of the parameters",
        ),
        (
            (STUDY, "  convexAutomatedStoppingSpec: {maxStepCount: 5, minStepCount: 6}\n" + STUDY),
            (6, 64, "6"),
            "minStepCount 6 is above the last step 5",
            "less than 5",
        ),
        (
            (STUDY, "  studyStoppingConfig: {maxNumTrials: 0}\n" + STUDY),
            (6, 39, "0"),
            "maxNumTrials is 0: below 1",
            "1 or more",
        ),
        (
            (STUDY, "  studyStoppingConfig: {minimumRuntimeConstraint: {endTime: tomorrow}}\n" + STUDY),
            (6, 61, "tomorrow"),
            "endTime is tomorrow, not a time with its offset",
            "2024-01-31T18:00:00Z",
        ),
        (
            (
                STUDY,
                "  studyStoppingConfig: {maximumRuntimeConstraint: {endTime: 2024-02-30T00:00:00Z}}\n"
                + STUDY,
            ),
            (6, 61, "2024-02-30T00:00:00Z"),
            "there is no such time",
            "2024-01-31T18:00:00Z",
        ),
        (
            (
                STUDY,
                "  studyStoppingConfig: {maximumRuntimeConstraint: "
                "{endTime: 2024-02-03T00:00:00Z, maxDuration: 3s}}\n" + STUDY,
            ),
            (6, 61, "2024-02-03T00:00:00Z"),
            "maxDuration and endTime exclude each other",
            "remove one",
        ),
    ],
)
def test_a_wrong_value_of_the_job_is_one_error(
    change: tuple[str, str], at: tuple[int, int, str], message: str, hint: str
) -> None:
    reading = parse(changed(change))
    assert (reading.dialect, reading.spec) == ("vertex_ai", None)
    problem = one(reading.errors)
    assert (problem.line, problem.column, problem.value) == at, problem
    assert message in problem.message
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("change", "at", "message", "hint"),
    [
        (
            ("maxTrialCount: 9\nparallelTrialCount: 2\n", ""),
            (1, 1, ""),
            "maxTrialCount and parallelTrialCount are absent: 1 is used",
            "write how many trials",
        ),
        (("parallelTrialCount: 2\n", ""), (1, 1, ""), "parallelTrialCount is absent: 1 is used", "at a time"),
        (("Count: 2", "Count: 0"), (2, 21, "0"), "parallelTrialCount is 0: the default of 1", "1 or more"),
        (
            ("parallelTrialCount: 2", "parallelTrialCount: 2\nmaxFailedTrialCount: 0"),
            (3, 22, "0"),
            "maxFailedTrialCount is 0: the default is used",
            "give 1",
        ),
        ((", goal: MINIMIZE", ""), (5, 5, ""), "metric loss: goal is absent: MAXIMIZE is used", "MINIMIZE"),
        (
            ("goal: MINIMIZE", "goal: GOAL_TYPE_UNSPECIFIED"),
            (5, 28, "GOAL_TYPE_UNSPECIFIED"),
            "MAXIMIZE is used",
            "MINIMIZE",
        ),
        (("goal: MINIMIZE", "goal: minimize"), (5, 28, "minimize"), "is read as MINIMIZE", "MINIMIZE"),
        (
            ("maxTrialCount", "maxTrialCnt: 3\nmaxTrialCount"),
            (1, 1, "maxTrialCnt"),
            "unknown key",
            "maxTrialCount?",
        ),
        (
            (STUDY, "  measurementSelectionType: best\n" + STUDY),
            (6, 29, "best"),
            "is read as BEST_MEASUREMENT",
            "write BEST_MEASUREMENT",
        ),
        (
            (STUDY, "  observationNoise: HIGH\n" + STUDY),
            (6, 21, "HIGH"),
            "observationNoise is ignored",
            "remove it",
        ),
        (
            (STUDY, "  transferLearningConfig: {disableTransferLearning: true}\n" + STUDY),
            (6, 27, ""),
            "transferLearningConfig is ignored",
            "remove it",
        ),
        (
            (STUDY, "  convexAutomatedStoppingSpec: {learningRateParameterName: lr}\n" + STUDY),
            (6, 60, "lr"),
            "learningRateParameterName lr is not used",
            "remove it",
        ),
        (
            (STUDY, "  convexAutomatedStoppingSpec: {updateAllStoppedTrials: true}\n" + STUDY),
            (6, 57, "true"),
            "updateAllStoppedTrials is not used",
            "remove it",
        ),
        (
            ("trialJobSpec: {workerPoolSpecs: [{pythonPackageSpec: {pythonModule: trainer.task}}]}\n", ""),
            (1, 1, ""),
            "pythonModule is absent: nothing to run",
            "hpsearch.pythonModule",
        ),
    ],
)
def test_a_doubtful_value_of_the_job_is_one_warning(
    change: tuple[str, str], at: tuple[int, int, str], message: str, hint: str
) -> None:
    reading = parse(changed(change))
    assert reading.spec is not None, reading.errors
    problem = one(reading.warnings)
    assert (problem.line, problem.column, problem.value) == at, problem
    assert message in problem.message
    assert hint in problem.hint


def test_an_unspecified_word_is_as_good_as_none() -> None:
    words = "algorithm: ALGORITHM_UNSPECIFIED\n  observationNoise: OBSERVATION_NOISE_UNSPECIFIED\n"
    words += "  measurementSelectionType: MEASUREMENT_SELECTION_TYPE_UNSPECIFIED"
    spec = good(with_study(words))
    assert (spec.sampler.type, spec.selection) == (Algorithm.TPE, Selection.LAST)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("measurementSelectionType: BEST_MEASUREMENT", "means nothing for several objectives: the last"),
        ("medianAutomatedStoppingSpec: {}", "compares one objective, but there are 2: it is off"),
        ("convexAutomatedStoppingSpec: {}", "compares one objective, but there are 2: it is off"),
    ],
)
def test_what_needs_one_objective_is_off_with_a_warning_for_several(line: str, message: str) -> None:
    reading = parse(with_study(line, TWO))
    assert reading.spec is not None, reading.errors
    assert (reading.spec.selection, reading.spec.pruner) == (Selection.LAST, PrunerSpec())
    warning = one(reading.warnings)
    assert (warning.line, line.partition(":")[0] in warning.message) == (7, True)
    assert message in warning.message


@pytest.mark.parametrize("key", ["maxNumTrialsNoProgress: 3", "maxDurationNoProgress: 3s"])
def test_progress_of_several_objectives_cannot_be_seen(key: str) -> None:
    error = one(parse(with_study(f"studyStoppingConfig: {{{key}}}", TWO)).errors)
    assert f"{key.partition(':')[0]} needs one objective, but there are 2" in error.message


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("pruner: {type: ASHA}", "ASHA compares one objective, but there are 2"),
        ("pruner: {type: PATIENCE}", "PATIENCE compares one objective, but there are 2"),
        ("sampler: {type: CMA_ES}", "CMA_ES cannot search for 2 objectives"),
    ],
)
def test_our_block_cannot_ask_for_one_objective_s_rules_with_several(block: str, message: str) -> None:
    error = one(parse(changed(TWO) + f"hpsearch: {{{block}}}\n").errors)
    assert message in error.message
    assert error.value


def test_several_objectives_can_be_searched_without_pruning() -> None:
    spec = good(changed(TWO) + "hpsearch: {pruner: {type: NONE}, sampler: {type: NSGA_II}}\n")
    assert (spec.sampler.type, spec.pruner) == (Algorithm.NSGA_II, PrunerSpec())


@pytest.mark.parametrize(
    "text",
    [
        "workerPoolSpecs: [{machineSpec: {machineType: n1-standard-4}}]\n",
        "displayName: x\njobSpec: {workerPoolSpecs: []}\n",
        "displayName: x\ntrialJobSpec: {workerPoolSpecs: []}\nmaxTrialCount: 3\n",
        "metrics: [{metricId: loss}]\nparameters: []\n",
        "studySpec:\nmaxTrialCount: 3\nparallelTrialCount: 1\n",
    ],
)
def test_a_job_without_a_study_has_nothing_to_tune(text: str) -> None:
    reading = parse(text)
    assert (reading.dialect, reading.spec) == ("vertex_ai", None)
    error = one(reading.errors)
    assert (error.line, error.path) == (1, "studySpec")
    assert "nothing to tune" in error.message


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        ("studySpec: [\n", "vertex_ai"),
        ('{"studySpec": {"metrics": [}', "vertex_ai"),
        ("study_spec:\n\t- x\n", "vertex_ai"),
        ("trainingInput: [\n", "cloud_ml_engine"),
        ("trainingInput: {}\nstudySpec: {}\n", "cloud_ml_engine"),
        ("studySpec: 3\n", "vertex_ai"),
        ("hpsearch: 3\n", "hpsearch"),
        ("- studySpec\n", "cloud_ml_engine"),
    ],
)
def test_the_dialect_is_told_also_where_there_are_errors(text: str, dialect: str) -> None:
    reading = parse(text)
    assert (reading.spec, reading.dialect) == (None, dialect)


def test_all_errors_of_a_job_are_told_together_in_file_order() -> None:
    text = changed(
        ("Count: 9", "Count: x"),
        ("loss, goal: MINIMIZE", "'a b', goal: DOWN"),
        ("lr, doubleValueSpec: {minValue: 0.1", "lr, doubleValueSpec: {minValue: abc"),
        ("trainer.task", "a/b.py"),
    )
    assert [problem.line for problem in parse(text).errors] == [1, 5, 5, 7, 8]
