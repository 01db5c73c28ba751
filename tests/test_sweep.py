"""Whole sweeps through the command line, judged by reading the store's and MLflow's databases directly."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from zygote import Driver, Zygote

pytestmark = [pytest.mark.timeout(180)]

ROOT = Path(__file__).parent.parent
STATUS = {"completed": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "infeasible": "FAILED"}

# While `hold` is in the studies' home, trials from the fifth on take a second for each measurement.
TRAINER = """
import os, signal, time
from hpsearch.train.learner import Measurement

def train(params, context):
    hold = context.directory.parents[2] / "hold"
    with open(context.directory / "ledger", "a") as ledger:
        ledger.write(f"{context.attempt}\\n")
    for step in range(context.measure_every, context.max_steps + 1, context.measure_every):
        time.sleep(params.get("pause", 0))
        until = time.monotonic() + 1
        while context.number > 3 and hold.exists() and time.monotonic() < until:
            time.sleep(0.01)
        if params.get("raises"):
            raise RuntimeError("this trainer never works")
        yield Measurement(step, {"loss": (params["x"] - 0.3) ** 2 + 1 / step, "extra": float(step)})
"""


def study_yaml(
    *, trials: int = 8, parallel: int = 2, args: str = "[]", module: str = "toy", own: str = ""
) -> str:
    return f"""\
trainingInput:
  pythonModule: {module}
  args: {args}
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: {trials}
    maxParallelTrials: {parallel}
    params:
      - {{parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}}
      - {{parameterName: layers, type: INTEGER, minValue: 1, maxValue: 4}}
      - {{parameterName: kind, type: CATEGORICAL, categoricalValues: ["a b", "c"]}}
hpsearch:
  maxSteps: 500
  measureEvery: 100
  {own}
"""


@pytest.fixture(autouse=True)
def embedded(tmp_path: Path, mlflow_database: Path, zygote: Zygote, request: pytest.FixtureRequest) -> None:
    """MLflow's embedded database is there already, but for tests that begin with nothing at all."""
    _zygote[:] = [zygote]
    if "from_nothing" in request.keywords:
        return
    for home in ("studies", "a", "b"):
        (tmp_path / home).mkdir()
        shutil.copy(mlflow_database, tmp_path / home)


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """A study's file beside its trainer."""

    def make(**settings: Any) -> Path:
        (tmp_path / "toy.py").write_text(TRAINER)
        path = tmp_path / "toy.yaml"
        path.write_text(study_yaml(**settings))
        return path

    return make


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "hpsearch", *map(str, words)]


_zygote: list[Zygote] = []  # of this run of tests


