"""Ticks as real drivers: a study each, the tags of their runs, what is told of them, and how they go on."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from zygote import Driver, Zygote

from hpsearch.cli import ticks
from hpsearch.errors import UsageError
from hpsearch.ship import earlier
from hpsearch.ship.status_file import is_dead, read
from hpsearch.ship.tick import given_tags, schedule_name, tick, time_zone
from hpsearch.study.home import Home

sys.path.insert(0, str(Path(__file__).parent))
from test_cron import moment
from test_webhook import Receiver

pytestmark = pytest.mark.timeout(110)

# Trials of one params and different seeds differ a little; `offset` moves a night's results.
TRAINER = """
import os, time
from pathlib import Path
from hpsearch.train.learner import Measurement

def train(params, context):
    here = Path(context.directory).parents[3]
    offset = float((here / "offset").read_text())
    for step in range(1, 31):
        if context.number == 1 and (here / "wait").exists():
            time.sleep(1.5)
        yield Measurement(step, {"loss": params["x"] + offset + context.seed % 100 / 1e5})
"""
YAML = """\
trainingInput:
  pythonModule: toy
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: loss
    maxTrials: 4
    params:
      - {parameterName: x, type: DISCRETE, discreteValues: [1, 2]}
      - {parameterName: seed, type: DISCRETE, discreteValues: [0, 1]}
