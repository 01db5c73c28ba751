"""The rules of the `hpsearch:` block, and how it is laid over the dialect."""

from __future__ import annotations

import pytest

from hpsearch.spec.block import BlockForm
from hpsearch.spec.cloud_ml_engine import JobForm
from hpsearch.spec.model import (
    Algorithm,
    Limits,
    PrunerSpec,
    PruningRule,
    Reading,
    Resources,
    SamplerSpec,
    Selection,
    Spec,
    Tracking,
)
from hpsearch.spec.reading import parse

HEAD = """\
trainingInput:
  pythonModule: trainer.task
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 4
    params: [{parameterName: lr, type: DOUBLE, minValue: 0.1, maxValue: 1}]
"""


def laid(block: str, head: str = HEAD) -> Reading:
    """The reading with a block in line 8, whose first entry is in column 12."""
    return parse(f"{head}hpsearch: {{{block}}}\n")


def good(block: str, head: str = HEAD) -> Spec:
    reading = laid(block, head)
    assert reading.spec is not None, reading.errors
    assert not reading.warnings
    return reading.spec


def test_the_defaults_without_a_block() -> None:
    spec = parse(HEAD).spec
    assert spec is not None
    assert (spec.max_steps, spec.measure_every, spec.selection) == (1000, 50, Selection.LAST)
    assert spec.sampler == SamplerSpec(Algorithm.TPE, 0, None)
    assert spec.pruner == PrunerSpec(PruningRule.NONE)
    assert spec.resources == Resources(1.0, 0.0, None)
    assert spec.limits == Limits(None, None, 0, 3)
    assert spec.tracking == Tracking(None, None)


def test_the_whole_block_is_read() -> None:
    spec = good(
        "maxSteps: 2000, measureEvery: 100, sampler: {type: GP, seed: 7, startupTrials: 5}, "
        "pruner: {type: ASHA, minSteps: 200, reductionFactor: 4}, "
        "resources: {cpu: 0.5, gpu: 1, memory: 2Gi, workers: 4}, "
        "limits: {trialTimeout: 30m, studyTimeout: 8h, maxFailedTrials: 5, maxAttempts: 2}, "
        "tracking: {uri: 'http://h:5000', experiment: auto_mpg}, measurementSelectionType: BEST"
    )
    assert (spec.max_steps, spec.measure_every, spec.selection) == (2000, 100, Selection.BEST)
    assert spec.sampler == SamplerSpec(Algorithm.GP, 7, 5)
    assert spec.pruner == PrunerSpec(PruningRule.ASHA, min_steps=200, reduction_factor=4)
    assert spec.resources == Resources(0.5, 1.0, 2 * 2**30, workers=4)
    assert spec.limits == Limits(1800.0, 28800.0, 5, 2)
    assert spec.tracking == Tracking("http://h:5000", "auto_mpg")


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (9, 1), (30, 2), (2000, 100)])
def test_a_study_is_measured_about_twenty_times(steps: int, every: int) -> None:
    assert good(f"maxSteps: {steps}").measure_every == every


@pytest.mark.parametrize(
    ("word", "algorithm"),
    [
        *((each.value, each) for each in Algorithm if each is not Algorithm.GRID),
        ("CMA-ES", Algorithm.CMA_ES),
        ("NSGA-II", Algorithm.NSGA_II),
        ("NSGA2", Algorithm.NSGA_II),
    ],
)
def test_every_sampler_can_be_named(word: str, algorithm: Algorithm) -> None:
    assert good(f"sampler: {{type: {word}}}").sampler.type is algorithm


