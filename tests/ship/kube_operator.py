"""Plays KubeRay 1.7 on the fake API server: the life of RayJobs from their stored objects, on a fake clock.

Source of the rules: its `rayjob_controller.go`, also where that surprises: a submitter is known by the name
of the RayJob alone, and one that ends early ends the sweep.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from kube_controllers import Controllers
from kube_kinds import JOB, RAY_CLUSTER, RAY_JOB
from kube_parts import cluster_of, problems, submitter_of
from kube_ray import TERMINAL, Clock, Down, PlayedPods, PlayedRay, Pods, Ray
from kube_store import Store

Json = dict[str, Any]
FINALIZER = "ray.io/rayjob-finalizer"
# Seconds: for a submitter that ended before its job, a job that did before its submitter, a silent head.
SUBMITTER_GRACE, TRANSITION_GRACE, CHECK_TIMEOUT = 30, 300, 300
GRACE_EXCEEDED = "JobDeploymentStatusTransitionGracePeriodExceeded"
NOT_RETRIED = ("DeadlineExceeded", "JobStatusCheckTimeoutExceeded")
RESET = ("rayClusterStatus", "rayClusterName", "dashboardURL", "jobId", "message", "reason", "rayJobInfo")
# A store that never comes to rest is a bug of this simulator.
STEPS = 100


class Operator:
    """Reconciles what the store holds; `advance` moves time, `settle` lets everything happen that is due."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ray: Ray | None = None,
        pods: Pods | None = None,
        validate: Callable[[Json], list[str]] = problems,
    ) -> None:
        self.store, self.clock, self.validate = store, clock, validate
        self.ray: Any = ray or PlayedRay()
        self.pods: Any = pods or PlayedPods(self.ray, self.cluster_of_submitter)
        store.now = clock.now
        self._controllers = Controllers(store, self.pods)
        self._busy = threading.RLock()

    def settle(self) -> None:
        """Let everything happen that happens without time passing."""
        with self._busy:
            for _ in range(STEPS):
                before = self.store.version
                self._controllers.step()
                for rayjob in self.store.list(RAY_JOB):
                    self._reconcile(rayjob)
                if self.store.version == before:
                    return
        raise AssertionError(f"no rest after {STEPS} steps")

    def advance(self, seconds: float) -> None:
        with self._busy:
            self.clock.advance(seconds)
            self.settle()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """On a thread of its own, whenever something changes."""
        ended = threading.Event()
        failed: list[BaseException] = []

        def work() -> None:
            seen = -1
            try:
                while not ended.is_set():
                    with self.store.changed:
                        if self.store.version == seen:
                            self.store.changed.wait(0.1)
                        seen = self.store.version
                    self.settle()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=work, name="operator")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        assert not failed, failed

    def cluster_of_submitter(self, pod: Json) -> Json | None:
        """The cluster that a submitter's pod talks to."""
        name = pod["metadata"]["labels"]["job-name"]
        rayjob = self.store.find(RAY_JOB, pod["metadata"]["namespace"], name)
        return self._cluster(rayjob) if rayjob else None

    # -- one RayJob ---------------------------------------------------------------------------------

    def _reconcile(self, rayjob: Json) -> None:
        meta, status = rayjob["metadata"], copy.deepcopy(rayjob.get("status") or {})
        if meta.get("deletionTimestamp"):
            return self._farewell(rayjob)
        phase = status.get("jobDeploymentStatus", "")
        steps: dict[str, Callable[[Json, Json], None]] = {
            "": self._new,
            "Initializing": self._initializing,
            "Waiting": self._waiting,
            "Running": self._running,
            "Suspending": self._clear,
            "Retrying": self._clear,
            "Suspended": self._suspended,
            "Complete": self._ended,
            "Failed": self._ended,
        }
        if phase not in steps:
            return None  # ValidationFailed is final
        steps[phase](rayjob, status)
        now = status.get("jobDeploymentStatus", "")
        if phase != now and now in ("Complete", "Failed"):
            self._count(rayjob, status)
        return self._controllers.set_status(RAY_JOB, rayjob, status)

    def _count(self, rayjob: Json, status: Json) -> None:
        """Count the attempt, and try again where some are left."""
        status["endTime"] = self.store.stamp()
        if status["jobDeploymentStatus"] == "Complete":
            status["succeeded"] = status.get("succeeded", 0) + (status.get("jobStatus") == "SUCCEEDED")
            return
        status["failed"] = status.get("failed", 0) + 1
        limit = rayjob["spec"].get("backoffLimit") or 0
        if status["failed"] <= limit and status.get("reason") not in NOT_RETRIED:
            status["jobDeploymentStatus"] = "Retrying"

    def _farewell(self, rayjob: Json) -> None:
        """Ask Ray once to stop, and let go of the object whatever it answers."""
        meta, status = rayjob["metadata"], rayjob.get("status") or {}
        if FINALIZER not in meta.get("finalizers", ()):
            return
        cluster = self._cluster(rayjob)
        if cluster and status.get("jobStatus", "") not in TERMINAL:
            with contextlib.suppress(Down):
                self.ray.stop(cluster, status.get("jobId", ""))
        rest = [each for each in meta["finalizers"] if each != FINALIZER]
        self.store.patch(RAY_JOB, meta["namespace"], meta["name"], {"metadata": {"finalizers": rest}})

    def _new(self, rayjob: Json, status: Json) -> None:
        meta, spec = rayjob["metadata"], rayjob["spec"]
        if found := self.validate(rayjob):
            status |= {"jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed"}
            status["message"] = "; ".join(found)
            return
        if FINALIZER not in meta.get("finalizers", ()):
            finalizers = {"finalizers": [*meta.get("finalizers", ()), FINALIZER]}
            self.store.patch(RAY_JOB, meta["namespace"], meta["name"], {"metadata": finalizers})
        selected = (spec.get("clusterSelector") or {}).get("ray.io/cluster")
        status["rayClusterName"] = selected or f"{meta['name']}-{self._controllers.suffix()}"
        status["jobId"] = spec.get("jobId") or f"{meta['name']}-{self._controllers.suffix()}"
        status |= {"jobDeploymentStatus": "Initializing", "jobStatus": "", "startTime": self.store.stamp()}
        status.pop("endTime", None)

    def _initializing(self, rayjob: Json, status: Json) -> None:
        spec = rayjob["spec"]
        if self._left_early(rayjob, status):
            return
        if self._passed(status["startTime"], spec.get("preRunningDeadlineSeconds")):
            _fail(status, "PreRunningDeadlineExceeded", "the RayJob has passed preRunningDeadlineSeconds")
            return
        cluster = self._cluster(rayjob) or self._make_cluster(rayjob, status)
        status["rayClusterStatus"] = cluster.get("status") or {}
        if status["rayClusterStatus"].get("state") != "ready":
            return
        status["dashboardURL"] = f"{status['rayClusterName']}-head-svc:8265"
        mode = spec.get("submissionMode", "K8sJobMode")
        if mode == "InteractiveMode":
            status["jobDeploymentStatus"] = "Waiting"
            return
        if mode == "K8sJobMode":
            self._submitter(rayjob, status)
        status["jobDeploymentStatus"] = "Running"

    def _waiting(self, rayjob: Json, status: Json) -> None:
        if job_id := rayjob["spec"].get("jobId"):
            status |= {"jobId": job_id, "jobDeploymentStatus": "Running"}

    def _running(self, rayjob: Json, status: Json) -> None:
        if self._left_early(rayjob, status):
            return
        done: str | None = None
        ours = rayjob["spec"].get("submissionMode", "K8sJobMode") == "K8sJobMode"
        if ours:
            job = self.store.find(JOB, rayjob["metadata"]["namespace"], rayjob["metadata"]["name"])
            if job is None:
                return
            for condition in (job.get("status") or {}).get("conditions", ()):
                done = condition["lastTransitionTime"]
                if condition["type"] == "Failed":
                    reason = "AppFailed" if status.get("jobStatus") == "FAILED" else "SubmissionFailed"
                    _fail(status, reason, f"Job submission has failed. Reason: {condition['reason']}")
                    return
        since = status["rayJobInfo"]["endTime"] if status.get("jobStatus") in TERMINAL else None
        if self._passed(since, TRANSITION_GRACE):
            status["jobDeploymentStatus"] = "Failed" if status["jobStatus"] == "FAILED" else "Complete"
            status["reason"] = GRACE_EXCEEDED
            return
        self._look_at_ray(rayjob, status)
        ended = status.get("jobStatus") in TERMINAL
        if ended and (done or not ours) and status["jobDeploymentStatus"] == "Running":
            failed = status["jobStatus"] == "FAILED"
            status["jobDeploymentStatus"] = "Failed" if failed else "Complete"
            status["reason"] = "AppFailed" if failed else ""
        elif not ended and ours and self._passed(done, SUBMITTER_GRACE):
            _fail(status, GRACE_EXCEEDED, "the submitter has ended and the Ray job has not")

    def _look_at_ray(self, rayjob: Json, status: Json) -> None:
        """Take over what Ray says of the job. An unknown id is no answer, and no silence either."""
        cluster = self._cluster(rayjob) or self._make_cluster(rayjob, status)
        status["rayClusterStatus"] = cluster.get("status") or {}
        try:
            found = self.ray.job(cluster, status["jobId"])
            if found is None:
                if rayjob["spec"].get("submissionMode") == "HTTPMode":
                    self.ray.submit(cluster, status["jobId"], rayjob["spec"].get("entrypoint", ""))
                return
        except Down:
            since = status.setdefault("jobStatusCheckFailureStartTime", self.store.stamp())
            if self._passed(since, CHECK_TIMEOUT):
                _fail(status, "JobStatusCheckTimeoutExceeded", "the status of the Ray job cannot be read")
            return
        status.pop("jobStatusCheckFailureStartTime", None)
        status["jobStatus"], status["message"] = found
        if found[0] in TERMINAL:
            status.setdefault("rayJobInfo", {"endTime": self.store.stamp()})

    def _left_early(self, rayjob: Json, status: Json) -> bool:
        """Suspended, or past the deadline: neither stops the Ray job."""
        if rayjob["spec"].get("suspend"):
            status["jobDeploymentStatus"] = "Suspending"
            return True
        if self._passed(status["startTime"], rayjob["spec"].get("activeDeadlineSeconds")):
            _fail(status, "DeadlineExceeded", "The RayJob has passed the activeDeadlineSeconds.")
            return True
        return False

    def _clear(self, rayjob: Json, status: Json) -> None:
        """Delete cluster and submitter, whoever made them, and begin again once both are gone."""
        namespace, name = rayjob["metadata"]["namespace"], rayjob["metadata"]["name"]
        left = [(RAY_CLUSTER, status.get("rayClusterName", "")), (JOB, name)]
        for kind, each in left:
            found = self.store.find(kind, namespace, each)
            if found and not found["metadata"].get("deletionTimestamp"):
                self.store.delete(kind, namespace, each)
        if any(self.store.find(kind, namespace, each) for kind, each in left):
            return
        suspended = status["jobDeploymentStatus"] == "Suspending"
        for field in RESET:
            status.pop(field, None)
        status |= {"jobStatus": "", "jobDeploymentStatus": "Suspended" if suspended else ""}

    def _suspended(self, rayjob: Json, status: Json) -> None:
        if not rayjob["spec"].get("suspend"):
            status |= {"jobStatus": "", "jobDeploymentStatus": ""}

    def _ended(self, rayjob: Json, status: Json) -> None:
        """What is deleted after the end, and when. No rule fits a stopped job."""
        spec = rayjob["spec"]
        rules = list((spec.get("deletionStrategy") or {}).get("deletionRules") or ())
        if spec.get("shutdownAfterJobFinishes") and not rules:
            ttl = {"ttlSeconds": spec.get("ttlSecondsAfterFinished") or 0}
            either = ({"jobDeploymentStatus": phase, **ttl} for phase in ("Complete", "Failed"))
            rules = [{"policy": "DeleteCluster", "condition": each} for each in either]
        for rule in rules:
            condition = rule["condition"]
            fits = condition.get("jobStatus") in (None, status.get("jobStatus")) and condition.get(
                "jobDeploymentStatus"
            ) in (None, status["jobDeploymentStatus"])
            if fits and self._passed(status["endTime"], condition.get("ttlSeconds", 0)):
                self._delete(rule["policy"], rayjob)

    def _delete(self, policy: str, rayjob: Json) -> None:
        namespace, cluster = rayjob["metadata"]["namespace"], self._cluster(rayjob)
        if policy == "DeleteSelf":
            self.store.delete(RAY_JOB, namespace, rayjob["metadata"]["name"])
        elif cluster and policy == "DeleteCluster":
            self.store.delete(RAY_CLUSTER, namespace, cluster["metadata"]["name"])
        elif cluster and policy == "DeleteWorkers":
            groups = [group | {"suspend": True} for group in cluster["spec"].get("workerGroupSpecs") or ()]
            name = cluster["metadata"]["name"]
            self.store.patch(RAY_CLUSTER, namespace, name, {"spec": {"workerGroupSpecs": groups}})

    # -- its parts ----------------------------------------------------------------------------------

    def _passed(self, since: str | None, seconds: int | None) -> bool:
        if not since or seconds is None:
            return False
        return (self.clock.now() - datetime.fromisoformat(since).astimezone(UTC)).total_seconds() >= seconds

    def _cluster(self, rayjob: Json) -> Json | None:
        name = (rayjob.get("status") or {}).get("rayClusterName", "")
        return self.store.find(RAY_CLUSTER, rayjob["metadata"]["namespace"], name)

    def _make_cluster(self, rayjob: Json, status: Json) -> Json:
        body = cluster_of(rayjob, status["rayClusterName"])
        return self.store.create(RAY_CLUSTER, rayjob["metadata"]["namespace"], body)

    def _submitter(self, rayjob: Json, status: Json) -> None:
        """The Job that submits: whatever Job has the RayJob's name already is taken for it."""
        meta = rayjob["metadata"]
        if not self.store.find(JOB, meta["namespace"], meta["name"]):
            self.store.create(JOB, meta["namespace"], submitter_of(rayjob, status))


def _fail(status: Json, reason: str, message: str) -> None:
    status |= {"jobDeploymentStatus": "Failed", "reason": reason, "message": message}
