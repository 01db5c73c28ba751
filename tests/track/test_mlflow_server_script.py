"""`scripts/mlflow-server` over PostgreSQL: told of a sweep, deaf to strangers, gone when it should be."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
from pathlib import Path

import pytest
from mlflow_facts import wait_for
from ports import free_port
from postgres_server import Server
from zygote import Zygote

SCRIPT = Path(__file__).parents[2] / "scripts" / "mlflow-server"
STUDY = """\
trainingInput:
  pythonModule: toy
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 3
    params:
      - {parameterName: x, type: DOUBLE, minValue: 0, maxValue: 1}
hpsearch: {maxSteps: 20, measureEvery: 10}
"""
TRAINER = """\
from hpsearch.train.learner import Measurement

def train(params, context):
    for step in (10, 20):
        yield Measurement(step, {"loss": params["x"] + 1 / step})
"""


def answer(port: int, path: str, host: str) -> int:
    """The status with which a server answers a browser that believes it to be `host`; 0: nobody answers."""
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        asked.request("GET", path, headers={"Host": host})
        return asked.getresponse().status
    except OSError:
        return 0
    finally:
        asked.close()


def family(pid: int) -> list[int]:
    """A process and all that come from it."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [pid, *(each for child in children.stdout.split() for each in family(int(child)))]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_sweep_is_told_to_a_server_over_postgresql_that_answers_this_machine_alone(
    tmp_path: Path, postgres: Server, zygote: Zygote
) -> None:
    url = postgres.make_database()
    port = free_port()
    settings = os.environ | {"MLFLOW_BACKEND_STORE_URI": url.replace("postgresql:", "postgresql+psycopg:")}
    words = [str(SCRIPT), "--port", str(port), "--home", str(tmp_path / "mlflow")]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(words, env=settings, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: server.poll() is None and answer(port, "/health", f"localhost:{port}") == 200, 200)
        search = "/api/2.0/mlflow/experiments/search?max_results=5"
        assert answer(port, search, f"127.0.0.1:{port}") == 200
        assert answer(port, search, "elsewhere.example") == 403
        for pid in family(server.pid):
            assert postgres.password not in Path(f"/proc/{pid}/cmdline").read_text()

        (tmp_path / "toy.yaml").write_text(STUDY)
        (tmp_path / "toy.py").write_text(TRAINER)
        uri = f"http://127.0.0.1:{port}"
        driver = zygote.start(
            "run", "toy.yaml", "--local", "--tracking-uri", uri, cwd=tmp_path, environment=os.environ
        )
        assert driver.wait(100) == 0, driver.said()
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(30)
    assert code == 0
    assert (tmp_path / "mlflow").stat().st_mode & 0o777 == 0o700
    name = url.rpartition("/")[2]
    assert postgres.run(name, "SELECT status, count(*) FROM runs GROUP BY 1") == [("FINISHED", 4)]
    points = """SELECT count(*) FROM metrics JOIN tags USING (run_uuid)
        WHERE metrics.key = 'loss' AND tags.key = 'mlflow.parentRunId'"""
    assert postgres.run(name, points) == [(6,)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--port", "80x"], "--port is '80x', a port is a number from 1 to 65535"),
        (["--port", "70000"], "--port is '70000'"),
        (["--home"], "--home needs a value"),
        (["--host", "0.0.0.0"], "unknown argument '--host'"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_starts(given: list[str], said: str, tmp_path: Path) -> None:
    done = subprocess.run([str(SCRIPT), *given], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []
