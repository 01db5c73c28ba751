"""The command `launch` as a pod runs it: a real process, its exit code, its last word, and signals."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kube_kinds import JOB, KINDS, RAY_JOB, kind_of
from kube_server import Fault
from kube_world import BASE, IMAGE, SPACE, SWEEP, TICK, World, crd_checks, world
from zygote import Driver, Zygote

from hpsearch import cli
from hpsearch.ship import termination

OWN, NAME = "nightly-29401577", "nightly-29401577-r"
TICKED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
KEPT = ("PATH", "HOME", "LANG", "VIRTUAL_ENV")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.own_job()
        (tmp_path / "termination").touch()
        (tmp_path / "demo.yaml").write_text(SWEEP)
        yield made


def environment(cluster: World) -> dict[str, str]:
    log = {"HPSEARCH_TERMINATION_LOG": str(cluster.folder / "termination")}
    return {name: os.environ[name] for name in KEPT if name in os.environ} | cluster.environment | log


def begun(cluster: World, zygote: Zygote, *words: str) -> Driver:
    """A launcher as a process of its own."""
    command = ["launch", "demo.yaml", "--job-name", OWN, "--wait", *words]
    return zygote.start(*command, cwd=cluster.folder, environment=environment(cluster))


def ended(process: Driver) -> tuple[int, dict[str, Any], str]:
    """Its exit code, its answer, and what it said beside."""
    code = process.wait()
    assert process.out.count("\n") == 1, process.said()
    return code, json.loads(process.out), process.err


class Told:
    """What a command in this process did."""

    def __init__(self, code: Any, out: str, err: str) -> None:
        self.code, self.err = code, err
        self.answer = json.loads(out) if out else None


@pytest.fixture
def launch(cluster: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command in this process, through the door that pods take."""
    monkeypatch.chdir(cluster.folder)
    for name, value in environment(cluster).items():
        monkeypatch.setenv(name, value)

    def command(*words: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["hpsearch", "launch", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return Told(left.value.code, *capsys.readouterr())

    return command


def last_word(cluster: World) -> Any:
    return json.loads((cluster.folder / "termination").read_text())


# -- processes --------------------------------------------------------------------------------------


def test_a_launcher_on_sigterm_leaves_the_rayjob_alone_and_the_next_one_goes_on(
    cluster: World, zygote: Zygote
) -> None:
    first = begun(cluster, zygote)
    cluster.api.wait_for("GET", "watch=true", within=60)
    first.send(signal.SIGTERM)
    code, answer, err = ended(first)
    assert (code, answer["outcome"], answer["exit_code"]) == (75, "interrupted", 75)
    assert "SIGTERM" in answer["message"]
    assert answer["rayjob"] == NAME
    assert last_word(cluster) == answer
    assert "Traceback" not in err
    uid = cluster.rayjob()["metadata"]["uid"]
    second = begun(cluster, zygote)
    cluster.api.wait_for("GET", "watch=true", 2, within=60)
    cluster.set_status({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"})
    code, answer, err = ended(second)
    assert (code, answer["outcome"], answer["exit_code"]) == (0, "succeeded", 0)
    assert answer["schedule"] == "nightly"
    assert answer["scheduled_time"] == "2026-11-25T02:17:00Z"
    assert answer["study"] == "nightly-20261125T021700Z"
    assert answer["image"] == IMAGE
    assert last_word(cluster) == answer
    assert f"RayJob {NAME} is there already" in err
    assert cluster.rayjob()["metadata"]["uid"] == uid
    assert [request.method for request in cluster.api.requests if request.method not in ("GET", "POST")] == []


def test_a_launcher_on_sigterm_waits_for_nothing(cluster: World, zygote: Zygote) -> None:
    cluster.own_job("other-1")
    cluster.api.faults.append(Fault("POST", "rayjobs", delay=5.0))  # one waits for an answer
    cluster.api.faults.append(Fault("POST", "rayjobs", status=429, headers={"Retry-After": "30"}, times=9))
    processes = [
        begun(cluster, zygote),
        begun(cluster, zygote, "--job-name", "other-1"),
    ]  # the other one pauses
    cluster.api.wait_for("POST", "rayjobs", 2, within=60)
    for process in processes:
        process.send(signal.SIGTERM)
    for process in processes:
        code, answer, _ = ended(process)
        assert (code, answer["outcome"]) == (75, "interrupted")


# -- in this process --------------------------------------------------------------------------------


def test_a_started_rayjob_is_told_without_waiting(cluster: World, launch: Any) -> None:
    told = launch("demo.yaml", "--job-name", OWN)
    assert (told.code, told.answer["outcome"]) == (0, "started")
    assert f"RayJob {NAME} created" in told.err


def test_options_reach_the_rayjob(cluster: World, launch: Any) -> None:
    words = (
        "--retries",
        "5",
        "--group",
        "big:cpus=2,memory=4Gi,max=3",
        "--deadline",
        "2h",
        "--claim",
        "studies-2",
    )
    assert launch("demo.yaml", "--job-name", OWN, *words).code == 0
    spec = cluster.rayjob()["spec"]
    assert spec["backoffLimit"] == 5
    assert spec["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"] == 3
    assert "--deadline 7200s" in spec["entrypoint"]
    assert "git_sha" not in spec["metadata"]


@pytest.mark.parametrize(("said", "told"), [("0123abcd" * 5, True), ("unknown", False)])
def test_the_images_commit_is_the_sweeps(
    cluster: World, launch: Any, monkeypatch: pytest.MonkeyPatch, said: str, told: bool
) -> None:
    monkeypatch.setenv("HPSEARCH_GIT_SHA", said)
    assert launch("demo.yaml", "--job-name", OWN).code == 0
    assert (cluster.rayjob()["spec"]["metadata"].get("git_sha") == said) is told


def test_a_skipped_tick_leaves_with_0(cluster: World, launch: Any) -> None:
    labels = {"hpsearch/schedule": "nightly"}
    cluster.store.create(RAY_JOB, SPACE, {"metadata": {"name": "nightly-1-r", "labels": labels}, "spec": {}})
    told = launch("demo.yaml", "--job-name", OWN, "--wait", "--overlap", "skip")
    assert (told.code, told.answer["outcome"], told.answer["exit_code"]) == (0, "skipped", 0)
    assert last_word(cluster) == told.answer


def test_errors_are_outcomes_too(cluster: World, launch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (cluster.folder / "bad.yaml").write_text(SWEEP.replace("MINIMIZE", "DOWN"))
    told = launch("bad.yaml", "--job-name", OWN, "--wait")
    assert (told.code, told.answer["outcome"], told.answer["exit_code"]) == (2, "refused", 2)
    assert "bad.yaml:4" in told.err
    told = launch("demo.yaml", "--job-name", "nowhere", "--wait")
    assert (told.code, told.answer["outcome"]) == (2, "refused")
    assert (told.answer["job"], told.answer["rayjob"]) == ("nowhere", None)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    told = launch("demo.yaml", "--job-name", OWN, "--wait")
    assert (told.code, told.answer["outcome"]) == (2, "refused")
    assert "no cluster here" in told.answer["message"]
    assert last_word(cluster) == told.answer


def test_an_overlap_by_hand_leaves_with_73(cluster: World, launch: Any) -> None:
    labels = {"hpsearch/schedule": "nightly"}
    cluster.store.create(RAY_JOB, SPACE, {"metadata": {"name": "nightly-1-r", "labels": labels}, "spec": {}})
    cluster.own_job("by-hand", tick="")
    told = launch("demo.yaml", "--job-name", "by-hand", "--wait")
    assert (told.code, told.answer["outcome"]) == (73, "busy")


def test_no_token_is_shown(cluster: World, launch: Any) -> None:
    secret = (cluster.mount() / "token").read_text().strip()
    role = next(kind for kind in KINDS if kind.name == "Role")
    cluster.store.patch(role, SPACE, "hpsearch-launch", {"rules": []})
    told = launch("demo.yaml", "--job-name", OWN, "--wait")
    assert told.code == 2
    assert secret not in json.dumps(told.answer) + told.err


# -- the last word ----------------------------------------------------------------------------------


def test_the_last_word_fits_what_kubernetes_keeps(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("x" * 10_000)
    assert termination.leave(
        log, {"outcome": "failed", "message": "é" * 9000, "hint": "h" * 5000, "exit_code": 3}
    )
    assert len(log.read_bytes()) <= 4096
    assert json.loads(log.read_text())["exit_code"] == 3


def test_outside_of_a_pod_nothing_is_left(tmp_path: Path) -> None:
    assert not termination.leave(tmp_path / "none", {"outcome": "failed"})
    assert list(tmp_path.iterdir()) == []


# -- the CronJob that we ship -----------------------------------------------------------------------


def test_a_tick_of_the_shipped_cronjob_launches_by_its_own_words(cluster: World, launch: Any) -> None:
    import yaml

    cluster.store.check = crd_checks()
    cron = yaml.safe_load((BASE / "cronjob.yaml").read_text())
    made = cluster.store.create(kind_of(cron), SPACE, cron)
    # As its controller makes a Job of it.
    name = f"{cron['metadata']['name']}-29401577"
    owner = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": made["metadata"]["name"],
        "controller": True,
    }
    meta = dict(cron["spec"]["jobTemplate"]["metadata"]) | {"name": name, "annotations": {TICKED: TICK}}
    meta["ownerReferences"] = [owner | {"uid": made["metadata"]["uid"]}]
    cluster.store.create(JOB, SPACE, {"metadata": meta, "spec": cron["spec"]["jobTemplate"]["spec"]})
    (cluster.folder / "sweep.yaml").write_text((BASE / "sweep.yaml").read_text())
    container = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    words = [word.replace("/etc/hpsearch/", "").replace("$(JOB_NAME)", name) for word in container["args"]]
    assert words[0] == "launch"
    with cluster.operator.at_work():
        cluster.operator.ray.verdict = ("SUCCEEDED", "")
        told = launch(*words[1:])
    assert (told.code, told.answer["outcome"]) == (0, "succeeded"), told.answer
    assert told.answer["rayjob"] == f"{name}-r"
    assert told.answer["schedule"] == cron["metadata"]["name"]
    head = cluster.rayjob(f"{name}-r")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    assert head["spec"]["containers"][0]["image"] == container["image"]
    assert {request.code for request in cluster.api.requests} <= {200, 201, 404}