@pytest.mark.parametrize(
    ("block", "pruner"),
    [
        ("type: NONE", PrunerSpec()),
        ("type: MEDIAN", PrunerSpec(PruningRule.MEDIAN, min_trials=5)),
        (
            "type: MEDIAN, minSteps: 9, minTrials: 2",
            PrunerSpec(PruningRule.MEDIAN, min_steps=9, min_trials=2),
        ),
        ("type: ASHA", PrunerSpec(PruningRule.ASHA, min_steps=50)),
        ("type: HYPERBAND, reductionFactor: 2", PrunerSpec(PruningRule.HYPERBAND, 50, reduction_factor=2)),
        (
            "type: PATIENCE, patience: 3, minDelta: 1e-3",
            PrunerSpec(PruningRule.PATIENCE, patience=3, min_delta=1e-3),
        ),
        ("type: THRESHOLD, upper: 0", PrunerSpec(PruningRule.THRESHOLD, upper=0)),
        ("type: MEDIAN, useElapsedDuration: true", PrunerSpec(PruningRule.MEDIAN, use_elapsed=True)),
        (
            "type: MEDIAN, useElapsedDuration: true, minSteps: 3600",
            PrunerSpec(PruningRule.MEDIAN, min_steps=3600, use_elapsed=True),
        ),
        ("type: DECAY_CURVE", PrunerSpec(PruningRule.DECAY_CURVE)),
        (
            "type: DECAY_CURVE, minSteps: 30, useElapsedDuration: yes",
            PrunerSpec(PruningRule.DECAY_CURVE, min_steps=30, use_elapsed=True),
        ),
        ("type: CONVEX", PrunerSpec(PruningRule.CONVEX)),
        (
            "type: CONVEX, maxStepCount: 1500, minMeasurementCount: 3",
            PrunerSpec(PruningRule.CONVEX, min_steps=150, final_step=1500, min_measurements=3),
        ),
        (
            "type: CONVEX, maxStepCount: 7200, minSteps: 0, useElapsedDuration: true",
            PrunerSpec(PruningRule.CONVEX, final_step=7200, use_elapsed=True),
        ),
        ("type: THRESHOLD, lower: -1, upper: 1", PrunerSpec(PruningRule.THRESHOLD, lower=-1, upper=1)),
    ],
)
def test_every_pruner_can_be_named_with_its_settings(block: str, pruner: PrunerSpec) -> None:
    assert good(f"pruner: {{{block}}}").pruner == pruner


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("30m", 1800), ("8h", 28800), ("1d", 86400), ("1.5h", 5400), ('"7200s"', 7200)],
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert good(f"limits: {{trialTimeout: {text}}}").limits.trial_timeout == seconds


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("0s", 0.0), ("90s", 90.0), ("null", None)])
def test_reports_are_due_in_some_time_never_or_by_the_trials_own_pace(
    text: str, seconds: float | None
) -> None:
    limits = good(f"limits: {{startupTimeout: {text}, progressTimeout: {text}}}").limits
    assert limits.startup_timeout == limits.progress_timeout == seconds


def test_a_trials_processes_and_output_are_bounded() -> None:
    assert good("limits: {}").limits == Limits(max_processes=200, max_output=2**26)
    limits = good("limits: {maxProcesses: 1000, maxOutput: 1Gi}").limits
    assert (limits.max_processes, limits.max_output) == (1000, 2**30)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2Gi", 2**31),
        ("512Mi", 2**29),
        ("1G", 10**9),
        ("2000k", 2_000_000),
        ("1.5Gi", 3 * 2**29),
        ("4194304", 2**22),
    ],
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert good(f"resources: {{memory: {text}}}").resources.memory == size


@pytest.mark.parametrize(
    ("word", "selection"),
    [
        ("LAST", Selection.LAST),
        ("BEST", Selection.BEST),
        ("LAST_MEASUREMENT", Selection.LAST),
        ("BEST_MEASUREMENT", Selection.BEST),
    ],
)
def test_the_measurement_that_counts_can_be_chosen(word: str, selection: Selection) -> None:
    assert good(f"measurementSelectionType: {word}").selection is selection


