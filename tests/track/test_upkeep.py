"""Upkeep without trials: sync tells MLflow the rest, reconcile closes runs that nobody works on."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import outbox_life
import pytest
from mlflow_facts import Tracking
from outbox_story import Live, assert_everything_once
from tcp_proxy import Proxy
from zygote import Zygote

from hpsearch import upkeep
from hpsearch.errors import StudyBusy
from hpsearch.study.home import Home
from hpsearch.study.trial import Outcome

Fired = Callable[..., None]
NAME = outbox_life.NAME


def commit_everything(home: Path) -> None:
    """A study that ran to its end while nobody told MLflow of it."""
    store = Home(home).open(NAME)
    store.take(0)
    store.commit(outbox_life.entries())
    store.close()


def running(tracking: Tracking) -> list[str]:
    """The runs that MLflow takes for running, by their trial; the parent is `study`."""
    query = (
        "select coalesce((select value from tags t where t.run_uuid = r.run_uuid "
        "and key = 'hpsearch.trial_uid'), 'study') from runs r where status = 'RUNNING'"
    )
    return sorted(uid for (uid,) in tracking.rows(query))


def counts(census: upkeep.Census) -> dict[str, int]:
    (told,) = census.studies
    return {name: getattr(told, name) for name in ("closed", "interrupted", "live", "left")}


@pytest.mark.fault("F57")
def test_zombies_of_a_killed_driver_are_reconciled_and_a_resume_goes_on_with_them(
    told_home: Path, lives: Live, fired: Fired
) -> None:
    tracking = Tracking(told_home / "mlflow.db")
    # Killed with the end of trial 1 committed, and not told.
    assert lives(told_home, "outbox.send:7:after=KILL") == -signal.SIGKILL
    fired(running(tracking) == ["study", "trial-1"])
    assert counts(upkeep.reconcile(Home(told_home))) == {"closed": 1, "interrupted": 1, "live": 0, "left": 0}
    assert running(tracking) == []
    assert tracking.run(tracking.run_ids()["trial-1"])[0] == "FINISHED"

    # Killed in the middle of trial 2.
    assert lives(told_home, "outbox.send:3:after=KILL") == -signal.SIGKILL
    fired(running(tracking) == ["study", "trial-2"])
    assert counts(upkeep.reconcile(Home(told_home))) == {"closed": 0, "interrupted": 2, "live": 0, "left": 0}
    assert running(tracking) == []
    run_id = tracking.run_ids()["trial-2"]
    assert tracking.run(run_id)[0] == "KILLED"
    assert tracking.tags(run_id)["state"] == "interrupted"
    assert tracking.tags(run_id)["reason"] == "its driver was killed"

    assert lives(told_home, "outbox.send:3:after=KILL") == -signal.SIGKILL
    assert running(tracking) == ["study", "trial-2"], "a resume opens what it goes on with"
    assert lives(told_home, "") == 0
    assert_everything_once(told_home)
    assert running(tracking) == []


@pytest.mark.fault("F57")
def test_a_resume_alone_leaves_no_zombie(told_home: Path, lives: Live, fired: Fired) -> None:
    tracking = Tracking(told_home / "mlflow.db")
    assert lives(told_home, "outbox.send:7:after=KILL") == -signal.SIGKILL
    fired(running(tracking))
    assert lives(told_home, "") == 0
    assert running(tracking) == []
    assert_everything_once(told_home)


def test_reconcile_leaves_live_drivers_and_other_homes_alone(told_home: Path, lives: Live) -> None:
    from mlflow.tracking import MlflowClient

    tracking = Tracking(told_home / "mlflow.db")
    assert lives(told_home, "outbox.send:7:after=KILL") == -signal.SIGKILL
    client = MlflowClient(f"sqlite:///{tracking.path}")
    elsewhere = client.create_experiment("elsewhere")
    client.create_run(elsewhere, tags={"hpsearch.study_uid": "of-another-home"})
    client.create_run(elsewhere, tags={"made": "by somebody else"})
    before = tracking.everything()
    driver = Home(told_home).open(NAME)
    driver.take(0)
    try:
        census = upkeep.reconcile(Home(told_home))
    finally:
        driver.close()
    assert [(told.live, told.closed, told.left) for told in census.studies] == [(2, 0, 0)]
    assert census.foreign == {"of-another-home": 1}
    assert tracking.everything() == before


def test_reconcile_of_a_home_without_mlflow_makes_none(tmp_path: Path) -> None:
    outbox_life.create(tmp_path)
    assert upkeep.reconcile(Home(tmp_path)) == upkeep.Census((), {}, {})
    assert not (tmp_path / "mlflow.db").exists()


def test_sync_delivers_what_waits_and_the_study_stays_as_it_ended(told_home: Path) -> None:
    tracking = Tracking(told_home / "mlflow.db")
    commit_everything(told_home)
    synced = upkeep.sync(Home(told_home), NAME)
    assert (synced.undelivered, synced.problem, synced.set_aside) == (0, None, 0)
    assert synced.delivered == len(outbox_life.entries()) + 1
    assert_everything_once(told_home)
    history = Home(told_home).history(NAME)
    assert history.ending is not None
    assert history.ending.outcome is Outcome.COMPLETED
    before = tracking.everything()
    assert upkeep.sync(Home(told_home), NAME).delivered == 1, "nothing but that it has ended"
    assert tracking.everything() == before


def test_sync_to_another_server_tells_it_everything(told_home: Path, template: Path) -> None:
    commit_everything(told_home)
    upkeep.sync(Home(told_home), NAME)
    other = told_home / "other.db"
    shutil.copy(template, other)
    assert upkeep.sync(Home(told_home), NAME, f"sqlite:///{other}").undelivered == 0
    assert len(Tracking(other).run_ids()) == outbox_life.TRIALS
    # Not where this process happens to be.
    assert list((other.parent / "mlartifacts").rglob("toy.yaml"))


def test_sync_is_refused_while_a_driver_owns_the_study(told_home: Path, zygote: Zygote) -> None:
    driver = Home(told_home).open(NAME)
    try:
        with pytest.raises(StudyBusy):
            upkeep.sync(Home(told_home), NAME)
        assert "is being run by" in zygote.run("sync", NAME, "--home", told_home, cwd=told_home, code=73).err
    finally:
        driver.close()


@pytest.mark.fault("F50")
def test_the_command_sync_exits_69_while_mlflow_is_away_and_0_when_it_is_back(
    told_home: Path, zygote: Zygote, proxy: Proxy, served: Tracking, fired: Fired
) -> None:
    commit_everything(told_home)
    proxy.down()
    words = ("sync", NAME, "--home", told_home, "--tracking-uri", proxy.uri, "--json")
    away = zygote.run(*words, cwd=told_home, code=69)
    answer = json.loads(away.out)
    fired(answer["problem"])
    facts = len(outbox_life.entries())
    assert (answer["delivered"], answer["undelivered"]) == (0, facts + 1)
    assert "refused" in away.err.lower()
    proxy.up()
    answer = json.loads(zygote.run(*words[:3], told_home, "--json", cwd=told_home, code=0).out)
    assert answer == {
        "study": NAME,
        "delivered": facts + 2,
        "undelivered": 0,
        "set_aside": 0,
        "problem": None,
        "tracking_uri": proxy.uri,
    }
    assert len(served.run_ids()) == outbox_life.TRIALS
    assert running(served) == []


def test_the_command_reconcile_tells_what_it_did(told_home: Path, lives: Live, zygote: Zygote) -> None:
    assert lives(told_home, "outbox.send:7:after=KILL") == -signal.SIGKILL
    answer = json.loads(zygote.run("reconcile", "--home", told_home, "--json", cwd=told_home, code=0).out)
    counted = {"closed": 1, "interrupted": 1, "live": 0, "left": 0}
    assert answer == {
        "home": str(told_home),
        **counted,
        "foreign": 0,
        "studies": [
            {
                "study": NAME,
                "tracking_uri": f"sqlite:///{told_home}/mlflow.db",
                **counted,
                "problem": None,
            }
        ],
        "foreign_studies": [],
        "unreadable": [],
    }
    said = zygote.run("reconcile", NAME, "--home", told_home, cwd=told_home, code=0).out
    assert said == f"{NAME}: 0 closed as their trials ended, 0 as interrupted\n"


@pytest.mark.fault("F49")
def test_a_study_runs_without_mlflow_and_a_sync_tells_it_all(
    tmp_path: Path, zygote: Zygote, proxy: Proxy, served: Tracking, fired: Fired
) -> None:
    (tmp_path / "toy.py").write_text(
        "from hpsearch.train.learner import Measurement\n"
        "def train(params, context):\n"
        "    for step in (1, 2):\n"
        "        yield Measurement(step, {'loss': params['x'] + 1 / step})\n"
    )
    own = "hpsearch: {maxSteps: 2, measureEvery: 1}\n"
    (tmp_path / "toy.yaml").write_text(outbox_life.SPEC + own)
    proxy.down()
    words = ("run", "toy.yaml", "--local", "--study", "toy", "--tracking-uri", proxy.uri, "--json")
    answer = json.loads(zygote.run(*words, cwd=tmp_path, code=0).out)
    assert answer["counts"]["completed"] == 5
    fired(answer["undelivered"] > 20)
    assert "refused" in answer["problem"].lower()
    proxy.up()
    answer = json.loads(zygote.run("sync", "toy", "--json", cwd=tmp_path, code=0).out)
    assert answer["undelivered"] == 0
    runs = served.run_ids()
    for trial in Home(tmp_path / "studies").history("toy").trials:
        points = [("loss", m.step, m.metrics["loss"], m.time) for m in trial.measurements]
        assert served.points(runs[trial.uid]) == points and len(points) == 2
        assert served.run(runs[trial.uid])[0] == "FINISHED"
    assert served.run(served.parents()[0])[0] == "FINISHED"
