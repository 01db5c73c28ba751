"""What a trial is started with, in both dialects and the block: what runs, with what, and where."""

from __future__ import annotations

import json

import pytest

from hpsearch.spec.model import Program, Reading, Spec
from hpsearch.spec.reading import parse

VERTEX = """\
maxTrialCount: 1
parallelTrialCount: 1
studySpec:
  metrics: [{metricId: loss, goal: MINIMIZE}]
  parameters: [{parameterId: n, integerValueSpec: {minValue: 1, maxValue: 2}}]
"""
ENGINE = """\
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 4
    params: [{parameterName: n, type: INTEGER, minValue: 1, maxValue: 2}]
"""
MODULE = "pythonPackageSpec: {pythonModule: trainer.task}"


def vertex(pool: str, *lines: str, block: str = "") -> Reading:
    """A job whose only pool stands in line 8; more lines of its trialJobSpec follow in line 9."""
    job = f"trialJobSpec:\n  workerPoolSpecs:\n  - {{{pool}}}\n" + "".join(f"  {line}\n" for line in lines)
    return parse(f"{VERTEX}{job}hpsearch: {{{block}}}\n")


def engine(*lines: str, block: str = "") -> Reading:
    """A training job with some lines of its own from line 2."""
    text = "trainingInput:\n" + "".join(f"  {line}\n" for line in lines)
    return parse(f"{text}{ENGINE}hpsearch: {{{block}}}\n")


def good(reading: Reading) -> Spec:
    assert reading.spec is not None, reading.errors
    assert not reading.warnings
    return reading.spec


def warned(reading: Reading) -> tuple[Spec, str]:
    """The Spec and the message of the only warning."""
    assert reading.spec is not None, reading.errors
    (warning,) = reading.warnings
    assert warning.hint
    return reading.spec, warning.message


def test_a_package_s_module_runs_with_its_arguments_and_variables() -> None:
    spec = good(
        vertex(
            "machineSpec: {machineType: n1-standard-4}, replicaCount: 1, diskSpec: {bootDiskType: pd-ssd}, "
            "pythonPackageSpec: {executorImageUri: gcr.io/x, packageUris: [dist/trainer.tar.gz], "
            "pythonModule: trainer.task, args: ['--a=1', --b], "
            "env: [{name: A, value: '1'}, {name: B}, {name: A, value: x y}]}"
        )
    )
    assert (spec.module, spec.args, spec.program.command) == ("trainer.task", ("--a=1", "--b"), ())
    assert spec.program.env == (("A", "x y"), ("B", ""))


def test_a_container_s_command_runs_here_without_a_word_about_its_image() -> None:
    spec = good(
        vertex("containerSpec: {imageUri: gcr.io/x, command: [python3, train.py], args: [--a, 'b c']}")
    )
    assert (spec.module, spec.program.command, spec.args) == ("", ("python3", "train.py"), ("--a", "b c"))


@pytest.mark.parametrize("command", ["", ", command: []"])
def test_an_image_without_a_command_is_nothing_to_run(command: str) -> None:
    pool = f"containerSpec: {{imageUri: gcr.io/x, args: [--a]{command}}}"
    reading = vertex(pool)
    spec, message = warned(reading)
    assert (spec.module, spec.program.command, spec.args) == ("", (), ("--a",))
    assert message == "imageUri gcr.io/x is not pulled, and no command is given: nothing to run"
    assert (reading.warnings[0].line, reading.warnings[0].value) == (8, "gcr.io/x")
    assert "hpsearch.pythonModule or hpsearch.command" in reading.warnings[0].hint
    assert good(vertex(pool, block="pythonModule: mine.task")).module == "mine.task"
    assert good(vertex(pool, block="command: [./train]")).program.command == ("./train",)


def test_the_block_s_module_runs_instead_of_a_container_s_command() -> None:
    spec = good(vertex("containerSpec: {imageUri: i, command: [run]}", block="pythonModule: mine.task"))
    assert (spec.module, spec.program.command) == ("mine.task", ())


def test_the_block_s_command_runs_instead_of_a_module() -> None:
    spec = good(engine("pythonModule: trainer.task", "args: [--a]", block="command: [Rscript, train.R]"))
    assert (spec.program.command, spec.args) == (("Rscript", "train.R"), ("--a",))
    _, message = warned(engine(block="command: [x], pythonModule: y"))
    assert message == "pythonModule y is ignored: command is run instead"


