"""Files of the services and programs written for them, as they are, through the command line."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from zygote import Zygote

pytestmark = [pytest.mark.timeout(180)]

# As people wrote them: a new HyperTune() per epoch, the trial's number from TF_CONFIG, a strict parser.
PROGRAM = """
import argparse, json, os, sys
import hypertune

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--train-files", nargs="+", required=True)
    parser.add_argument("--job-dir", required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--hidden-units", type=int)
    parser.add_argument("--optimizer", choices=["adam", "plain sgd"])
    args = parser.parse_args()
    trial = json.loads(os.environ["TF_CONFIG"])["task"]["trial"]
    assert not [entry for entry in sys.path if "thirdparty_files" in entry]
    assert args.job_dir.endswith("/" + trial) and trial == os.environ["CLOUD_ML_TRIAL_ID"]
    assert args.train_files == ["a.csv", "b.csv"]
    for epoch in range(1, 21):
        loss = (args.learning_rate - 0.03) ** 2 + args.hidden_units / 1000 + 1 / epoch
        hypertune.HyperTune().report_hyperparameter_tuning_metric("train_loss", loss * 0.9, epoch)
        hypertune.HyperTune().report_hyperparameter_tuning_metric("val loss", loss, epoch)
    os.makedirs(args.job_dir)
    with open(os.path.join(args.job_dir, "model.txt"), "w") as file:
        file.write(args.optimizer)

if __name__ == "__main__":
    main()
"""

CLOUD_ML_ENGINE = """\
trainingInput:
  scaleTier: CUSTOM
  masterType: complex_model_m_p100
  pythonModule: trainer.task
  args: ["--train-files", "a.csv", "b.csv"]
  jobDir: {job_dir}
  region: us-central1
  runtimeVersion: 1.14
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: val loss
    maxTrials: 4
    maxParallelTrials: 1
    params:
      - parameterName: learning-rate
        type: DOUBLE
        minValue: 1e-4
        maxValue: .1
        scaleType: UNIT_LOG_SCALE
      - {{parameterName: hidden-units, type: DISCRETE, discreteValues: [16, 32, 64]}}
      - {{parameterName: optimizer, type: CATEGORICAL, categoricalValues: ["adam", "plain sgd"]}}
"""


@pytest.fixture(autouse=True)
def embedded(tmp_path: Path, mlflow_database: Path, zygote: Zygote) -> None:
    """MLflow's embedded database is there already."""
    _zygote[:] = [zygote]
    (tmp_path / "studies").mkdir(mode=0o700)
    shutil.copy(mlflow_database, tmp_path / "studies")


_zygote: list[Zygote] = []  # of this run of tests


def hpsearch(
    *words: str | Path, cwd: Path, code: int = 0, umask: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as a real process that has imported everything."""
    driver = _zygote[-1].start(*words, cwd=cwd, environment=os.environ, umask=umask)
    found = driver.wait(150)
    done = subprocess.CompletedProcess(list(words), found, driver.out, driver.err)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def answer(*words: str | Path, cwd: Path, code: int = 0) -> Any:
    return json.loads(hpsearch(*words, "--json", cwd=cwd, code=code).stdout)


def points(database: Path, query: str) -> Counter[tuple[Any, ...]]:
    connection = sqlite3.connect(database)
    try:
        return Counter(connection.execute(query).fetchall())
    finally:
        connection.close()


def trainer(directory: Path, text: str) -> None:
    (directory / "trainer").mkdir()
    (directory / "trainer/__init__.py").touch()
    (directory / "trainer/task.py").write_text(text)


def test_an_unmodified_program_is_tuned_by_an_unmodified_file_on_ray(tmp_path: Path) -> None:
    trainer(tmp_path, PROGRAM)
    file = tmp_path / "hptuning_config.yaml"
    file.write_text(CLOUD_ML_ENGINE.format(job_dir=tmp_path / "jobs"))
    done = hpsearch("run", file, "--study", "census", cwd=tmp_path, umask=0o002)
    assert "the file's machine has 4 GPUs, the best one here 0" in done.stderr

    trials = answer("trials", "census", cwd=tmp_path)["trials"]
    assert [trial["state"] for trial in trials] == ["completed"] * 4
    for trial in trials:
        assert trial["step"] == 20
        loss = (
            (trial["params"]["learning-rate"] - 0.03) ** 2 + trial["params"]["hidden-units"] / 1000 + 1 / 20
        )
        assert trial["objective"] == pytest.approx(loss)
        number = trial["number"]
        model = tmp_path / f"jobs/{number + 1}/model.txt"
        assert model.read_text() == trial["params"]["optimizer"]
        assert stat.S_IMODE(model.stat().st_mode) == 0o664, "as its user writes files, whatever hpsearch does"

    # Every point once, in the store and in MLflow, although each epoch's object forgets those before.
    stored = points(
        tmp_path / "studies/census/study.db", "SELECT trial, metric, step, value FROM measurement"
    )
    assert len(stored) == 4 * 2 * 20
    assert set(stored.values()) == {1}
    shown = points(
        tmp_path / "studies/mlflow.db",
        "SELECT t.value, m.key, m.step, m.value FROM metrics m JOIN tags t ON t.run_uuid = m.run_uuid"
        " WHERE t.key = 'trial'",
    )
    assert shown == Counter({(str(n), metric, step, value): 1 for n, metric, step, value in stored})

    job = json.loads(hpsearch("show", "census", "--format", "cloudml", cwd=tmp_path).stdout)
    best = answer("best", "census", cwd=tmp_path)
    first = job["trainingOutput"]["trials"][0]
    assert (job["state"], job["trainingOutput"]["completedTrialCount"]) == ("SUCCEEDED", "4")
    assert first["trialId"] == str(best["trial"]["number"] + 1)
    assert first["finalMetric"] == {"trainingStep": "20", "objectiveValue": best["value"]}
    assert first["hyperparameters"]["hidden-units"] == str(best["trial"]["params"]["hidden-units"])
    assert float(first["hyperparameters"]["learning-rate"]) == best["trial"]["params"]["learning-rate"]


def test_a_study_goes_on_from_the_job_that_its_file_names(tmp_path: Path) -> None:
    trainer(tmp_path, PROGRAM)
    file = tmp_path / "config.yaml"
    text = CLOUD_ML_ENGINE.format(job_dir=tmp_path / "jobs")
    file.write_text(text)
    hpsearch("run", file, "--study", "first", "--local", cwd=tmp_path)
    goes_on = text.replace("    maxTrials: 4", "    maxTrials: 2\n    resumePreviousJobId: first")
    file.write_text(goes_on)
    told = hpsearch("run", file, "--study", "second", "--local", cwd=tmp_path)
    assert "goes on from first: 4 trials known" in told.stdout
    numbers = [trial["number"] for trial in answer("trials", "second", cwd=tmp_path)["trials"]]
    assert numbers == [4, 5]
    assert (tmp_path / "jobs/5/model.txt").is_file()

    file.write_text(goes_on.replace("[16, 32, 64]", "[16, 32]"))
    refused = hpsearch("run", file, "--study", "third", "--local", cwd=tmp_path, code=2).stderr
    scale = "on a linear scale"
    said = f"hidden-units was DISCRETE [16, 32, 64] {scale}, here it is DISCRETE [16, 32] {scale}"
    assert said in refused
    assert not (tmp_path / "studies/third").exists()
    file.write_text(goes_on.replace("resumePreviousJobId: first", "resumePreviousJobId: frist"))
    refused = hpsearch("run", file, "--study", "third", "--local", cwd=tmp_path, code=2).stderr
    assert "resumePreviousJobId 'frist' names no study" in refused


VERTEX = """\
displayName: trade-off
maxTrialCount: 8
parallelTrialCount: 2
studySpec:
  metrics:
    - {metricId: loss, goal: MINIMIZE}
    - {metricId: size, goal: MINIMIZE}
  parameters:
    - parameterId: optimizer
      categoricalValueSpec: {values: [adam, sgd]}
      conditionalParameterSpecs:
        - parentCategoricalValues: {values: [sgd]}
          parameterSpec: {parameterId: momentum, discreteValueSpec: {values: [0, 0.9]}}
    - {parameterId: units, integerValueSpec: {minValue: "1", maxValue: "8"}}
trialJobSpec:
  workerPoolSpecs:
    - machineSpec: {machineType: n1-standard-4}
      replicaCount: 1
      containerSpec:
        imageUri: gcr.io/somewhere/image
        command: [python3, train.py]
        args: [--verbose]
        env: [{name: GREETING, value: hello}]
"""

SCRIPT = """
import os, sys
from hypertune import HyperTune

assert os.environ["GREETING"] == "hello" and sys.argv[1] == "--verbose"
given = dict(word.removeprefix("--").split("=") for word in sys.argv[2:])
assert ("momentum" in given) == (given["optimizer"] == "sgd")
units = int(given["units"])
tune = HyperTune()
tune.report_hyperparameter_tuning_metric("size", units)
tune.report_hyperparameter_tuning_metric("loss", 1 / units - float(given.get("momentum", 0)) / 100)
"""


def test_a_vertex_file_with_conditions_and_two_metrics_ends_with_a_front(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    file = tmp_path / "job.yaml"
    file.write_text(VERTEX)
    hpsearch("run", file, "--study", "v", "--local", cwd=tmp_path)
    trials = answer("trials", "v", cwd=tmp_path)["trials"]
    assert {trial["state"] for trial in trials} == {"completed"}, trials
    assert {trial["params"]["optimizer"] for trial in trials} == {"adam", "sgd"}
    assert all(("momentum" in t["params"]) == (t["params"]["optimizer"] == "sgd") for t in trials)
    best = answer("best", "v", cwd=tmp_path)
    values = {t["number"]: (t["objectives"]["loss"], t["objectives"]["size"]) for t in trials}
    front = [
        number
        for number, mine in values.items()
        if not any(a <= mine[0] and b <= mine[1] and (a, b) != mine for a, b in values.values())
    ]
    assert [trial["number"] for trial in best["front"]] == front
    job = json.loads(hpsearch("show", "v", "--format", "vertex", cwd=tmp_path).stdout)
    assert (job["displayName"], job["state"]) == ("v", "JOB_STATE_SUCCEEDED")
    assert [trial["id"] for trial in job["trials"]] == [str(number) for number in range(1, 9)]
    [units] = [p["value"] for p in job["trials"][0]["parameters"] if p["parameterId"] == "units"]
    assert units == trials[0]["params"]["units"]


def test_a_program_that_never_reports_the_tag_ends_the_study_and_says_what_it_reported(
    tmp_path: Path,
) -> None:
    trainer(tmp_path, PROGRAM)
    file = tmp_path / "config.yaml"
    text = CLOUD_ML_ENGINE.format(job_dir=tmp_path / "jobs")
    file.write_text(text.replace("Tag: val loss", "Tag: val_loss"))
    failed = hpsearch("run", file, "--study", "s", "--local", cwd=tmp_path, code=3)
    assert (
        "metric tag val_loss never reported; tags seen: train_loss, val loss" in failed.stdout + failed.stderr
    )
    assert len(answer("trials", "s", cwd=tmp_path)["trials"]) == 1


def test_strict_makes_warnings_errors(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "trainingInput:\n  hyperparameters:\n    goal: minimize\n    max_trials: 2\n    unknwon: 1\n"
    )
    problems = answer("check", file, "--strict", cwd=tmp_path, code=2)["errors"]
    assert {problem["line"] for problem in problems} >= {3, 4, 5}
    hpsearch("run", file, "--strict", cwd=tmp_path, code=2)
    assert [path.name for path in (tmp_path / "studies").iterdir()] == ["mlflow.db"]


def test_the_schema_is_printed(tmp_path: Path) -> None:
    for dialect in ("cloud_ml_engine", "vertex_ai", "hpsearch"):
        schema = json.loads(hpsearch("schema", dialect, cwd=tmp_path).stdout)
        assert schema["$schema"].endswith("2020-12/schema")
    assert "trainingInput" in hpsearch("schema", cwd=tmp_path).stdout


def test_a_run_tells_what_it_doubts_in_the_file(tmp_path: Path) -> None:
    trainer(tmp_path, PROGRAM)
    file = tmp_path / "config.yaml"
    text = CLOUD_ML_ENGINE.format(job_dir=tmp_path / "jobs").replace("maxTrials: 4", "max_trials: 1")
    file.write_text(text)
    told = hpsearch("run", file, "--study", "s", "--local", "--json", cwd=tmp_path)
    assert json.loads(told.stdout)["counts"]["completed"] == 1
    assert f"{file}:12:5: warning:" in told.stderr
    assert "write maxTrials" in told.stderr
