"""A whole sweep through the command line with its store on PostgreSQL: killed, resumed, asked about."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_postgres_leases import is_stopped
from typer.testing import CliRunner

from hpsearch.cli import app

Fired = Callable[..., None]
TRAINER = """
from hpsearch.train.learner import Measurement

def train(params, context):
    with open(context.directory / "ledger", "a") as ledger:
        ledger.write(f"{context.attempt}\\n")
    for step in range(context.measure_every, context.max_steps + 1, context.measure_every):
        yield Measurement(step, {"loss": (params["x"] - 0.3) ** 2 + 1 / step})
"""
YAML = """\
trainingInput:
  pythonModule: toy
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 5
    params:
      - {parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}
hpsearch: {maxSteps: 300, measureEvery: 100}
"""


@pytest.mark.timeout(240)
@pytest.mark.fault("F01", "F12")
def test_a_sweep_on_postgresql_is_killed_refused_to_a_rival_resumed_and_asked_about(
    postgres: Any, tmp_path: Path, mlflow_database: Path, fired: Fired
) -> None:
    home, fault = tmp_path / "studies", "store.commit:15:after"
    home.mkdir()
    shutil.copy(mlflow_database, home)
    (tmp_path / "toy.py").write_text(TRAINER)
    (tmp_path / "toy.yaml").write_text(YAML)
    address = postgres.make_database()
    # However long a rival takes to start, it finds the study owned.
    failing = {
        "HPSEARCH_LEASE": "600",
        "HPSEARCH_TESTING": "1",
        "HPSEARCH_FAIL_FIRED": str(tmp_path / "fired"),
    }
    said: list[str] = []

    def started(*words: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "hpsearch", *words, "--home", "studies"]
        known = {**os.environ, "HPSEARCH_STORE": address, **environment}
        return subprocess.Popen(
            command, cwd=tmp_path, env=known, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def hpsearch(*words: str, code: int = 0) -> str:
        process = started(*words)
        out, err = process.communicate(timeout=300)
        said.extend((out, err))
        assert process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
        return out

    def answered(*words: str) -> str:
        done = CliRunner().invoke(app, [*words, "--home", str(home)], env={"HPSEARCH_STORE": address})
        said.append(done.output)
        assert done.exit_code == 0, done.output
        return done.stdout

    # The first stops itself after a commit, which is when a rival comes; then it is killed.
    first = started("run", "toy.yaml", "--local", HPSEARCH_FAIL=f"{fault}=STOP", **failing)
    try:
        while not is_stopped(first.pid):
            assert first.poll() is None, first.communicate()
            time.sleep(0.02)
        hpsearch("resume", "toy-1", "--local", code=73)
        assert f"process {first.pid} on " in said[-1]
        fired(f"{fault}=STOP" in (tmp_path / "fired").read_text(), "F12")
    finally:
        first.kill()
        said.extend(first.communicate())
    fired(first.returncode == -9, "F01")
    kept = postgres.run(address.rpartition("/")[2], "SELECT trial, state, time FROM ending ORDER BY trial")
    [(begun,)] = postgres.run(address.rpartition("/")[2], "SELECT count(*) FROM trial")
    assert 0 < len(kept) <= begun <= len(kept) + 1 < 6

    done = json.loads(hpsearch("resume", "toy-1", "--local", "--json"))
    assert (done["study"], done["state"], done["counts"]["completed"]) == ("toy-1", "completed", 5)
    after = postgres.run(address.rpartition("/")[2], "SELECT trial, state, time FROM ending ORDER BY trial")
    assert after[: len(kept)] == kept
    trials = json.loads(answered("trials", "toy-1", "--json"))["trials"]
    assert [trial["number"] for trial in trials] == list(range(5))
    assert sum(trial["attempts"] for trial in trials) == 5 + begun - len(kept)
    for trial in trials:
        ledger = (home / "toy-1" / "trials" / f"{trial['number']:04d}" / "ledger").read_text()
        assert len(ledger.splitlines()) == trial["attempts"]
    best = json.loads(answered("best", "toy-1", "--json"))
    assert best["value"] == min(trial["objective"] for trial in trials)
    listed = json.loads(answered("list", "--json"))["studies"]
    assert [(each["study"], each["state"]) for each in listed] == [("toy-1", "completed")]
    assert "toy-1" in answered("show", "toy-1", "--store", address)
    assert not list(home.rglob("study.db"))
    everything = "".join(said).encode() + b"".join(
        path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    )
    assert postgres.password.encode() not in everything