def hpsearch(
    *words: str | Path, cwd: Path, code: int = 0, cold: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as a real process; unless `cold`, one that has imported everything."""
    if cold:
        whole = [sys.executable, "-m", "hpsearch", *map(str, words)]
        done = subprocess.run(whole, cwd=cwd, capture_output=True, text=True, timeout=150, check=False)
    else:
        driver = _zygote[-1].start(*words, cwd=cwd, environment=os.environ)
        found = driver.wait(150)
        done = subprocess.CompletedProcess(list(words), found, driver.out, driver.err)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def rows(database: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def assert_mlflow_equals_store(home: Path, study: str, trials: int) -> None:
    """One parent, one child per trial, statuses and metric points equal to the store's, none twice."""
    store, tracking = home / study / "study.db", home / "mlflow.db"
    endings = dict(rows(store, "SELECT trial, state FROM ending"))
    assert len(endings) == trials
    tags = "SELECT run_uuid, value FROM tags WHERE key = ?"
    parents = dict(rows(tracking, tags, "mlflow.parentRunId"))
    [parent] = set(parents.values())
    numbers = {run: int(value) for run, value in rows(tracking, tags, "trial") if run in parents}
    assert sorted(numbers.values()) == sorted(endings), "one child per trial"
    statuses = dict(rows(tracking, "SELECT run_uuid, status FROM runs"))
    assert statuses[parent] in ("FINISHED", "FAILED")
    for run, number in numbers.items():
        assert statuses[run] == STATUS[endings[number]]
    stored = Counter(
        (trial, metric, step, as_mlflow_keeps_it(value), stamp)
        for trial, metric, step, value, stamp in rows(
            store, "SELECT trial, metric, step, value, time FROM measurement"
        )
    )
    shown = Counter(
        (numbers[run], *point)
        for run, *point in rows(
            tracking, "SELECT run_uuid, key, step, iif(is_nan, NULL, value), timestamp FROM metrics"
        )
        if run in numbers
    )
    assert stored == shown
    assert max(stored.values()) == 1
    assert len(stored) > trials


def as_mlflow_keeps_it(value: float | None) -> float | None:
    """Infinities are the largest numbers there; NaN is NULL in the store and a flag in MLflow."""
    return None if value is None else max(-1.7976931348623157e308, min(1.7976931348623157e308, value))


def wait_for_lines(process: subprocess.Popen[str], wanted: str, count: int) -> None:
    assert process.stdout
    for line in process.stdout:
        count -= wanted in line
        if count == 0:
            return
    raise AssertionError(f"the sweep ended before {wanted!r} was seen often enough")


def table(home: Path, study: str) -> list[tuple[Any, ...]]:
    """A study's outcome without times: params, states, and every measured value."""
    store = home / study / "study.db"
    return [
        *rows(store, "SELECT number, params FROM trial ORDER BY number"),
        *rows(store, "SELECT trial, state, reason FROM ending ORDER BY trial"),
        *rows(store, "SELECT trial, step, metric, value FROM measurement ORDER BY trial, step, metric"),
    ]


@pytest.mark.from_nothing
def test_a_sweep_is_the_same_in_the_store_in_mlflow_and_in_its_answers(tmp_path: Path) -> None:
    done = hpsearch("run", ROOT / "search_spaces/linear_regression.yaml", "--json", cwd=tmp_path, cold=True)
    shown = json.loads(done.stdout)
    assert done.stderr == ""
    home, trials = tmp_path / "studies", sum(shown["counts"].values())
    assert shown["state"] == "completed"
    assert shown["counts"]["running"] == 0
    assert_mlflow_equals_store(home, shown["study"], trials)
    best = json.loads(hpsearch("best", shown["study"], "--json", cwd=tmp_path).stdout)
    assert best["value"] < 2.0
    tracking = home / "mlflow.db"
    parent = shown["parent_run_id"]
    metrics = dict(rows(tracking, "SELECT key, value FROM latest_metrics WHERE run_uuid = ?", parent))
    params = dict(rows(tracking, "SELECT key, value FROM params WHERE run_uuid = ?", parent))
    assert metrics["rmse"] == best["value"]
    assert float(params["learning_rate"]) == best["trial"]["params"]["learning_rate"]
    artifacts = [p.name for p in (home / "mlartifacts").rglob("*") if p.is_file()]
    assert "linear_regression.yaml" in artifacts or "spec.yaml" in artifacts


@pytest.mark.fault("F01")
def test_a_killed_driver_and_a_resume_lose_and_double_nothing(
    tmp_path: Path, file: Callable[..., Path], fired: Callable[..., None]
) -> None:
    path, home = file(trials=8), tmp_path / "studies"
    (home / "hold").touch()
    driver = _zygote[-1].start("run", path, "--local", cwd=tmp_path)
    _endings(driver, 3)
    driver.kill()
    fired(driver.wait() == -signal.SIGKILL)
    (home / "hold").unlink()
    kept = rows(home / "toy-1/study.db", "SELECT trial, state, reason, time FROM ending")
    assert 3 <= len(kept) < 8, "the kill came too late to test anything"
    assert json.loads(hpsearch("show", "toy-1", "--json", cwd=tmp_path).stdout)["state"] == "interrupted"

    shown = json.loads(hpsearch("resume", "toy-1", "--local", "--json", cwd=tmp_path).stdout)
    assert shown["counts"]["completed"] == 8
    assert set(kept) <= set(rows(home / "toy-1/study.db", "SELECT trial, state, reason, time FROM ending"))
    assert_mlflow_equals_store(home, "toy-1", 8)
    for trial, *_ in kept:
        ledger = (home / f"toy-1/trials/{trial:04d}/ledger").read_text()
        assert ledger == "1\n", f"trial {trial} was completed, yet ran again"


@pytest.mark.parametrize("sampler", ["TPE", "CMA_ES"])
def test_interrupted_or_not_the_same_seed_gives_the_same_study(
    tmp_path: Path, file: Callable[..., Path], sampler: str
) -> None:
    own = f"sampler: {{type: {sampler}, seed: 7}}\n  pruner: {{type: ASHA, minSteps: 100}}"
    path = file(trials=14, parallel=1, own=own)
    hpsearch("run", path, "--local", "--study", "whole", "--home", "a", cwd=tmp_path)
    kill = {"HPSEARCH_TESTING": "1", "HPSEARCH_FAIL": "prune.decide:7:after=KILL"}
    words, codes = ("run", path, "--study", "cut"), [-signal.SIGKILL]
    while codes[-1] == -signal.SIGKILL:
        driver = _zygote[-1].start(*words, "--local", "--home", "b", cwd=tmp_path, environment=kill)
        words = ("resume", "cut")
        codes.append(driver.wait())
    assert codes[-1] == 0, driver.said()
    assert len(codes) > 4, "the study was not interrupted often enough to test anything"
    assert table(tmp_path / "a", "whole") == table(tmp_path / "b", "cut")


def _endings(driver: Driver, count: int) -> int:
    """How many trials have ended before the eyes of a driver: so many, or fewer if the driver ended first."""
    deadline = time.monotonic() + 120
    while True:
        over = not driver.alive
        lines = [line for line in driver.said().splitlines() if line.startswith("trial")]
        seen = sum("completed:" in line or "pruned at" in line for line in lines)
        if seen >= count or over:
            return seen
        assert time.monotonic() < deadline, driver.said()
        time.sleep(0.01)


def test_ctrl_c_stops_in_order_and_the_resume_finishes(
    tmp_path: Path, file: Callable[..., Path], fired: Callable[..., None]
) -> None:
    path, hold = file(trials=6), tmp_path / "studies" / "hold"
    hold.touch()
    with subprocess.Popen(
        command("run", path),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as driver:
        wait_for_lines(driver, "completed: loss", 1)
        sent = time.monotonic()
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: Ray and the trials get it too
        assert driver.stdout
        rest = driver.stdout.read()
        assert driver.stderr
        assert driver.stderr.read() == ""
    assert driver.returncode == 75
    assert time.monotonic() - sent < 25
    assert "hpsearch resume toy-1" in rest
    fired("SIGINT" in rest)
    hold.unlink()
    shown = json.loads(hpsearch("resume", "toy-1", "--local", "--json", cwd=tmp_path).stdout)
    assert shown["counts"]["completed"] == 6
    assert_mlflow_equals_store(tmp_path / "studies", "toy-1", 6)


@pytest.mark.fault("F06")
@pytest.mark.parametrize(("after", "more"), [("tracking", []), ("trial 0 completed", ["--local"])])
def test_a_sigterm_at_any_moment_means_75_and_a_parent_that_is_not_running(
    tmp_path: Path, file: Callable[..., Path], after: str, more: list[str], fired: Callable[..., None]
) -> None:
    path = file(trials=400, args="[--pause=0.05]")
    with subprocess.Popen(
        command("run", path, *more),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as driver:
        wait_for_lines(driver, after, 1)
        driver.send_signal(signal.SIGTERM)
        assert driver.stdout
        said = driver.stdout.read()
    assert driver.returncode == 75
    home = tmp_path / "studies"
    if "MLflow lags" in said:  # a machine so slow that it was not told all in the time there is
        hpsearch("sync", "toy-1", cwd=tmp_path)
    endings = rows(home / "toy-1/study.db", "SELECT outcome, reason FROM study_ending ORDER BY epoch")
    assert len(set(endings)) == 1, "a sync ends as the driver did"
    outcome, reason = endings[0]
    assert outcome == "interrupted"
    assert "SIGTERM" in reason or "interrupted while Ray was starting" in reason
    fired(reason)
    parents = "SELECT status FROM runs WHERE run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = ?)"
    assert rows(home / "mlflow.db", parents, "mlflow.parentRunId") == [("KILLED",)]
    assert rows(home / "mlflow.db", "SELECT name FROM runs WHERE status = 'RUNNING'") == []


def test_an_edited_file_does_not_go_on_with_the_old_study_in_silence(
    tmp_path: Path, file: Callable[..., Path]
) -> None:
    words = ("run", file(trials=2), "--local", "--study", "nightly", "--resume", "auto")
    hpsearch(*words, cwd=tmp_path)
    file(trials=2, args="[--pause=0.1]")
    refused = hpsearch(*words, cwd=tmp_path, code=2)
    assert "asks for something else than study 'nightly' was started with" in refused.stderr
    assert "args was [], here it is [--pause=0.1]" in refused.stderr


def test_of_an_ended_study_the_best_trials_checkpoint_stays_at_the_step_that_counts(tmp_path: Path) -> None:
    text = (ROOT / "search_spaces/auto_mpg.yaml").read_text().replace("maxTrials: 40", "maxTrials: 2")
    (tmp_path / "short.yaml").write_text(text)
    hpsearch("run", "short.yaml", "--local", "--study", "s", cwd=tmp_path)
    home = tmp_path / "studies/s"
    kept = {p.relative_to(home / "trials").as_posix() for p in home.glob("trials/*/checkpoints/*.pt")}
    known = rows(home / "study.db", "SELECT trial, name FROM checkpoint ORDER BY lsn")
    best = json.loads(hpsearch("best", "s", "--json", cwd=tmp_path).stdout)
    number, step = best["trial"]["number"], best["step"]
    assert kept == {f"{number:04d}/checkpoints/step-{step:08d}-attempt-1.pt"}
    assert (number, f"checkpoints/step-{step:08d}-attempt-1.pt") in known
    assert {trial for trial, _ in known} == {0, 1}


@pytest.mark.fault("F12")
def test_a_second_driver_is_told_who_has_the_study(
    tmp_path: Path, file: Callable[..., Path], fired: Callable[..., None]
) -> None:
    path = file(trials=400, parallel=1, args="[--pause=0.3]")
    with subprocess.Popen(
        command("run", path, "--local", "--study", "mine"), cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as driver:
        wait_for_lines(driver, "trial 0 started", 1)
        refused = hpsearch("resume", "mine", cwd=tmp_path, code=73)
        assert f"process {driver.pid}" in refused.stderr
        fired(refused.returncode == 73)
        assert json.loads(hpsearch("show", "mine", "--json", cwd=tmp_path).stdout)["state"] == "running"
        driver.send_signal(signal.SIGKILL)


def test_resume_auto_goes_on_and_never_is_the_default(tmp_path: Path, file: Callable[..., Path]) -> None:
    path = file(trials=2)
    words = ("run", path, "--local", "--study", "nightly")
    hpsearch(*words, "--resume", "must", cwd=tmp_path, code=2)
    hpsearch(*words, "--resume", "auto", cwd=tmp_path)
    refused = hpsearch(*words, cwd=tmp_path, code=2)
    assert "exists" in refused.stderr
    assert "resume" in refused.stderr
    again = json.loads(hpsearch(*words, "--resume", "auto", "--json", cwd=tmp_path).stdout)
    assert again["counts"]["completed"] == 2


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ({"module": "no.such.module"}, 2, "'no.such.module' cannot be found"),
        ({"trials": 0}, 2, "maxTrials"),
        ({"trials": -3}, 2, "-3"),
        ({"own": "sampler: {type: TPEE}"}, 2, "TPE"),
        ({"own": "resources: {cpu: 4096}"}, 2, "4096 CPU"),
    ],
)
def test_bad_input_gets_one_clear_answer_and_the_right_exit_code(
    tmp_path: Path, file: Callable[..., Path], settings: dict[str, Any], code: int, said: str
) -> None:
    done = hpsearch("run", file(**settings), cwd=tmp_path, code=code)
    assert said in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_trainer_that_never_works_ends_the_study_with_3(tmp_path: Path, file: Callable[..., Path]) -> None:
    done = hpsearch("run", file(trials=20, args="[--raises=1]"), "--local", cwd=tmp_path, code=3)
    assert "RuntimeError: this trainer never works" in done.stdout
    assert len(rows(tmp_path / "studies/toy-1/study.db", "SELECT * FROM ending")) == 3
    assert_statuses = dict(
        rows(tmp_path / "studies/mlflow.db", "SELECT status, count(*) FROM runs GROUP BY 1")
    )
    assert assert_statuses == {"FAILED": 4}


def test_an_unwritable_home_is_named_and_exits_2(tmp_path: Path, file: Callable[..., Path]) -> None:
    path = file()
    (tmp_path / "blocked").write_text("")
    done = hpsearch("run", path, "--home", "blocked", cwd=tmp_path, code=2)
    assert "blocked" in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_an_unreachable_cluster_exits_69(tmp_path: Path, file: Callable[..., Path]) -> None:
    done = hpsearch("run", file(), "--address", "127.0.0.1:1", cwd=tmp_path, code=69)
    assert "127.0.0.1:1" in done.stderr
    assert os.linesep.join(done.stderr.splitlines()[:1]).startswith("error: ")


def test_mlflow_out_of_reach_costs_no_trial(tmp_path: Path, file: Callable[..., Path]) -> None:
    words = ("run", file(trials=3), "--local", "--tracking-uri", "http://127.0.0.1:1")
    done = hpsearch(*words, cwd=tmp_path)
    assert "3 of 3 trials completed" in done.stdout
    assert "127.0.0.1:1" in done.stdout + done.stderr
