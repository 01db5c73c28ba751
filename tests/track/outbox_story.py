"""Lives of an outbox told one after another, and what MLflow must hold after them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import outbox_life
import pytest
from mlflow_facts import Tracking

from hpsearch.study.home import Home

Live = Callable[[Path, str], int]


@pytest.fixture(scope="session")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Starts a life of an outbox with a fault, and says how it ended."""
    words = [sys.executable, "-W", "ignore", outbox_life.__file__]
    errors = (tmp_path_factory.mktemp("lives") / "errors").open("w+")
    with (
        errors,
        subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdin and process.stdout

        def live(home: Path, fault: str) -> int:
            assert process.stdin and process.stdout
            process.stdin.write(json.dumps({"home": str(home), "fault": fault}) + "\n")
            process.stdin.flush()
            code = process.stdout.readline()
            errors.seek(0)
            assert code.strip() in ("0", "-9"), errors.read()
            return int(code)

        yield live
        process.stdin.close()
        process.wait(30)


@pytest.fixture
def told_home(tmp_path: Path, template: Path) -> Path:
    shutil.copy(template, tmp_path / "mlflow.db")
    outbox_life.create(tmp_path)
    return tmp_path


def assert_everything_once(home: Path) -> None:
    tracking, history = Tracking(home / "mlflow.db"), Home(home).history(outbox_life.NAME)
    assert len(history.trials) == outbox_life.TRIALS
    assert tracking.run(tracking.parents()[0])[0] == "FINISHED"
    runs = tracking.run_ids()
    assert sorted(runs) == [trial.uid for trial in history.trials]
    for trial in history.trials:
        run_id = runs[trial.uid]
        assert tracking.run(run_id)[0] == "FINISHED"
        assert tracking.points(run_id) == [
            ("loss", m.step, m.metrics["loss"], m.time) for m in trial.measurements
        ]
    assert tracking.rows("select count(*) from runs") == [(outbox_life.TRIALS + 1,)]
    assert outbox_life.committed(history) == len(outbox_life.entries())
    reader = Home(home).reader(outbox_life.NAME)
    assert not reader.changes(history.offset, 1), "something was not told"
    reader.close()