@pytest.mark.parametrize(
    ("block", "at", "message", "hint"),
    [
        ("maxSteps: 0", "0", "maxSteps is 0: below 1", "give 1 or more"),
        ("maxSteps: 1.5", "1.5", "not a whole number", "write 2"),
        ("measureEvery: 1001", "1001", "measureEvery 1001 is above maxSteps 1000", "give 1000 or less"),
        ("sampler: TPE", "TPE", "sampler is TPE where a map is due", "key: value"),
        ("sampler: {type: BAYESIAN}", "BAYESIAN", "type BAYESIAN is unknown", "did you mean TPE?"),
        ("sampler: {type: QQQQQ}", "QQQQQ", "is unknown", "use TPE, GP, CMA_ES, QMC, RANDOM, GRID, NSGA_II"),
        ("sampler: {seed: -1}", "-1", "seed is -1: negative", "give 0 or more"),
        ("sampler: {seed: 4294967296}", "4294967296", "above 4294967295", "or less"),
        ("sampler: {startupTrials: many}", "many", "not a number", "such as 10"),
        ("pruner: {type: SHA}", "SHA", "type SHA is unknown", "did you mean ASHA?"),
        ("pruner: {type: ASHA, minSteps: 0}", "0", "ASHA compares there first", "give 1 or more"),
        ("pruner: {type: MEDIAN, minSteps: 1001}", "1001", "above maxSteps 1000", "less than 1000"),
        ("pruner: {type: ASHA, reductionFactor: 1}", "1", "reductionFactor is 1: below 2", "give 2 or more"),
        ("pruner: {type: MEDIAN, minTrials: 0}", "0", "minTrials is 0: below 1", "give 1 or more"),
        (
            "pruner: {type: CONVEX, maxStepCount: 9, minSteps: 10}",
            "10",
            "above maxStepCount 9",
            "less than 9",
        ),
        ("pruner: {type: CONVEX, minSteps: 1001}", "1001", "above maxSteps 1000", "less than 1000"),
        ("pruner: {type: CONVEX, maxStepCount: 0}", "0", "maxStepCount is 0: below 1", "give 1 or more"),
        ("pruner: {type: DECAY, minSteps: 1}", "DECAY", "type DECAY is unknown", "did you mean DECAY_CURVE?"),
        ("pruner: {type: MEDIAN, useElapsedDuration: 1}", "1", "neither true nor false", "true or false"),
        ("jobDir: [a]", "[a]", "jobDir is a list", "one value"),
        ("pruner: {type: PATIENCE, minDelta: -1}", "-1", "minDelta is -1: negative", "0 or more"),
        ("pruner: {type: THRESHOLD, upper: 1, lower: 2}", "2", "lower 2 is not below upper 1", "swap them"),
        ("pruner: {type: THRESHOLD, upper: .nan}", ".nan", "not a finite number", "finite"),
        ("resources: {cpu: 0}", "0", "resources are all 0", "write cpu: 1"),
        ("resources: {cpu: -1}", "-1", "cpu is -1: negative", "0 or more"),
        ("resources: {workers: 0}", "0", "workers is 0: below 1", "give 1 or more"),
        ("resources: {workers: 2.5}", "2.5", "workers is 2.5, not a whole number", ""),
        ("resources: {gpu: 1.5}", "1.5", "only whole GPUs", "write 2"),
        ("resources: {memory: 2GB}", "2GB", "memory is 2GB, not a size", "2Gi"),
        ("resources: {memory: 2}", "2", "which is 2 bytes", "did you mean 2Gi?"),
        ("resources: {memory: 1}", "1", "which is 1 byte", "did you mean 1Gi?"),
        ("limits: {trialTimeout: 30x}", "30x", "trialTimeout is 30x, not a duration", "30m"),
        ("limits: {trialTimeout: 0}", "0", "no time at all", "more than 0"),
        ("limits: {progressTimeout: -1s}", "-1s", "progressTimeout is -1s, not a duration", "30m"),
        ("limits: {maxProcesses: 0}", "0", "below 1", "1 or more"),
        ("limits: {maxOutput: 5}", "5", "which is 5 bytes", "5Gi"),
        ("limits: {studyTimeout: -5s}", "-5s", "not a duration", "8h"),
        ("limits: {maxFailedTrials: -1}", "-1", "negative", "0 or more"),
        ("limits: {maxAttempts: 0}", "0", "below 1", "1 or more"),
        ("tracking: {experiment: [a]}", "[a]", "experiment is a list", "one value"),
        ("measurementSelectionType: FIRST", "FIRST", "is unknown", "use LAST, BEST"),
        ("pythonModule: a/b.py", "a/b.py", "not the name of a module", "did you mean a.b?"),
    ],
)
def test_a_wrong_value_in_the_block_is_one_error_at_the_value(
    block: str, at: str, message: str, hint: str
) -> None:
    reading = laid(block)
    assert reading.spec is None
    assert len(reading.errors) == 1, reading.errors
    problem = reading.errors[0]
    assert (problem.line, problem.column) == (8, 12 + block.rindex(at))
    assert problem.path.startswith("hpsearch.")
    assert problem.value == ("" if at.startswith("[") else at)
    assert message in problem.message
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("block", "path", "message"),
    [
        ("pruner: {minSteps: 3}", "hpsearch.pruner.type", "the pruner has no type"),
        ("pruner: {type: THRESHOLD}", "hpsearch.pruner.lower", "neither lower nor upper"),
    ],
)
def test_what_a_pruner_lacks_is_told_at_its_key(block: str, path: str, message: str) -> None:
    (problem,) = laid(block).errors
    assert (problem.line, problem.column, problem.path) == (8, 12, path)
    assert message in problem.message
    assert problem.hint


