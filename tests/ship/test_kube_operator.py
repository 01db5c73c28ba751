"""The simulated operator keeps KubeRay's rules, also those that are traps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kube_kinds import JOB, POD, RAY_CLUSTER, RAY_JOB, SECRET
from kube_operator import FINALIZER
from kube_world import SPACE, World, crd_checks, world

LIMITS = {"cpu": "1500m", "memory": "1Gi"}
TEMPLATE = {"spec": {"containers": [{"name": "ray", "image": "ray"}]}}
GROUP = {
    "groupName": "small",
    "replicas": 1,
    "minReplicas": 1,
    "maxReplicas": 1,
    "rayStartParams": {},
    "template": TEMPLATE,
}
CLUSTER = {
    "rayVersion": "2.60.0",
    "headGroupSpec": {"rayStartParams": {}, "template": TEMPLATE},
    "workerGroupSpecs": [GROUP],
}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, crd_checks()) as made:
        yield made


def begun(cluster: World, name: str = "sweep", **spec: Any) -> World:
    """A RayJob, as far as it comes without time passing."""
    body = {"metadata": {"name": name}, "spec": {"entrypoint": "true", "rayClusterSpec": CLUSTER} | spec}
    cluster.store.create(RAY_JOB, SPACE, body)
    cluster.operator.settle()
    return cluster


def state(cluster: World, name: str = "sweep") -> tuple[str, str, str]:
    status = cluster.rayjob(name)["status"]
    return status["jobDeploymentStatus"], status.get("jobStatus", ""), status.get("reason", "")


def clusters(cluster: World) -> list[str]:
    return [each["metadata"]["name"] for each in cluster.store.list(RAY_CLUSTER)]


def pods(cluster: World, part: str) -> list[str]:
    return [name for each in cluster.store.list(POD) if part in (name := each["metadata"]["name"])]


def submitter(cluster: World) -> str:
    """The pod of the submitter, whose name is the only one without a group in it."""
    (name,) = (each for each in pods(cluster, "sweep-") if "-head-" not in each and "-small-" not in each)
    return name


def test_a_sweep_runs_and_succeeds_once_the_submitter_has_ended(cluster: World) -> None:
    begun(cluster)
    assert state(cluster) == ("Running", "RUNNING", "")
    job = cluster.store.get(JOB, SPACE, "sweep")
    assert job["metadata"]["ownerReferences"][0]["kind"] == "RayJob"
    environment = {each["name"]: each for each in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert environment["RAY_DASHBOARD_ADDRESS"]["value"].endswith(":8265")
    assert len(pods(cluster, "head")) == len(pods(cluster, "small")) == 1
    cluster.operator.ray.end("SUCCEEDED")
    cluster.operator.settle()
    assert state(cluster) == ("Complete", "SUCCEEDED", "")
    assert clusters(cluster)  # nobody asked for it to go


def test_pods_are_told_how_ray_starts_there_and_share_a_token(cluster: World) -> None:
    limited = {"spec": {"containers": [{"name": "ray", "image": "ray", "resources": {"limits": LIMITS}}]}}
    workers = GROUP | {"template": limited, "rayStartParams": {"memory": "100"}}
    head = {"rayStartParams": {"num-cpus": "0"}, "template": limited}
    spec = CLUSTER | {"authOptions": {"mode": "token"}, "headGroupSpec": head, "workerGroupSpecs": [workers]}
    begun(cluster, rayClusterSpec=spec)
    (name,) = clusters(cluster)
    started = {}
    for part in ("-head-", "-small-"):
        (pod,) = pods(cluster, part)
        (container,) = cluster.store.get(POD, SPACE, pod)["spec"]["containers"]
        started[part] = container["args"][0]
        reference = {
            "name": "RAY_AUTH_TOKEN",
            "valueFrom": {"secretKeyRef": {"name": name, "key": "auth_token"}},
        }
        assert reference in container["env"]
    assert "ray start --head --num-cpus=0 --memory=1073741824 " in started["-head-"]
    assert (
        f"--address={name}-head-svc.{SPACE}.svc.cluster.local:6379 --memory=100 --num-cpus=2 "
        in started["-small-"]
    )
    assert cluster.store.get(SECRET, SPACE, name)["data"]["auth_token"]
    cluster.store.delete(RAY_JOB, SPACE, "sweep")
    cluster.operator.settle()
    assert cluster.store.list(SECRET) == []


def test_a_stopped_job_is_complete_and_keeps_its_cluster_in_profile_retain(cluster: World) -> None:
    rules = [
        {"policy": "DeleteCluster", "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": 0}},
        {"policy": "DeleteCluster", "condition": {"jobDeploymentStatus": "Failed", "ttlSeconds": 1800}},
    ]
    begun(cluster, deletionStrategy={"deletionRules": rules})
    cluster.operator.ray.end("STOPPED")
    cluster.operator.settle()
    assert state(cluster)[:2] == ("Complete", "STOPPED")
    cluster.operator.advance(10_000)
    assert clusters(cluster)  # trap 5
    begun(cluster, "failing", deletionStrategy={"deletionRules": rules})
    cluster.operator.ray.end("FAILED")
    cluster.operator.settle()
    assert state(cluster, "failing") == ("Failed", "FAILED", "AppFailed")
    cluster.operator.advance(1799)
    assert len(clusters(cluster)) == 2
    cluster.operator.advance(1)
    assert len(clusters(cluster)) == 1


def test_a_shut_down_cluster_goes_after_its_time(cluster: World) -> None:
    begun(cluster, shutdownAfterJobFinishes=True, ttlSecondsAfterFinished=300)
    cluster.operator.ray.end("SUCCEEDED")
    cluster.operator.advance(299)
    assert clusters(cluster)
    cluster.operator.advance(300)
    assert clusters(cluster) == []
    assert pods(cluster, "head") == []
    assert f"stopped {cluster.operator.pods.log[1].split()[1]}" in cluster.operator.pods.log


def test_a_launchers_job_of_the_same_name_is_taken_for_the_submitter_and_both_wait_for_ever(
    cluster: World,
) -> None:
    cluster.own_job("sweep")
    begun(cluster, backoffLimit=2)
    for _ in range(10):
        cluster.operator.advance(3600)
    assert state(cluster) == ("Running", "", "")
    assert cluster.operator.ray.submitted == []
    # And whatever clears up for a new attempt deletes the launcher.
    cluster.store.patch(RAY_JOB, SPACE, "sweep", {"spec": {"suspend": True}})
    cluster.operator.settle()
    assert cluster.store.find(JOB, SPACE, "sweep") is None


def test_each_retry_has_a_new_cluster_and_a_new_id(cluster: World) -> None:
    begun(cluster, backoffLimit=2)
    names, ids = set(clusters(cluster)), set(cluster.operator.ray.submitted)
    for attempt in range(3):
        assert cluster.rayjob("sweep")["status"].get("failed", 0) == attempt
        cluster.operator.ray.end("FAILED", "boom")
        cluster.operator.settle()
        names |= set(clusters(cluster))
        ids |= set(cluster.operator.ray.submitted)
    assert (len(names), len(ids)) == (3, 3)
    assert state(cluster) == ("Failed", "FAILED", "AppFailed")
    assert cluster.rayjob("sweep")["status"]["failed"] == 3
    assert "name" in cluster.rayjob("sweep")["metadata"]


def test_a_deadline_ends_without_retry_and_does_not_stop_the_job(cluster: World) -> None:
    begun(cluster, activeDeadlineSeconds=100, backoffLimit=2)
    cluster.operator.advance(99)
    assert state(cluster)[0] == "Running"
    cluster.operator.advance(1)
    assert state(cluster) == ("Failed", "RUNNING", "DeadlineExceeded")
    assert cluster.operator.ray.stopped == []
    assert cluster.operator.ray.job(
        cluster.store.list(RAY_CLUSTER)[0], cluster.operator.ray.submitted[0]
    ) == ("RUNNING", "")


def test_a_cluster_that_is_never_ready_is_tried_again(cluster: World) -> None:
    cluster.operator.pods.pending.add("head")
    begun(cluster, preRunningDeadlineSeconds=60, backoffLimit=1)
    assert state(cluster)[0] == "Initializing"
    cluster.operator.advance(60)
    assert state(cluster)[0] == "Initializing"
    assert cluster.rayjob("sweep")["status"]["failed"] == 1
    cluster.operator.advance(60)
    assert state(cluster) == ("Failed", "", "PreRunningDeadlineExceeded")


def test_a_submitter_that_ends_early_ends_the_sweep_after_30_seconds(cluster: World) -> None:
    begun(cluster)
    cluster.operator.pods.ends[submitter(cluster)] = "Succeeded"
    cluster.operator.settle()
    cluster.operator.advance(29)
    assert state(cluster) == ("Running", "RUNNING", "")
    cluster.operator.advance(1)
    phase, job, reason = state(cluster)
    assert (phase, job) == ("Failed", "RUNNING")
    assert reason.endswith("GracePeriodExceeded")


def test_a_submitter_that_does_not_end_is_waited_for_300_seconds(cluster: World) -> None:
    begun(cluster)
    cluster.operator.pods.ends[submitter(cluster)] = "Running"
    cluster.operator.ray.end("SUCCEEDED")
    cluster.operator.settle()
    assert state(cluster) == ("Running", "SUCCEEDED", "")
    cluster.operator.advance(299)
    assert state(cluster)[0] == "Running"
    cluster.operator.advance(1)
    assert state(cluster)[:2] == ("Complete", "SUCCEEDED")


def test_submitters_that_fail_are_retried_and_then_the_sweep_fails(cluster: World) -> None:
    cluster.operator.pods.failing = 3
    begun(cluster, submitterConfig={"backoffLimit": 3})
    assert state(cluster) == ("Running", "RUNNING", "")
    assert cluster.store.get(JOB, SPACE, "sweep")["status"]["failed"] == 3
    cluster.store.delete(RAY_JOB, SPACE, "sweep")
    cluster.operator.settle()
    cluster.operator.pods.failing = 4
    begun(cluster, "worse", submitterConfig={"backoffLimit": 3})
    assert state(cluster, "worse") == ("Failed", "", "SubmissionFailed")


def test_a_head_that_does_not_answer_for_300_seconds_ends_without_retry(cluster: World) -> None:
    begun(cluster, backoffLimit=2)
    name = clusters(cluster)[0]
    cluster.operator.ray.down.add(name)
    cluster.operator.settle()
    cluster.operator.advance(200)
    cluster.operator.ray.down.clear()
    cluster.operator.settle()  # an answer sets the clock back
    cluster.operator.ray.down.add(name)
    cluster.operator.advance(1)
    cluster.operator.advance(299)
    assert state(cluster)[0] == "Running"
    cluster.operator.advance(1)
    assert state(cluster) == ("Failed", "RUNNING", "JobStatusCheckTimeoutExceeded")


def test_a_lost_head_knows_nothing_and_the_submitter_submits_again(cluster: World) -> None:
    begun(cluster)
    cluster.operator.ray.forget(cluster.store.list(RAY_CLUSTER)[0])
    cluster.store.delete(POD, SPACE, pods(cluster, "-head-")[0])
    cluster.operator.settle()
    assert len(pods(cluster, "-head-")) == 1
    first, second = cluster.operator.ray.submitted
    assert first == second
    assert state(cluster) == ("Running", "RUNNING", "")


def test_a_suspended_sweep_has_no_pods_and_begins_anew(cluster: World) -> None:
    begun(cluster, shutdownAfterJobFinishes=True, activeDeadlineSeconds=100)
    cluster.operator.advance(60)
    cluster.store.patch(RAY_JOB, SPACE, "sweep", {"spec": {"suspend": True}})
    cluster.operator.settle()
    assert state(cluster) == ("Suspended", "", "")
    assert (clusters(cluster), cluster.store.list(POD), cluster.store.list(JOB)) == ([], [], [])
    assert cluster.operator.ray.stopped == []  # nobody asked Ray
    cluster.operator.advance(1000)
    assert state(cluster)[0] == "Suspended"
    cluster.store.patch(RAY_JOB, SPACE, "sweep", {"spec": {"suspend": False}})
    cluster.operator.settle()
    cluster.operator.advance(60)  # the deadline counts anew
    assert state(cluster) == ("Running", "RUNNING", "")
    assert len(cluster.operator.ray.submitted) == 2


def test_a_deleted_sweep_is_stopped_once_and_takes_everything_along(cluster: World) -> None:
    begun(cluster)
    assert cluster.rayjob("sweep")["metadata"]["finalizers"] == [FINALIZER]
    cluster.store.delete(RAY_JOB, SPACE, "sweep")
    cluster.operator.settle()
    assert len(cluster.operator.ray.stopped) == 1
    left = [cluster.store.list(kind) for kind in (RAY_JOB, RAY_CLUSTER, JOB, POD)]
    assert left == [[], [], [], []]
    # A head that does not answer keeps nothing from going.
    begun(cluster)
    cluster.operator.ray.down |= set(clusters(cluster))
    cluster.store.delete(RAY_JOB, SPACE, "sweep")
    cluster.operator.settle()
    assert cluster.store.list(RAY_JOB) == []


def test_what_the_operator_refuses_is_taken_by_the_server_and_final(cluster: World) -> None:
    begun(cluster, suspend=True)
    assert state(cluster)[0] == "ValidationFailed"
    assert "suspend" in cluster.rayjob("sweep")["status"]["message"]
    cluster.operator.advance(3600)
    assert state(cluster)[0] == "ValidationFailed"
    assert clusters(cluster) == []


def test_over_http_the_operator_submits_itself(cluster: World) -> None:
    begun(cluster, submissionMode="HTTPMode")
    cluster.operator.settle()
    assert cluster.store.list(JOB) == []
    assert len(cluster.operator.ray.submitted) == 1
    cluster.operator.ray.end("SUCCEEDED")
    cluster.operator.settle()
    assert state(cluster) == ("Complete", "SUCCEEDED", "")


def test_workers_alone_may_go(cluster: World) -> None:
    rule = {"policy": "DeleteWorkers", "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": 5}}
    later = {"policy": "DeleteSelf", "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": 50}}
    begun(cluster, deletionStrategy={"deletionRules": [rule, later]})
    cluster.operator.ray.end("SUCCEEDED")
    cluster.operator.advance(0)
    cluster.operator.advance(5)
    assert pods(cluster, "-small-") == []
    assert len(pods(cluster, "-head-")) == 1
    cluster.operator.advance(45)
    assert cluster.store.list(RAY_JOB) == []
    assert cluster.operator.ray.stopped == []
