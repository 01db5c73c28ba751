"""What people ask of RayJobs from afar, by the road of a pod and by that of the user's kubectl."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kube_client import kubectl
from kube_kinds import JOB, POD, RAY_CLUSTER, RAY_JOB
from kube_server import Fault
from kube_world import SPACE, World, world

from hpsearch.errors import Interrupted, ServiceUnavailable, UsageError
from hpsearch.ship import rayjobs
from hpsearch.ship.api import AlreadyThere, Client, Missing, Refused, Time
from hpsearch.ship.kubectl import Kubectl

TEMPLATE = {"spec": {"containers": [{"name": "ray", "image": "ray"}]}}
HEAD = {"rayStartParams": {}, "template": TEMPLATE}
LABELS = {"app.kubernetes.io/name": "hpsearch"}
RAYJOBS = f"/apis/ray.io/v1/namespaces/{SPACE}/rayjobs"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def begun(cluster: World, name: str = "sweep", **spec: Any) -> None:
    whole = {"entrypoint": "true", "backoffLimit": 2, "rayClusterSpec": {"headGroupSpec": HEAD}} | spec
    meta = {"name": name, "labels": LABELS, "annotations": {"hpsearch/study": "night"}}
    cluster.store.create(RAY_JOB, SPACE, {"metadata": meta, "spec": whole})
    cluster.operator.settle()


def submitter(cluster: World, name: str = "sweep") -> str:
    """The newest pod of its Job."""
    found = [
        p["metadata"] for p in cluster.store.list(POD) if p["metadata"]["labels"].get("job-name") == name
    ]
    return str(found[-1]["name"])


def hurried() -> Time:
    return Time(time.monotonic, lambda seconds: time.sleep(min(seconds, 0.01)), lambda: 1.0)


# -- status -----------------------------------------------------------------------------------------


def test_the_status_is_read_from_the_object_alone(cluster: World) -> None:
    begun(cluster)
    cluster.operator.ray.end("FAILED", "Job entrypoint command failed with exit code 75")
    cluster.operator.settle()
    cluster.operator.settle()
    (life,) = rayjobs.status(cluster.admin(), "sweep")
    shown = rayjobs.shown(life, cluster.clock.now() + timedelta(seconds=90))
    assert (shown["phase"], shown["job_status"], shown["attempt"], shown["attempts"]) == (
        "Running",
        "RUNNING",
        2,
        3,
    )
    assert shown["head_age"] == 90
    assert shown["cluster"] == cluster.store.list(RAY_CLUSTER)[0]["metadata"]["name"]
    assert (shown["final"], shown["outcome"], shown["exit_code"]) == (False, None, None)
    cluster.operator.ray.end("SUCCEEDED")
    cluster.operator.settle()
    shown = rayjobs.shown(rayjobs.status(cluster.admin(), "sweep")[0], datetime.now(UTC))
    assert (shown["final"], shown["outcome"], shown["exit_code"]) == (True, "succeeded", 0)


def test_the_status_of_all_is_that_of_ours_by_name(cluster: World) -> None:
    for name in ("b", "a"):
        begun(cluster, name)
    cluster.store.create(RAY_JOB, SPACE, {"metadata": {"name": "foreign"}, "spec": {}})
    assert [life.name for life in rayjobs.status(cluster.admin())] == ["a", "b"]


def test_a_rayjob_that_is_not_there_is_told_with_those_that_are(cluster: World) -> None:
    begun(cluster)
    with pytest.raises(UsageError, match="no RayJob 'swep'") as missing:
        rayjobs.status(cluster.admin(), "swep")
    assert "sweep" in missing.value.hint


# -- logs -------------------------------------------------------------------------------------------


def lines(*texts: str, second: int = 0) -> list[str]:
    return [f"2026-11-25T02:17:{second:02d}.{number:09d}Z {text}" for number, text in enumerate(texts)]


def test_the_log_is_that_of_the_submitter(cluster: World) -> None:
    begun(cluster)
    cluster.api.logs[submitter(cluster)] = lines("step 1", "step  2", "")
    assert list(rayjobs.logs(cluster.admin(), "sweep")) == ["step 1", "step  2", ""]


def test_lines_of_the_same_moment_are_all_told(cluster: World) -> None:
    begun(cluster)
    cluster.api.logs[submitter(cluster)] = lines("a") + lines("b") + lines("c")
    assert list(rayjobs.logs(cluster.admin(), "sweep")) == ["a", "b", "c"]


def test_a_followed_log_outlives_dropped_streams_and_attempts_and_repeats_nothing(cluster: World) -> None:
    begun(cluster)
    first = submitter(cluster)
    cluster.api.logs[first] = lines("one", "two")
    cluster.api.logs[first] += [line.replace("two", "two again") for line in lines("", "two")[1:]]  # at once
    told: list[str] = []
    reading = rayjobs.logs(cluster.admin(hurried()), "sweep", follow=True)
    thread = threading.Thread(target=lambda: told.extend(reading))
    thread.start()
    cluster.api.wait_for("GET", "/log")
    for round_ in (2, 3):  # the stream is dropped twice, and something is printed meanwhile
        cluster.api.logs[first] += lines(f"line {round_}", second=round_)
        cluster.store.cut()
        cluster.api.wait_for("GET", "/log", round_)
    cluster.operator.ray.end("FAILED", "boom")
    cluster.operator.settle()
    second = submitter(cluster)
    assert second != first
    cluster.api.logs[second] = lines("again")
    cluster.operator.ray.end("SUCCEEDED")
    cluster.operator.settle()
    thread.join(60)
    assert told == ["one", "two", "two again", "line 2", "line 3", "again"]


def test_a_log_that_went_with_its_pod_is_told_as_gone_with_what_is_known_of_its_end(cluster: World) -> None:
    begun(cluster)
    cluster.operator.ray.end("SUCCEEDED", "all of it is done")
    cluster.operator.settle()
    cluster.store.delete(JOB, SPACE, "sweep")
    for follow in (False, True):
        with pytest.raises(UsageError) as gone:
            list(rayjobs.logs(cluster.admin(hurried()), "sweep", follow=follow))
        assert gone.value.message == (
            "the log of RayJob sweep went with its submitter's pod; "
            "it has succeeded (exit code 0), and said: all of it is done"
        )
        assert gone.value.hint == "MLflow and the store have the study night, each trial with its reason"


def test_a_log_before_there_is_a_pod_is_waited_for_if_it_is_followed(cluster: World) -> None:
    cluster.operator.pods.pending.add("head")
    begun(cluster)
    with pytest.raises(UsageError, match="it is Initializing"):
        list(rayjobs.logs(cluster.admin(), "sweep"))
    told: list[str] = []
    reading = rayjobs.logs(cluster.admin(hurried()), "sweep", follow=True)
    thread = threading.Thread(target=lambda: told.extend(reading))
    thread.start()
    cluster.api.wait_for("GET", "job-name", 3)
    cluster.operator.pods.pending.clear()
    cluster.operator.settle()
    cluster.api.logs[submitter(cluster)] = lines("at last")
    cluster.operator.ray.end("SUCCEEDED")
    cluster.operator.settle()
    thread.join(60)
    assert told == ["at last"]


# -- stop -------------------------------------------------------------------------------------------


def test_a_stopped_rayjob_is_deleted_and_its_cluster_waited_for(cluster: World) -> None:
    begun(cluster)
    name = cluster.store.list(RAY_CLUSTER)[0]["metadata"]["name"]
    slow = {"metadata": {"finalizers": ["test/slow"]}}
    cluster.store.patch(RAY_CLUSTER, SPACE, name, slow)
    done: list[rayjobs.Stopped] = []
    thread = threading.Thread(target=lambda: done.append(rayjobs.stop(cluster.admin(), "sweep", 30)))
    thread.start()
    cluster.api.wait_for("DELETE", "rayjobs/sweep")
    cluster.api.wait_for("GET", "rayjobs.*watch=true")
    cluster.operator.settle()  # the operator asks Ray to stop, and lets go
    assert cluster.operator.ray.stopped
    cluster.api.wait_for("GET", "rayclusters.*watch=true")
    assert not done
    cluster.store.patch(RAY_CLUSTER, SPACE, name, {"metadata": {"finalizers": []}})
    thread.join(60)
    assert (done[0].name, done[0].cluster) == ("sweep", name)
    assert cluster.store.list(RAY_JOB) == []


def test_what_does_not_go_in_time_is_told(cluster: World) -> None:
    begun(cluster)
    with pytest.raises(Interrupted, match="rayjob sweep is deleted and still there") as late:
        rayjobs.stop(cluster.admin(), "sweep", 0.5)  # no operator is there to let go
    assert "kubectl describe rayjob sweep" in late.value.hint


# -- kubectl ----------------------------------------------------------------------------------------


@pytest.fixture
def laptop(cluster: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    """A kubectl whose configuration is that of an administrator of the cluster."""
    tool = kubectl(tmp_path / "kubectl", cluster.api, SPACE)
    for name, value in tool.environment.items():
        monkeypatch.setenv(name, value)
    return Kubectl.here()


def test_a_context_that_names_no_namespace_means_ours(
    cluster: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = kubectl(tmp_path / "kubectl", cluster.api, "")
    for name, value in tool.environment.items():
        monkeypatch.setenv(name, value)
    assert Kubectl.here().namespace == "hpsearch"
    assert Kubectl.here("other").namespace == "other"


def test_kubectl_is_a_road_like_a_pods_account(cluster: World, laptop: Kubectl) -> None:
    assert (laptop.namespace, laptop.place) == (SPACE, "fake")
    client = Client(laptop, hurried(), patience=5)
    body = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "one"}, "spec": {}}
    assert client.create(RAYJOBS, body)["metadata"]["uid"]
    assert cluster.api.asked("POST")[0].target == f"{RAYJOBS}?fieldValidation=Strict"
    with pytest.raises(AlreadyThere, match="already exists"):
        client.create(RAYJOBS, body)
    with pytest.raises(Missing):
        client.get(f"{RAYJOBS}/two")
    seen = client.follow(RAYJOBS, "one")
    assert next(seen).found
    cluster.store.patch(RAY_JOB, SPACE, "one", {"metadata": {"labels": {"n": "2"}}})
    found = next(seen).found
    assert found is not None
    assert found["metadata"]["labels"] == {"n": "2"}
    client.delete(f"{RAYJOBS}/one")
    assert next(seen).gone
    seen.close()
    cluster.api.faults.append(Fault("GET", status=403, message="no", times=2))
    with pytest.raises(Refused, match="HTTP 403"):
        client.get(RAYJOBS)


def test_status_logs_and_stop_go_by_kubectl(cluster: World, laptop: Kubectl) -> None:
    begun(cluster)
    cluster.api.logs[submitter(cluster)] = lines("hello")
    client = Client(laptop, hurried(), patience=5)
    assert rayjobs.status(client)[0].phase == "Running"
    assert list(rayjobs.logs(client, "sweep")) == ["hello"]
    with cluster.operator.at_work():
        assert rayjobs.stop(client, "sweep", 30).name == "sweep"


def test_a_cluster_that_kubectl_cannot_reach_is_given_up(cluster: World, laptop: Kubectl) -> None:
    cluster.api.faults.append(Fault("GET", cut="before", times=999))
    ticks = iter(range(1000))
    client = Client(laptop, Time(lambda: float(next(ticks)), lambda seconds: None, lambda: 1.0), patience=2)
    with pytest.raises(ServiceUnavailable, match="API server at fake"):
        client.get(RAYJOBS)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("Error from server (Forbidden): no", 403),
        ("error: You must be logged in to the server (Unauthorized)", 401),
        ('The RayJob "one" is invalid: spec: nonsense', 422),
        ("Error from server (NotFound): the server could not find the requested resource", 404),
        ("error: unknown flag: --raw", 2),
    ],
)
def test_what_kubectl_says_is_understood(tmp_path: Path, said: str, code: int) -> None:
    program = tmp_path / "kubectl"
    program.write_text(f"#!/bin/sh\necho 'a warning' >&2\necho '{said}' >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(UsageError) as refused:
        Client(Kubectl(SPACE, "fake", program=str(program))).get(RAYJOBS)
    assert getattr(refused.value, "status", 2) == code


@pytest.mark.parametrize(
    "said",
    [
        "Unable to connect to the server: dial tcp: lookup gone.example: no such host",
        "The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?",
        "error: net/http: request canceled (Client.Timeout or context cancellation while reading body)",
        "Error from server (ServiceUnavailable): the server is currently unable to handle the request",
        "error: unexpected EOF",
    ],
)
def test_what_kubectl_says_of_silence_is_asked_again(tmp_path: Path, said: str) -> None:
    program, count = tmp_path / "kubectl", tmp_path / "count"
    program.write_text(
        f"#!/bin/sh\necho x >> {count}\n"
        f"if [ $(wc -l < {count}) = 1 ]; then echo '{said}' >&2; exit 1; fi\necho '{{\"items\": []}}'\n"
    )
    program.chmod(0o755)
    assert Client(Kubectl(SPACE, "fake", program=str(program)), hurried()).get(RAYJOBS) == {"items": []}


def test_no_kubectl_and_no_context_are_told(tmp_path: Path, laptop: Kubectl) -> None:
    with pytest.raises(UsageError, match="no-such-kubectl cannot be run"):
        Kubectl.here(program="no-such-kubectl")
    with pytest.raises(UsageError, match="nowhere"):
        Kubectl.here(context="nowhere")
    gone = Kubectl(SPACE, "fake", program=str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="install kubectl"):
        Client(gone).get(RAYJOBS)