def test_a_command_needs_a_word() -> None:
    (error,) = engine(block="command: []").errors
    assert error.message == "command is empty"


def test_a_program_cannot_be_a_package_and_a_container() -> None:
    (error,) = vertex(f"containerSpec: {{imageUri: i}}, {MODULE}").errors
    assert error.message == "pythonPackageSpec and containerSpec exclude each other"


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("{value: '1'}", "env[0] is not the name of a variable"),
        ("{name: 'A=B'}", "name is not the name of a variable"),
        ("{name: [A]}", "name is a list where a single value is due"),
        ("3", "env[0] is 3 where a map is due"),
    ],
)
def test_a_variable_needs_a_name(env: str, message: str) -> None:
    (error,) = vertex(f"pythonPackageSpec: {{pythonModule: t, env: [{env}]}}").errors
    assert error.message == message


def test_a_container_of_cloud_ml_engine_runs_its_command_with_its_arguments_first() -> None:
    config = "masterConfig: {imageUri: gcr.io/x, containerCommand: [python3, t.py], containerArgs: [a]}"
    spec, message = warned(engine(config, "args: [b]"))
    assert (spec.program.command, spec.args) == (("python3", "t.py"), ("a", "b"))
    assert message == "image gcr.io/x is not pulled: only local code is run"
    _, message = warned(engine("masterConfig: {imageUri: gcr.io/x}", "pythonModule: trainer.task"))
    assert message == "image gcr.io/x is not pulled: only local code is run"
    _, message = warned(engine("masterConfig: {imageUri: gcr.io/x}"))
    assert "nothing to run" in message


@pytest.mark.parametrize(
    "uris", ["[gs://b/a.tar.gz, gs://b/b.tar.gz]", "gs://b/a.tar.gz", "[x.whl, gs://b/a.tar.gz]"]
)
def test_packages_of_a_bucket_are_not_fetched(uris: str) -> None:
    _, first = warned(engine("pythonModule: t", f"packageUris: {uris}"))
    _, second = warned(vertex(f"pythonPackageSpec: {{pythonModule: t, packageUris: {uris}}}"))
    assert first == second == "package gs://b/a.tar.gz is not fetched: only local code is run"
    good(engine("pythonModule: t", "packageUris: [dist/a.tar.gz]"))


def test_the_job_dir_is_the_block_s_before_the_file_s_and_of_a_bucket_with_a_warning() -> None:
    assert good(engine("pythonModule: t", "jobDir: out")).program.job_dir == "out"
    assert good(engine("pythonModule: t", "jobDir: gs://b", block="jobDir: mine")).program.job_dir == "mine"
    assert good(vertex(MODULE, block="jobDir: mine")).program.job_dir == "mine"
    assert good(engine("pythonModule: t")).program.job_dir is None
    for reading in (engine("pythonModule: t", "jobDir: gs://b"), vertex(MODULE, block="jobDir: gs://b")):
        spec, message = warned(reading)
        assert spec.program.job_dir == "gs://b"
        assert message.startswith("jobDir gs://b is passed to the trainer as it is")


def test_output_goes_to_a_path_of_this_machine_only() -> None:
    here = vertex(MODULE, "baseOutputDirectory: {outputUriPrefix: /data/out}")
    assert good(here).program.output == "/data/out"
    spec, message = warned(vertex(MODULE, "baseOutputDirectory: {outputUriPrefix: gs://b/out}"))
    assert spec.program.output is None
    assert "outputUriPrefix gs://b/out is not written to" in message
    spec, message = warned(vertex(MODULE, "baseOutputDirectory: {outputUriPrefix: $OUT/}"))
    assert spec.program.output is None
    assert message.startswith("$OUT left in the file")


