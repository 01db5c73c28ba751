"""What a cluster does with Jobs, RayClusters and pods: the parts that the simulated operator builds on."""

from __future__ import annotations

import base64
import itertools
import secrets
from typing import Any

from kube_kinds import JOB, POD, RAY_CLUSTER, SECRET, Kind
from kube_parts import owner_of, ray_pod
from kube_ray import Pods
from kube_store import Rejected, Store

Json = dict[str, Any]
ENDED = ("Succeeded", "Failed")


class Controllers:
    """Plays the Job controller, the cluster part of KubeRay, and the kubelets."""

    def __init__(self, store: Store, pods: Pods) -> None:
        self.store, self.pods = store, pods
        self._known: dict[str, Json] = {}
        self._suffixes = (f"{number:05x}" for number in itertools.count(0xBC0DE))

    def suffix(self) -> str:
        return next(self._suffixes)

    def step(self) -> None:
        """One look at everything."""
        for cluster in self.store.list(RAY_CLUSTER):
            self._cluster(cluster)
        for job in self.store.list(JOB):
            self._job(job)
        self._kubelets()

    def set_status(self, kind: Kind, found: Json, status: Json) -> None:
        """Write a status where it differs; an object that is gone meanwhile is none of ours."""
        meta = found["metadata"]
        if status != (found.get("status") or {}):
            try:
                self.store.replace(kind, meta["namespace"], meta["name"], {"status": status}, "status")
            except Rejected as rejected:
                assert rejected.code == 404, rejected

    # -- pods ---------------------------------------------------------------------------------------

    def _kubelets(self) -> None:
        there = {pod["metadata"]["uid"]: pod for pod in self.store.list(POD)}
        for uid in [uid for uid in self._known if uid not in there]:
            self.pods.stopped(self._known.pop(uid))
        for uid, pod in there.items():
            if uid not in self._known:
                self._known[uid] = pod
                self.pods.started(pod)
            if (pod.get("status") or {}).get("phase") not in ENDED:
                self.set_status(POD, pod, {**(pod.get("status") or {}), "phase": self.pods.phase(pod)})

    def _pod(self, name: str, owner: Json, template: Json, labels: dict[str, str]) -> None:
        meta = dict(template.get("metadata") or {})
        labels = (meta.get("labels") or {}) | labels
        meta |= {"name": name, "labels": labels, "ownerReferences": [owner_of(owner)]}
        self.store.create(POD, owner["metadata"]["namespace"], {"metadata": meta, "spec": template["spec"]})

    def _owned(self, owner: Json) -> list[Json]:
        uid = owner["metadata"]["uid"]
        of = self.store.list(POD, owner["metadata"]["namespace"])
        return [pod for pod in of if any(o["uid"] == uid for o in pod["metadata"].get("ownerReferences", ()))]

    # -- Jobs ---------------------------------------------------------------------------------------

    def _job(self, job: Json) -> None:
        spec, status = job["spec"], dict(job.get("status") or {})
        if status.get("conditions") or spec.get("suspend"):
            return
        phases = [(pod.get("status") or {}).get("phase", "Pending") for pod in self._owned(job)]
        failed = phases.count("Failed")
        status |= {"failed": failed} if failed else {}
        if "Succeeded" in phases:
            status |= {"succeeded": 1, "conditions": [self._condition("Complete", "")]}
        elif failed > spec.get("backoffLimit", 6):
            status["conditions"] = [self._condition("Failed", "BackoffLimitExceeded")]
        elif all(phase in ENDED for phase in phases):
            name = job["metadata"]["name"]
            labels = {"batch.kubernetes.io/job-name": name, "job-name": name}
            self._pod(f"{name}-{self.suffix()}", job, spec["template"], labels)
        self.set_status(JOB, job, status)

    def _condition(self, kind: str, reason: str) -> Json:
        return {
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": "",
            "lastTransitionTime": self.store.stamp(),
        }

    # -- clusters -----------------------------------------------------------------------------------

    def _cluster(self, cluster: Json) -> None:
        """Make the pods that are missing, and say whether all of them run."""
        name, spec = cluster["metadata"]["name"], cluster["spec"]
        pods = self._owned(cluster)
        if (spec.get("authOptions") or {}).get("mode") == "token":
            self._token(cluster)
        groups = [("head", 1, ray_pod(cluster, spec["headGroupSpec"], head=True))]
        for group in spec.get("workerGroupSpecs") or ():
            count = 0 if group.get("suspend") else group.get("replicas") or group.get("minReplicas") or 0
            groups.append((group["groupName"], count, ray_pod(cluster, group)))
        for group, count, template in groups:
            mine = [pod for pod in pods if pod["metadata"]["labels"]["ray.io/group"] == group]
            for pod in mine[count:]:
                self.store.delete(POD, pod["metadata"]["namespace"], pod["metadata"]["name"])
            for _ in range(count - len(mine)):
                kind = "head" if group == "head" else "worker"
                labels = {"ray.io/cluster": name, "ray.io/group": group, "ray.io/node-type": kind}
                self._pod(f"{name}-{group}-{self.suffix()}", cluster, template, labels)
        self._say_how_it_is(cluster, sum(count for _, count, _ in groups))

    def _token(self, cluster: Json) -> None:
        """The Secret that a cluster's Ray processes show each other, unless it is somebody else's."""
        meta = cluster["metadata"]
        theirs = cluster["spec"]["authOptions"].get("secretName")
        if not theirs and not self.store.find(SECRET, meta["namespace"], meta["name"]):
            data = {"auth_token": base64.b64encode(secrets.token_hex(32).encode()).decode()}
            named = {"name": meta["name"], "ownerReferences": [owner_of(cluster)]}
            self.store.create(SECRET, meta["namespace"], {"metadata": named, "data": data})

    def _say_how_it_is(self, cluster: Json, wanted: int) -> None:
        running = [p for p in self._owned(cluster) if (p.get("status") or {}).get("phase") == "Running"]
        heads = [p for p in running if p["metadata"]["labels"]["ray.io/node-type"] == "head"]
        before = dict(cluster.get("status") or {})
        ready = self._condition("HeadPodReady", "HeadPodRunningAndReady" if heads else "HeadPodNotFound")
        ready["status"] = "True" if heads else "False"
        for old in before.get("conditions", ()):
            ready = old if old["status"] == ready["status"] else ready
        status: Json = {"conditions": [ready], "availableWorkerReplicas": len(running) - len(heads)}
        if heads:
            status["head"] = {"podName": heads[0]["metadata"]["name"]}
        if before.get("state") == "ready" or (heads and len(running) >= wanted):
            status["state"] = "ready"
        self.set_status(RAY_CLUSTER, cluster, status)