hpsearch: {maxSteps: 30, measureEvery: 1, sampler: {type: RANDOM}}
"""


SWIFT = {"hpsearch.ship.status_file:RENEWAL": 0.1, "hpsearch.cli.ticks:COUNTING": 0.1}


class Night:
    """A directory with a sweep, and its ticks."""

    def __init__(self, place: Path, zygote: Zygote) -> None:
        self.place, self.zygote = place, zygote
        self.home = place / "studies"
        self.status = place / "tick.json"

    def words(self, time: str, *more: str) -> list[str]:
        tick = ["--schedule", "nightly", "--scheduled-time", time, "--resume", "auto"]
        return ["run", "toy.yaml", "--local", *tick, "--status-file", str(self.status), *more]

    def run(self, time: str, *more: str, code: int = 0, **env: str) -> Driver:
        return self.zygote.run(*self.words(time, *more), cwd=self.place, code=code, environment=env)

    def start(self, time: str, *more: str) -> Driver:
        """A driver that renews its status file so often that nobody waits for it."""
        return self.zygote.start(*self.words(time, *more), cwd=self.place, settings=SWIFT)

    def runs(self) -> list[dict[str, str]]:
        """The tags of the parent runs in MLflow, the first one first."""
        connection = sqlite3.connect(self.home / "mlflow.db")
        found: dict[str, dict[str, str]] = {}
        for run, key, value in connection.execute("SELECT run_uuid, key, value FROM tags"):
            found.setdefault(run, {"run": run})[key] = value
        connection.close()
        return sorted(
            (tags for tags in found.values() if "mlflow.parentRunId" not in tags),
            key=lambda tags: tags["scheduled_time"],
        )


@pytest.fixture
def night(tmp_path: Path, mlflow_database: Path, zygote: Zygote) -> Iterator[Night]:
    (tmp_path / "studies").mkdir()
    shutil.copy(mlflow_database, tmp_path / "studies")
    (tmp_path / "toy.py").write_text(TRAINER)
    (tmp_path / "toy.yaml").write_text(YAML)
    (tmp_path / "offset").write_text("0")
    made = Night(tmp_path, zygote)
    yield made
    (tmp_path / "wait").unlink(missing_ok=True)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def waited(path: Path, outcome: str, pid: int | None = None) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = read(path)
        if found and found["outcome"] == outcome and found["counts"] and pid in (None, found["pid"]):
            return found
        time.sleep(0.02)
    raise AssertionError(f"{path} never said {outcome}: {read(path)}")


def test_each_tick_is_a_study_and_says_what_changed_since_the_last(night: Night, receiver: Receiver) -> None:
    # The first one is told everything by its environment, as on Kubernetes; and its post is refused.
    environment = {
        "HPSEARCH_SCHEDULE": "nightly",
        "HPSEARCH_SCHEDULED_TIME": "2026-11-24T01:17:00Z",
        "HPSEARCH_TAGS": "rayjob=nightly-29-r image_digest=sha256:ab git_sha=c0ffee sweep=cars",
        "HPSEARCH_WEBHOOK": receiver.url,
    }
    receiver.answers = [404]
    words = ("run", "toy.yaml", "--local", "--resume", "auto")
    first = night.zygote.run(*words, cwd=night.place, environment=environment)
    assert "first completed tick of schedule nightly" in first.out
    assert "the webhook of --webhook-env HPSEARCH_WEBHOOK was not told: it answered 404" in first.err

    (night.place / "offset").write_text("0.5")
    more = ("--webhook-env", "NIGHT_HOOK", "--tag", "team=vision")
    second = night.run("2026-11-25T02:17:00+01:00", "--json", *more, NIGHT_HOOK=receiver.url)
    answer = json.loads(second.out)
    assert answer["study"] == "nightly-20261125T011700Z"
    assert (answer["schedule"], answer["scheduled_time"]) == ("nightly", "2026-11-25T01:17:00Z")
    changed = answer["changes"]
    assert changed["then"] == "nightly-20261124T011700Z"
    [compared] = changed["compared"]
    assert compared["now"]["value"] - compared["then"]["value"] == pytest.approx(0.5)
    # Both values were tried with two seeds in each night, and so the noise is measured.
    assert (compared["noise"]["params"], compared["noise"]["trials"]) == (4, 8)
    assert compared["verdict"] == "worse"
    assert changed["repeated"]["differ"] == 4

    # Both runs are found in MLflow by what they say.
    one, two = night.runs()
    assert [tags["scheduled_time"] for tags in (one, two)] == ["2026-11-24T01:17:00Z", "2026-11-25T01:17:00Z"]
    for tags in (one, two):
        assert tags["schedule"] == "nightly"
        assert tags["space_sha256"] == tags["spec_sha256"]
    assert (one["study"], one["rayjob"], one["image_digest"]) == (
        changed["then"],
        "nightly-29-r",
        "sha256:ab",
    )
    # An image holds no working tree, and its file is called as its mount.
    assert (one["git_sha"], one["sweep"]) == ("c0ffee", "cars")
    assert (two["sweep"], two["team"]) == ("toy", "vision")

    # Whoever runs a finished tick again gets its answer. What was told is not told a second time, what was
    # refused is.
    again = night.run("2026-11-25T01:17:00Z", "--json", *more, NIGHT_HOOK=receiver.url)
    assert json.loads(again.out)["changes"] == changed
    assert len(receiver.posts) == 2
    night.zygote.run(*words, cwd=night.place, environment=environment)
    lines = [post["text"].splitlines() for post in receiver.posts]
    assert [told[0].split()[1] for told in lines] == [one["study"], two["study"], one["study"]]
    assert "worse, by more than" in "".join(lines[1])
    assert receiver.posts[1]["hpsearch"]["changes"] == changed
    assert receiver.posts[1]["hpsearch"]["exit_code"] == 0
    assert receiver.url not in first.said() + second.said() + again.said()


def test_a_tick_that_is_killed_and_then_stopped_goes_on_in_the_same_study_and_run(night: Night) -> None:
    (night.place / "wait").touch()
    driver = night.start("2026-11-24T01:17:00Z")
    running = waited(night.status, "running")
    assert running["study"] == "nightly-20261124T011700Z"
    assert not is_dead(running, time.time())
    driver.send(signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    left = read(night.status)
    assert left
    assert (left["outcome"], left["exit_code"]) == ("running", None)
    assert is_dead(left, time.time())

    driver = night.start("2026-11-24T01:17:00Z")
    waited(night.status, "running", driver.pid)
    assert earlier.running(Home(night.home), "nightly") == ["nightly-20261124T011700Z"]
    assert earlier.running(Home(night.home), "hourly") == []
    stop = night.zygote.run("stop", "--schedule", "nightly", "--json", cwd=night.place)
    assert [each["pid"] for each in json.loads(stop.out)["stopped"]] == [driver.pid]
    assert driver.wait() == 75
    stopped = read(night.status)
    assert stopped
    assert (stopped["outcome"], stopped["exit_code"]) == ("interrupted", 75)
    # That nothing runs is what was wanted.
    night.zygote.run("stop", "--schedule", "nightly", cwd=night.place)

    (night.place / "wait").unlink()
    [before] = night.runs()
    night.run("2026-11-24T01:17:00Z")
    [after] = night.runs()
    assert after["run"] == before["run"]
    assert after["schedule"] == "nightly"
    ended = read(night.status)
    assert ended
    assert (ended["outcome"], ended["exit_code"], ended["counts"]["completed"]) == ("completed", 0, 4)
    assert ended["best"]["params"]["x"] == 1


def test_a_tick_that_cannot_start_is_told_too(night: Night, receiver: Receiver) -> None:
    (night.place / "toy.py").unlink()
    told = night.run("2026-11-24T01:17:00Z", code=2, HPSEARCH_WEBHOOK=receiver.url)
    assert "pythonModule 'toy' cannot be found" in told.err
    [post] = receiver.posts
    assert post["text"].startswith("nightly-20261124T011700Z error: pythonModule 'toy' cannot be found")
    assert post["hpsearch"]["exit_code"] == 2
    found = read(night.status)
    assert found
    assert (found["outcome"], found["exit_code"]) == ("error", 2)


# -- names and times ---------------------------------------------------------------------------------


def test_a_tick_is_named_by_its_schedule_and_its_time_in_utc() -> None:
    now = moment("2026-11-25T12:00+00:00")
    for text in ("2026-11-25T01:17:00Z", "2026-11-25T02:17:00+01:00", "20261125T011700Z"):
        found = tick("nightly", text, now)
        assert found
        assert found.study == "nightly-20261125T011700Z"
    due = tick("nightly", "17 2 * * * Europe/Berlin", now)
    assert due
    assert due.study == "nightly-20261125T011700Z"
    daily = tick("nightly", "@daily UTC", now)
    assert daily
    assert daily.tags["scheduled_time"] == "2026-11-25T00:00:00Z"
    assert tick(None, None, now) is None


@pytest.mark.parametrize(
    ("schedule", "text", "message"),
    [
        ("nightly", None, "--scheduled-time is missing"),
        (None, "2026-11-25T01:17:00Z", "--schedule is missing"),
        ("nightly", "2026-11-25T01:17:00", "is no moment"),
        ("nightly", "yesterday", "is no moment"),
        ("nightly", "17 2 * * * Europe/Berlim", "no time zone 'Europe/Berlim'"),
        ("nightly", "17 25 * * * UTC", "the hour '25'"),
        ("../up", "2026-11-25T01:17:00Z", "'../up' is not usable"),
        ("x" * 81, "2026-11-25T01:17:00Z", "is not usable"),
    ],
)
def test_half_a_tick_or_a_wrong_one_is_refused(schedule: str | None, text: str | None, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        tick(schedule, text, moment("2026-11-25T12:00+00:00"))
    assert message in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize(
    "name", ["", "Mars/Base", "../etc/passwd", "localtime", "Local", "europe berlin", "."]
)
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no time zone"):
        time_zone(name)


@pytest.mark.parametrize(
    "text", ["x", "=y", "x=", "study=other", "mlflow.parentRunId=1", "hpsearch.study_uid=1", "schedule=x"]
)
def test_a_tag_that_is_none_or_hpsearchs_own_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--tag"):
        given_tags([text])


def test_a_secret_in_a_tag_is_not_kept() -> None:
    assert given_tags(["db=postgresql://me:hunter2@db/x", "a=b=c"]) == {"db": "postgresql://db/x", "a": "b=c"}
    assert given_tags(["api_key=abcdef123"]) == {"api_key": "***"}


def test_a_name_has_room_for_its_time() -> None:
    longest = schedule_name("x" * 80)
    found = tick(longest, "2026-11-25T01:17:00Z", moment("2026-11-25T12:00+00:00"))
    assert found
    assert len(found.study) <= 100


def test_without_a_tick_nothing_is_tagged(tmp_path: Path) -> None:
    assert ticks.batch(tmp_path / "a.yaml", None, None, None, None, None, None).tags == {}
    tagged = ticks.batch(tmp_path / "a.yaml", ["team=vision"], None, None, None, None, None)
    assert tagged.tags == {"team": "vision", "sweep": "a"}
    assert tagged.study is None