def test_where_a_program_starts_and_how_long_it_may_take_to_stop() -> None:
    assert not good(engine("pythonModule: t")).program.own_directory
    assert not good(engine("pythonModule: t", block="workingDirectory: CALLER")).program.own_directory
    spec = good(engine("pythonModule: t", block="workingDirectory: TRIAL, limits: {gracePeriod: 1m}"))
    assert (spec.program.own_directory, spec.limits.grace_period) == (True, 60.0)
    (error,) = engine("pythonModule: t", block="limits: {gracePeriod: 301s}").errors
    assert error.message.startswith("gracePeriod is 301s")
    (error,) = engine("pythonModule: t", block="workingDirectory: HOME").errors
    assert error.hint == "use TRIAL, CALLER"


def test_our_time_limit_of_a_trial_wins_over_the_job_s() -> None:
    scheduling = "scheduling: {timeout: 3600s}"
    assert good(vertex(MODULE, scheduling)).limits.trial_timeout == 3600
    assert good(vertex(MODULE, scheduling, block="limits: {trialTimeout: 5m}")).limits.trial_timeout == 300


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["pythonModule: $MODULE"], "$MODULE"),
        (["pythonModule: t", "args: ['--d=${DATA_DIR}/x', --e=$E$F, '$D']"], "${DATA_DIR}, $E, $F, $D"),
        (["pythonModule: t", "jobDir: $JOB_DIR"], "$JOB_DIR"),
        (["masterConfig: {containerCommand: [sh, -c, 'x $A']}"], "$A"),
        (
            ["pythonModule: t", "args: [$A, $B, $C, $D, $E, $F, $G, $H, $I]"],
            "$A, $B, $C, $D, $E, $F, $G, $H, ...",
        ),
    ],
)
def test_shell_variables_that_nobody_filled_in_are_listed_once(lines: list[str], names: str) -> None:
    reading = engine(*lines)
    _, message = warned(reading)
    assert message == f"{names} left in the file: nothing is filled in, texts are used as they are written"
    assert names.partition(",")[0] in reading.warnings[0].value


@pytest.mark.parametrize(
    "line", ["args: ['$5', a$, '$(x)', '${', '${A-b}', '$$']", "region: $REGION", "runtimeVersion: $V"]
)
def test_other_dollars_and_texts_that_are_not_used_are_left_alone(line: str) -> None:
    good(engine("pythonModule: t", line))


def test_shell_variables_of_what_the_block_replaces_do_not_matter() -> None:
    block = "command: [run], jobDir: out"
    good(engine("pythonModule: $MODULE", "jobDir: $JOB_DIR", block=block))
    _, message = warned(engine("pythonModule: t", block="jobDir: $OUT"))
    assert message.startswith("$OUT left in the file")
    good(vertex("containerSpec: {imageUri: $IMAGE, command: [$RUN]}", block="pythonModule: t"))


def test_shell_variables_in_metrics_values_and_variables_are_found() -> None:
    text = VERTEX.replace("metricId: loss", "metricId: $METRIC").replace(
        "integerValueSpec: {minValue: 1, maxValue: 2}", "categoricalValueSpec: {values: [$A, b]}"
    )
    package = "pythonPackageSpec: {pythonModule: t, env: [{name: X, value: $B}]}"
    text += f"trialJobSpec: {{workerPoolSpecs: [{{{package}}}]}}\n"
    _, message = warned(parse(text))
    assert message.startswith("$METRIC, $A, $B left in the file")


def test_tf_config_shows_the_training_input_as_json() -> None:
    lines = ["args: ['1', two, '--x=3']", "region: us-east1", "useChiefInTfConfig: true", "jobDir: ~"]
    lines += ["runtimeVersion: 1.14", "workerCount: '0'"]
    job = json.loads(good(engine("pythonModule: t", *lines)).program.job)
    assert job == {
        "pythonModule": "t",
        "args": ["1", "two", "--x=3"],
        "region": "us-east1",
        "useChiefInTfConfig": True,
        "runtimeVersion": "1.14",
        "workerCount": "0",
        "jobDir": None,
        "hyperparameters": {
            "goal": "MINIMIZE",
            "hyperparameterMetricTag": "loss",
            "maxTrials": 4,
            "params": [{"parameterName": "n", "type": "INTEGER", "minValue": 1, "maxValue": 2}],
        },
    }


