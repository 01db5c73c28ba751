"""The kinds of objects that the fake API server knows, and how it tells clients of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
ALL_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


@dataclass(frozen=True)
class Kind:
    """One kind of object. `status`: its status is written through a path of its own."""

    group: str
    version: str
    plural: str
    name: str
    namespaced: bool = True
    status: bool = False
    short: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"

    @property
    def what(self) -> str:
        """As error messages name it: rayjobs.ray.io."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


KINDS = (
    Kind("", "v1", "namespaces", "Namespace", namespaced=False, status=True, short=("ns",)),
    Kind("", "v1", "pods", "Pod", status=True, short=("po",)),
    Kind("", "v1", "configmaps", "ConfigMap", short=("cm",)),
    Kind("", "v1", "secrets", "Secret"),
    Kind("", "v1", "serviceaccounts", "ServiceAccount", short=("sa",)),
    Kind("", "v1", "services", "Service", status=True, short=("svc",)),
    Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", status=True, short=("pvc",)),
    Kind("", "v1", "resourcequotas", "ResourceQuota", status=True, short=("quota",)),
    Kind("", "v1", "limitranges", "LimitRange", short=("limits",)),
    Kind("batch", "v1", "jobs", "Job", status=True),
    Kind("batch", "v1", "cronjobs", "CronJob", status=True, short=("cj",)),
    Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", short=("netpol",)),
    Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", status=True, short=("pdb",)),
    Kind("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    Kind("ray.io", "v1", "rayjobs", "RayJob", status=True),
    Kind("ray.io", "v1", "rayclusters", "RayCluster", status=True),
    Kind("ray.io", "v1", "raycronjobs", "RayCronJob", status=True),
    Kind("ray.io", "v1", "rayservices", "RayService", status=True),
)
NAMESPACE, POD, JOB, SECRET = (
    next(kind for kind in KINDS if kind.name == name) for name in ("Namespace", "Pod", "Job", "Secret")
)
RAY_JOB, RAY_CLUSTER = (
    next(kind for kind in KINDS if kind.name == name) for name in ("RayJob", "RayCluster")
)


def kind_of(body: Json) -> Kind:
    """The kind of an object that says which it is."""
    return next(k for k in KINDS if (k.api_version, k.name) == (body.get("apiVersion"), body.get("kind")))


def discovery(path: str, address: str) -> Json | None:
    """What clients read first, to learn which paths there are; None for a path that is not of these."""
    groups = sorted({(kind.group, kind.version) for kind in KINDS if kind.group})
    found: dict[str, Json] = {
        "/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.0", "platform": "linux/amd64"},
        "/api": {
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
        },
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*each) for each in groups]},
        "/openapi/v3": {
            "paths": {_relative(root): {"serverRelativeURL": f"/openapi/v3{root}"} for root in ROOTS}
        },
    }
    for group, version in groups:
        found[f"/apis/{group}"] = {"kind": "APIGroup", "apiVersion": "v1", **_group(group, version)}
    for root in ROOTS:
        found[root] = _resources(root)
        found[f"/openapi/v3{root}"] = _openapi(root)
    return found.get(path.rstrip("/"))


ROOTS = sorted({kind.root for kind in KINDS})


def _relative(root: str) -> str:
    return root.lstrip("/")


def _group(group: str, version: str) -> Json:
    one = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [one], "preferredVersion": one}


def _resources(root: str) -> Json:
    listed: list[Json] = []
    for kind in KINDS:
        if kind.root != root:
            continue
        same = {"singularName": kind.name.lower(), "namespaced": kind.namespaced, "kind": kind.name}
        listed.append({"name": kind.plural, **same, "verbs": ALL_VERBS, "shortNames": list(kind.short)})
        if kind.status:
            listed.append({"name": f"{kind.plural}/status", **same, "verbs": ["get", "patch", "update"]})
        if kind is POD:
            listed.append({"name": "pods/log", **same, "verbs": ["get"]})
    version = next(kind.api_version for kind in KINDS if kind.root == root)
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": listed}


def _openapi(root: str) -> Json:
    """Only what kubectl looks for: that the server itself checks the fields of what it is given."""
    paths: Json = {}
    for kind in KINDS:
        if kind.root != root:
            continue
        which = {"group": kind.group, "version": kind.version, "kind": kind.name}
        field = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
        operation = {"parameters": [field], "x-kubernetes-group-version-kind": which, "responses": {}}
        space = "/namespaces/{namespace}" if kind.namespaced else ""
        paths[f"{root}{space}/{kind.plural}/{{name}}"] = {"patch": operation}
    return {"openapi": "3.0.0", "info": {"title": "fake", "version": "v1"}, "paths": paths}
