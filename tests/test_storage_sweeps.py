"""Sweeps whose trials keep their files elsewhere: on a shared path, or in a bucket of a real service."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_sweep import rows, table
from zygote import Driver, Zygote

from hpsearch.study.storage import Bucket

pytestmark = [pytest.mark.timeout(240)]

# Long enough to be killed within, and with checkpoints that matter.
LEARNER = """\
trainingInput:
  pythonModule: slow_learner
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: rmse
    maxTrials: 3
    maxParallelTrials: 1
    params:
      - {parameterName: learning_rate, type: DOUBLE, minValue: 0.001, maxValue: 0.01}
hpsearch:
  maxSteps: 60
  measureEvery: 10
  sampler: {type: RANDOM, seed: 3}
"""
SLOW = """\
import os, time
from hpsearch.train import loop
from hpsearch.trainers import linear_regression

loop.CHECKPOINT_SHARE = 1e9


def build(params, context):
    learner = linear_regression.build({"batch_size": 6, **params}, context)
    evaluate = learner.evaluate

    def slow():
        time.sleep(float(os.environ.get("PAUSE", "0")))
        print("measured")
        return evaluate()

    learner.evaluate = slow
    return learner
"""


@pytest.fixture
def file(tmp_path: Path, mlflow_database: Path) -> Path:
    for home in ("a", "b"):
        (tmp_path / home).mkdir()
        shutil.copy(mlflow_database, tmp_path / home)
    (tmp_path / "slow_learner.py").write_text(SLOW)
    (tmp_path / "sweep.yaml").write_text(LEARNER)
    return tmp_path / "sweep.yaml"


@pytest.fixture
def hpsearch(tmp_path: Path, zygote: Zygote) -> Callable[..., Driver]:
    """Run a command to its end."""

    def run(*words: str | Path, code: int = 0) -> Driver:
        return zygote.run(*words, cwd=tmp_path, code=code, environment=os.environ)

    return run


@pytest.fixture(params=["path", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Callable[[str], set[str]]]:
    """Where files are kept, and how to look which there are."""
    if request.param == "bucket":
        url: str = request.getfixturevalue("bucket")
        return url, lambda folder: Bucket(folder).keys()
    return str(tmp_path / "shared"), lambda folder: {
        path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()
    }


def test_a_killed_driver_goes_on_from_checkpoints_that_lie_elsewhere(
    tmp_path: Path,
    file: Path,
    place: tuple[str, Callable[[str], set[str]]],
    zygote: Zygote,
    hpsearch: Callable[..., Driver],
) -> None:
    storage, files = place
    hpsearch("run", file, "--local", "--study", "s", "--home", "a")
    words = ("run", file, "--local", "--study", "s", "--home", "b", "--resume", "auto", "--storage", storage)
    driver = zygote.start(*words, cwd=tmp_path, environment={**os.environ, "PAUSE": "0.2"})
    _wait(lambda: _count(tmp_path / "b/s/study.db") >= 8, driver)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    shown = json.loads(hpsearch(*words, "--json").out)
    assert shown["counts"]["completed"] == 3
    assert table(tmp_path / "a", "s") == table(tmp_path / "b", "s")
    resumed = rows(tmp_path / "b/s/study.db", "SELECT resumed_from FROM attempt WHERE number = 2")
    assert [step for (step,) in resumed if step], "no trial went on from a checkpoint"
    folder = shown["storage"]
    assert folder.startswith(f"{storage}/s-")
    kept = {name for name in files(folder) if "/checkpoints/" in name}
    best = shown["best"]["number"]
    assert len(kept) == 1, "the best trial's checkpoint stays, and it alone"
    assert kept.pop().startswith(f"trials/{best:04d}/checkpoints/step-00000060-")
    if "://" not in storage:
        assert not (tmp_path / "b/s/trials").exists()


def test_a_study_stays_where_it_began(file: Path, bucket: str, hpsearch: Callable[..., Driver]) -> None:
    hpsearch("run", file, "--local", "--study", "s", "--home", "b")
    ended = hpsearch("resume", "s", "--local", "--home", "b")
    again = hpsearch(
        *("run", file, "--local", "--study", "s", "--home", "b", "--resume", "must", "--storage", bucket)
    )
    assert "storage" not in ended.out
    assert "keeps the files of its trials in" in again.err
    assert "is for new studies" in again.err
    assert Bucket(bucket).keys() == set()


def test_storage_that_cannot_be_reached_ends_with_its_reason_and_no_study(
    tmp_path: Path, file: Path, bucket: str, hpsearch: Callable[..., Driver]
) -> None:
    refused = hpsearch(
        *("run", file, "--local", "--study", "s", "--home", "b"),
        *("--storage", "s3://never-made/x"),
        code=2,
    )
    assert "trials cannot keep their files in s3://never-made/x/s-" in refused.err
    assert "not found" in refused.err
    assert not (tmp_path / "b/s").exists()


def test_on_ray_workers_keep_the_files_in_the_bucket(
    tmp_path: Path, file: Path, bucket: str, hpsearch: Callable[..., Driver]
) -> None:
    shown = json.loads(
        hpsearch("run", file, "--study", "s", "--home", "b", "--storage", bucket, "--json").out
    )
    assert shown["counts"]["completed"] == 3
    kept = Bucket(shown["storage"]).keys()
    for number in range(3):
        log = Bucket(shown["storage"]).read(f"trials/{number:04d}/attempt-1/output.log")
        assert log.count(b"measured") == 6
    assert len([name for name in kept if "/checkpoints/" in name]) == 1
    assert not (tmp_path / "b/s/trials").exists()


def _count(store: Path) -> int:
    try:
        return int(rows(store, "SELECT COUNT(*) FROM checkpoint")[0][0])
    except Exception:  # it is not there yet, or being made
        return 0


def _wait(met: Callable[[], bool], driver: Any) -> None:
    deadline = time.monotonic() + 120
    while not met():
        assert driver.alive, driver.said()
        assert time.monotonic() < deadline, driver.said()
        time.sleep(0.02)


def test_a_bucket_is_no_home(file: Path, hpsearch: Callable[..., Driver]) -> None:
    refused = hpsearch("run", file, "--local", "--home", "s3://bucket/studies", code=2)
    assert "is a URL, and studies lie in directories" in refused.err
    assert "--storage" in refused.err