def test_tf_config_shows_versions_arguments_and_counts_of_machines_as_they_are_written() -> None:
    reading = engine(
        "pythonModule: t",
        "args: [--seed, 3, 010, 1e-4, 2020-01-01, true]",
        "pythonVersion: 3.10",
        "runtimeVersion: 1.10",
        "workerCount: 0",
        "masterConfig: {acceleratorConfig: {count: 0, type: T4}, diskConfig: {bootDiskSizeGb: 100}}",
        "scheduling: {priority: 7, maxWaitTime: 1800}",
    )
    assert reading.spec is not None, reading.errors
    job = json.loads(reading.spec.program.job)
    assert job["args"] == ["--seed", "3", "010", "1e-4", "2020-01-01", True]
    assert (job["pythonVersion"], job["runtimeVersion"], job["workerCount"]) == ("3.10", "1.10", "0")
    assert job["masterConfig"] == {
        "acceleratorConfig": {"count": "0", "type": "T4"},
        "diskConfig": {"bootDiskSizeGb": 100},
    }
    assert job["scheduling"] == {"priority": 7, "maxWaitTime": "1800"}


def test_tf_config_shows_numbers_where_the_schema_has_them_however_they_are_written() -> None:
    params = "[{parameterName: n, type: DISCRETE, discreteValues: ['1', 2.5, 010]}, {parameterName: c, "
    params += "type: CATEGORICAL, categoricalValues: [1, 0.10]}]"
    study = "{max_trials: '4', goal: MINIMIZE, hyperparameterMetricTag: 3, params: " + params + "}"
    spec = parse(f"trainingInput:\n  pythonModule: t\n  hyperparameters: {study}\n").spec
    assert spec is not None
    told = json.loads(spec.program.job)["hyperparameters"]
    assert (told["max_trials"], told["hyperparameterMetricTag"]) == (4, "3")
    assert told["params"][0]["discreteValues"] == [1, 2.5, 8]
    assert told["params"][1]["categoricalValues"] == ["1", "0.10"]


def test_tf_config_shows_the_texts_of_a_trial_job_of_vertex_ai_as_they_are_written() -> None:
    machine = "machineSpec: {machineType: n1, acceleratorCount: 0}, replicaCount: 1"
    package = "pythonPackageSpec: {pythonModule: t, args: [3.10], env: [{name: A, value: 0x10}]}"
    spec = vertex(f"{machine}, diskSpec: {{bootDiskSizeGb: 50}}, {package}").spec
    assert spec is not None
    assert json.loads(spec.program.job)["workerPoolSpecs"] == [
        {
            "machineSpec": {"machineType": "n1", "acceleratorCount": 0},
            "replicaCount": "1",
            "diskSpec": {"bootDiskSizeGb": 50},
            "pythonPackageSpec": {
                "pythonModule": "t",
                "args": ["3.10"],
                "env": [{"name": "A", "value": "0x10"}],
            },
        }
    ]


def test_tf_config_shows_the_trial_job_of_vertex_ai_and_an_empty_one_where_there_is_none() -> None:
    job = json.loads(good(vertex(MODULE, "scheduling: {timeout: 3600s}")).program.job)
    assert job == {
        "workerPoolSpecs": [{"pythonPackageSpec": {"pythonModule": "trainer.task"}}],
        "scheduling": {"timeout": "3600s"},
    }
    assert good(parse(VERTEX + "hpsearch: {pythonModule: t}\n")).program == Program()


@pytest.mark.parametrize("wrapper", ["hyperparameters:\n", ""])
def test_tf_config_shows_a_training_input_that_lost_its_wrapper(wrapper: str) -> None:
    inside = ENGINE.partition("\n")[2].replace("    ", "  " if wrapper else "")
    spec, message = warned(parse(wrapper + inside + "hpsearch: {pythonModule: t}\n"))
    assert "trainingInput: is missing" in message
    assert json.loads(spec.program.job)["hyperparameters"]["maxTrials"] == 4
    assert "hpsearch" not in json.loads(spec.program.job)


def test_numbers_that_json_cannot_hold_stay_texts() -> None:
    config = "masterConfig: {diskConfig: {bootDiskSizeGb: .inf}}"
    spec = good(engine("pythonModule: t", config, "scheduling: {priority: 1e999}"))
    job = json.loads(spec.program.job)
    assert job["masterConfig"] == {"diskConfig": {"bootDiskSizeGb": ".inf"}}
    assert job["scheduling"] == {"priority": "1e999"}
