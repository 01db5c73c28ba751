"""What the simulated operator makes of a RayJob, and what it finds wrong with one."""

from __future__ import annotations

import copy
import math
from typing import Any

from hpsearch.ship.lint.document import Document
from hpsearch.ship.lint.finding import Level
from hpsearch.ship.lint.kuberay_clusters import CLUSTERS
from hpsearch.ship.lint.kuberay_deletion import DELETION
from hpsearch.ship.lint.kuberay_jobs import JOBS
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.names import quantity
from hpsearch.ship.lint.ray_objects import job_of

Json = dict[str, Any]
GCS_PORT = 6379


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


def ray_pod(cluster: Json, group: Json, *, head: bool = False) -> Json:
    """The pod template of a group as the operator fills it in: how Ray starts there, and the token."""
    template, name = copy.deepcopy(group["template"]), cluster["metadata"]["name"]
    first = template["spec"]["containers"][0]
    first["env"] = [*(first.get("env") or ()), *_token(cluster["spec"], name)]
    host = f"{name}-head-svc.{cluster['metadata']['namespace']}.svc.cluster.local"
    words = ["--head"] if head else [f"--address={host}:{GCS_PORT}"]
    words += [f"--{key}={value}" for key, value in sorted((group.get("rayStartParams") or {}).items())]
    words += _limits(first, group.get("rayStartParams") or {})
    words += ["--metrics-export-port=8080", "--dashboard-agent-listen-port=52365", "--block"]
    first["command"] = ["/bin/bash", "-c", "--"]
    first["args"] = [f"ulimit -n 65536; ray start {' '.join(words)}"]
    return template


def _limits(container: Json, given: Json) -> list[str]:
    """What Ray is told of a container's limits, unless it was told otherwise."""
    limits = (container.get("resources") or {}).get("limits") or {}
    found: Json = {}
    if "cpu" in limits:
        found["num-cpus"] = math.ceil(quantity(limits["cpu"]) or 0)
    if "memory" in limits:
        found["memory"] = round(quantity(limits["memory"]) or 0)
    if "nvidia.com/gpu" in limits:
        found["num-gpus"] = limits["nvidia.com/gpu"]
    return [f"--{key}={value}" for key, value in found.items() if key not in given]


def _token(spec: Json, cluster: str) -> list[Json]:
    auth = spec.get("authOptions") or {}
    if auth.get("mode") != "token":
        return []
    secret = {"name": auth.get("secretName") or cluster, "key": "auth_token"}
    return [
        {"name": "RAY_AUTH_MODE", "value": "token"},
        {"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": secret}},
    ]


def owner_of(found: Json) -> Json:
    """An object as the controlling owner of what is made for it."""
    meta = found["metadata"]
    return {
        "apiVersion": found["apiVersion"],
        "kind": found["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def submitter_of(rayjob: Json, status: Json) -> Json:
    """The Job of an attempt's submitter: the template's own, with what tells it where to submit."""
    meta, spec = rayjob["metadata"], rayjob["spec"]
    template = copy.deepcopy(spec.get("submitterPodTemplate") or _default_submitter(spec))
    added = [
        {"name": "RAY_DASHBOARD_ADDRESS", "value": status["dashboardURL"]},
        {"name": "RAY_JOB_SUBMISSION_ID", "value": status["jobId"]},
    ]
    added += _token(spec["rayClusterSpec"], status["rayClusterName"])
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