@pytest.mark.parametrize(
    ("block", "at", "message", "hint"),
    [
        ("maxStep: 3", "maxStep", "unknown key maxStep: ignored", "did you mean maxSteps?"),
        ("max_steps: 1000", "max_steps", "key max_steps is read as maxSteps", "write maxSteps"),
        ("sampler: {type: tpe}", "tpe", "type tpe is read as TPE", "write TPE"),
        ("sampler: {type: cma-es}", "cma-es", "type cma-es is read as CMA_ES", "write CMA_ES"),
        ("pruner: {type: MEDIAN, patience: 3}", "3", "patience is not used by MEDIAN", "remove it"),
        ("limits: {maxFailedTrials: 0}", "0", "maxFailedTrials is 0: the default", "give 1"),
        ("pruner: {type: ASHA, maxStepCount: 9}", "9", "maxStepCount is not used by ASHA", "remove it"),
        (
            "pruner: {type: DECAY_CURVE, minTrials: 9}",
            "9",
            "minTrials is not used by DECAY_CURVE",
            "remove it",
        ),
        ("command: [run, 3]", "3", "3 is a number to YAML", 'write "3"'),
        ("pythonModule: other.task", "other.task", "pythonModule other.task is ignored", "keep one"),
    ],
)
def test_a_doubtful_value_in_the_block_is_one_warning_at_the_value(
    block: str, at: str, message: str, hint: str
) -> None:
    reading = laid(block)
    assert reading.spec is not None, reading.errors
    assert len(reading.warnings) == 1, reading.warnings
    problem = reading.warnings[0]
    assert (problem.line, problem.column, problem.value) == (8, 12 + block.rindex(at), at)
    assert message in problem.message
    assert hint in problem.hint


@pytest.mark.parametrize("early", ["true", "false"])
def test_an_explicit_pruner_wins_over_early_stopping(early: str) -> None:
    head = HEAD.replace("    params", f"    enableTrialEarlyStopping: {early}\n    params")
    other = "NONE" if early == "true" else "ASHA"
    spec = parse(head).spec
    assert spec is not None
    assert spec.pruner.type is (PruningRule.MEDIAN if early == "true" else PruningRule.NONE)
    reading = laid(f"pruner: {{type: {other}}}", head)
    assert reading.spec is not None
    assert reading.spec.pruner.type == other
    (warning,) = reading.warnings
    assert warning.path == "hpsearch.pruner.type"
    assert f"wins over enableTrialEarlyStopping: {early}" in warning.message
    same = "ASHA" if early == "true" else "NONE"
    assert good(f"pruner: {{type: {same}}}", head).pruner.type == same


