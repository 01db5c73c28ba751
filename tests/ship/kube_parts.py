"""What the simulated operator makes of a RayJob, and what it finds wrong with one."""

from __future__ import annotations

import copy
from typing import Any

from kube_controllers import owner_of

from hpsearch.ship.lint.document import Document
from hpsearch.ship.lint.finding import Level
from hpsearch.ship.lint.kuberay_clusters import CLUSTERS
from hpsearch.ship.lint.kuberay_deletion import DELETION
from hpsearch.ship.lint.kuberay_jobs import JOBS
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.ray_objects import job_of

Json = dict[str, Any]


def problems(rayjob: Json) -> list[str]:
    """What the operator refuses in an object that the server has taken, by the port of its rules."""
    job = job_of(Manifest("RayJob", Document(rayjob), rayjob), rayjob, frozenset())
    assert job is not None
    checks = [(rule, job) for book in (JOBS, DELETION) for rule in book.rules.values()]
    checks += [(rule, job.cluster) for rule in CLUSTERS.rules.values() if job.cluster]
    refusing = [(rule, subject) for rule, subject in checks if rule.level is Level.ERROR]
    return [fault.message or rule.says for rule, subject in refusing for fault in rule.check(subject)]


def cluster_of(rayjob: Json, name: str) -> Json:
    """The RayCluster of an attempt."""
    meta = {
        "name": name,
        "labels": {**(rayjob["metadata"].get("labels") or {}), **_origin(rayjob)},
        "annotations": rayjob["metadata"].get("annotations") or {},
        "ownerReferences": [owner_of(rayjob)],
    }
    return {"metadata": meta, "spec": copy.deepcopy(rayjob["spec"]["rayClusterSpec"])}


def submitter_of(rayjob: Json, status: Json) -> Json:
    """The Job of an attempt's submitter: the template's own, with what tells it where to submit."""
    meta, spec = rayjob["metadata"], rayjob["spec"]
    template = copy.deepcopy(spec.get("submitterPodTemplate") or _default_submitter(spec))
    added = [
        {"name": "RAY_DASHBOARD_ADDRESS", "value": status["dashboardURL"]},
        {"name": "RAY_JOB_SUBMISSION_ID", "value": status["jobId"]},
    ]
    if auth := spec["rayClusterSpec"].get("authOptions"):
        secret = {"name": auth.get("secretName") or status["rayClusterName"], "key": "auth_token"}
        added.append({"name": "RAY_AUTH_MODE", "value": "token"})
        added.append({"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": secret}})
    first = template["spec"]["containers"][0]
    first["env"] = [*(first.get("env") or ()), *added]
    template["spec"].setdefault("restartPolicy", "Never")
    limit = (spec.get("submitterConfig") or {}).get("backoffLimit", 2)
    named = {"name": meta["name"], "labels": _origin(rayjob), "ownerReferences": [owner_of(rayjob)]}
    return {"metadata": named, "spec": {"backoffLimit": limit, "template": template}}


def _origin(rayjob: Json) -> dict[str, str]:
    name = rayjob["metadata"]["name"]
    return {"ray.io/originated-from-cr-name": name, "ray.io/originated-from-crd": "RayJob"}


def _default_submitter(spec: Json) -> Json:
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    return {"spec": {"restartPolicy": "Never", "containers": [{"name": "submitter", "image": head["image"]}]}}