def test_the_sampler_of_the_block_wins_over_the_algorithm_with_a_warning_where_they_differ() -> None:
    head = HEAD.replace("    params", "    algorithm: RANDOM_SEARCH\n    params")
    assert good("sampler: {seed: 3}", head).sampler == SamplerSpec(Algorithm.RANDOM, 3)
    assert good("sampler: {type: RANDOM}", head).sampler.type is Algorithm.RANDOM
    reading = laid("sampler: {type: QMC}", head)
    assert reading.spec is not None
    assert reading.spec.sampler.type is Algorithm.QMC
    (warning,) = reading.warnings
    assert warning.message == "sampler.type QMC wins over algorithm RANDOM_SEARCH"
    unspecified = HEAD.replace("    params", "    algorithm: ALGORITHM_UNSPECIFIED\n    params")
    assert good("sampler: {type: QMC}", unspecified).sampler.type is Algorithm.QMC


def test_the_limits_of_the_block_win_over_the_dialect() -> None:
    head = HEAD.replace("    params", "    maxFailedTrials: 2\n    params")
    head = head.replace("  hyper", "  scheduling: {maxRunningTime: 7200s}\n  hyper", 1)
    assert good("maxSteps: 9", head).limits == Limits(None, 7200.0, 2, 3)
    assert good("limits: {maxFailedTrials: 2, studyTimeout: 1h}", head).limits == Limits(None, 3600.0, 2, 3)
    reading = laid("limits: {maxFailedTrials: 5}", head)
    assert reading.spec is not None
    assert reading.spec.limits.max_failed_trials == 5
    assert "5 wins over trainingInput.hyperparameters.maxFailedTrials 2" in reading.warnings[0].message


def test_the_module_of_the_block_is_taken_where_the_dialect_has_none() -> None:
    head = HEAD.replace("  pythonModule: trainer.task\n", "")
    assert good("pythonModule: mine.task", head).module == "mine.task"
    reading = parse(head)
    assert reading.spec is not None
    assert reading.spec.module == ""
    assert [(w.line, w.path) for w in reading.warnings] == [(1, "trainingInput.pythonModule")]


def test_a_grid_of_the_block_needs_a_finite_space() -> None:
    (error,) = laid("sampler: {type: GRID}").errors
    assert (error.line, error.column, error.value) == (7, 40, "DOUBLE")
    assert "a grid over a DOUBLE has no end" in error.message


def test_cma_es_warns_of_categorical_parameters() -> None:
    head = HEAD.replace("}]", "}, {parameterName: c, type: CATEGORICAL, categoricalValues: [a, b]}]")
    (warning,) = laid("sampler: {type: CMA_ES}", head).warnings
    assert (warning.line, warning.column) == (8, 28)
    assert "CATEGORICAL c: it is sampled at random" in warning.message


def test_memory_alone_is_something_to_ask_for() -> None:
    assert good("resources: {cpu: 0, memory: 1Gi}").resources == Resources(0.0, 0.0, 2**30)


@pytest.mark.parametrize("block", ["hpsearch:\n", "hpsearch: null\n", "hpsearch: {tracking: {uri: null}}\n"])
def test_a_null_is_the_default(block: str) -> None:
    reading = parse(HEAD + block)
    assert reading.spec is not None
    assert not reading.warnings
    assert reading.spec.tracking == Tracking()


def test_a_block_that_is_no_map_is_an_error() -> None:
    (error,) = parse(HEAD + "hpsearch: 3\n").errors
    assert (error.line, error.column, error.path) == (8, 11, "hpsearch")
    assert "where a map is due" in error.message


def test_both_forms_have_a_json_schema_in_the_spelling_of_the_file() -> None:
    block = BlockForm.model_json_schema()
    assert {"maxSteps", "measureEvery", "measurementSelectionType"} <= set(block["properties"])
    sampler = block["$defs"]["SamplerForm"]["properties"]
    assert (
        "CMA_ES" in sampler["type"]["anyOf"][0]["enum"]
        if "anyOf" in sampler["type"]
        else sampler["type"]["enum"]
    )
    assert {"minimum": 0, "maximum": 2**32 - 1, "type": "integer"} in sampler["seed"]["anyOf"]
    parameter = JobForm.model_json_schema()["$defs"]["ParameterForm"]["properties"]
    assert {"parameterName", "minValue", "scaleType"} <= set(parameter)
