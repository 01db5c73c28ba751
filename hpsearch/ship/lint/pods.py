"""Every pod that manifests lead to, as it will run: with what KubeRay's operator adds to its templates.

Source: KubeRay 1.7.0, common/pod.go and job.go: the token's variables, shared memory, /tmp/ray, the container
that waits for the head, the autoscaler, the default submitter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hpsearch.ship.lint.finding import Path
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.ray_objects import K8S_JOB, RayCluster, RayJob
from hpsearch.ship.lint.shape import dig, mapping, maps, sequence, text

# How messages name the container that the operator makes after the first one of a worker.
COPIED = "added by KubeRay like the first"
HEAD, WORKER, SUBMITTER, OTHER = "head", "worker", "submitter", "pod"
RAY_ROLES = (HEAD, WORKER, SUBMITTER)
# Volumes that the operator adds; nobody can say how large its logs' one may become.
SHARED_MEMORY, RAY_LOGS = "shared-mem", "ray-logs"
LISTS = ("initContainers", "containers", "ephemeralContainers")
TEMPLATE_AT: dict[tuple[str, str], Path] = {
    ("", "PodTemplate"): ("template",),
    ("", "ReplicationController"): ("spec", "template"),
    ("apps", "DaemonSet"): ("spec", "template"),
    ("apps", "Deployment"): ("spec", "template"),
    ("apps", "ReplicaSet"): ("spec", "template"),
    ("apps", "StatefulSet"): ("spec", "template"),
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
    ("batch", "Job"): ("spec", "template"),
}
# What the operator gives its own submitter (a tag of the cluster's image, no security context).
_SUBMITTER_RESOURCES = {
    "limits": {"cpu": "1", "memory": "1Gi"},
    "requests": {"cpu": "500m", "memory": "200Mi"},
}
_AUTOSCALER_RESOURCES = {
    "limits": {"cpu": "500m", "memory": "512Mi"},
    "requests": {"cpu": "500m", "memory": "512Mi"},
}


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a pod; `path` leads to it, or to what makes the operator add it."""

    path: Path
    value: dict[str, Any] = field(repr=False)
    added: str = ""

    @property
    def named(self) -> str:
        """How messages name it."""
        name = text(self.value, "name") or "?"
        return f"container {name!r}{f' ({self.added})' if self.added else ''}"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as it will run. `path` is that of its spec in the manifest, `labels` those that it will have."""

    manifest: Manifest
    role: str
    path: Path
    spec: dict[str, Any] = field(repr=False)
    labels: dict[str, str] = field(repr=False)
    annotations: dict[str, Any] = field(repr=False)
    added: tuple[Container, ...] = ()
    cluster: RayCluster | None = field(default=None, repr=False)
    job: RayJob | None = field(default=None, repr=False)

    @property
    def security(self) -> dict[str, Any]:
        """The security context of the whole pod."""
        return mapping(self.spec, "securityContext")

    @property
    def containers(self) -> list[Container]:
        """All its containers, those that start it and those that the operator adds too."""
        own = [
            Container((*self.path, name, place), container)
            for name in LISTS
            for place, container in maps(self.spec, name)
        ]
        return own + list(self.added)

    @property
    def main(self) -> dict[str, Any]:
        """Its first container, which in Ray's pods is Ray's."""
        return mapping(self.spec, "containers", 0)


def pods_of(manifest: Manifest, job: RayJob | None, cluster: RayCluster | None) -> Iterator[Pod]:
    """The pods that an object leads to."""
    if manifest.is_ray:
        if cluster is not None:
            yield from _of_cluster(manifest, cluster, job)
        if job is not None:
            yield from _submitter(manifest, job)
        return
    if manifest.api == "v1" and manifest.kind == "Pod":
        yield _pod(manifest, OTHER, (), mapping(manifest.value))
    elif at := TEMPLATE_AT.get((manifest.group, manifest.kind)):
        yield _pod(manifest, OTHER, at, mapping(manifest.value, *at))


def _pod(manifest: Manifest, role: str, at: Path, template: dict[str, Any], **more: Any) -> Pod:
    labels = {
        key: value for key, value in mapping(template, "metadata", "labels").items() if isinstance(value, str)
    }
    return Pod(
        manifest,
        role,
        (*at, "spec"),
        mapping(template, "spec"),
        labels | more.pop("labels", {}),
        mapping(template, "metadata", "annotations"),
        **more,
    )


def _of_cluster(manifest: Manifest, cluster: RayCluster, job: RayJob | None) -> Iterator[Pod]:
    head: Path = (*cluster.base, "headGroupSpec", "template")
    template = _with_added(mapping(cluster.head, "template"), cluster)
    added = [_autoscaler(cluster)] if cluster.autoscaling else []
    labels = _labels(manifest, "head", "headgroup")
    yield _pod(manifest, HEAD, head, template, labels=labels, added=tuple(added), cluster=cluster, job=job)
    for place, group in cluster.groups:
        at: Path = (*cluster.base, "workerGroupSpecs", place, "template")
        template = _with_added(mapping(group, "template"), cluster)
        labels = _labels(manifest, "worker", text(group, "groupName"))
        wait = _waiting(template, at)
        yield _pod(manifest, WORKER, at, template, labels=labels, added=wait, cluster=cluster, job=job)


def _labels(manifest: Manifest, node: str, group: str) -> dict[str, str]:
    """What the operator writes on Ray's pods, but for the cluster's name, which a job's is given later."""
    found = {
        "ray.io/is-ray-node": "yes",
        "ray.io/node-type": node,
        "ray.io/group": group,
        "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/created-by": "kuberay-operator",
    }
    if manifest.kind == "RayCluster":
        return found | {"ray.io/cluster": manifest.name}
    return found | {
        "ray.io/originated-from-cr-name": manifest.name,
        "ray.io/originated-from-crd": "RayJob" if manifest.kind == "RayCronJob" else manifest.kind,
    }


def _with_added(template: dict[str, Any], cluster: RayCluster) -> dict[str, Any]:
    """A template with the variables and volumes that the operator adds to the Ray container."""
    containers = sequence(template, "spec", "containers")
    if not containers or not isinstance(containers[0], dict):
        return template
    # Copies along the way to what is changed; the manifest stays as it is.
    container = dict(containers[0])
    template = {**template, "spec": {**template["spec"], "containers": [container, *containers[1:]]}}
    if text(cluster.spec, "authOptions", "mode") == "token":
        secret = text(cluster.spec, "authOptions", "secretName") or cluster.manifest.name
        place = {"secretKeyRef": {"name": secret, "key": "auth_token"}}
        container["env"] = [
            *sequence(container, "env"),
            {"name": "RAY_AUTH_MODE", "value": "token"},
            {"name": "RAY_AUTH_TOKEN", "valueFrom": place},
        ]
    memory = mapping(container, "resources", "limits").get("memory")
    shared = {"name": SHARED_MEMORY, "emptyDir": {"medium": "Memory", "sizeLimit": memory or "0"}}
    _mount(template["spec"], container, shared, "/dev/shm")
    if cluster.autoscaling:
        _mount(template["spec"], container, {"name": RAY_LOGS, "emptyDir": {}}, "/tmp/ray")
    return template


def _mount(spec: dict[str, Any], container: dict[str, Any], volume: dict[str, Any], at: str) -> None:
    """Add a volume as the operator does: not where something is mounted already."""
    mounts = sequence(container, "volumeMounts")
    if not any(dig(mount, "mountPath") == at for mount in mounts):
        container["volumeMounts"] = [*mounts, {"name": volume["name"], "mountPath": at}]
        spec["volumes"] = [*sequence(spec, "volumes"), volume]


def _waiting(template: dict[str, Any], at: Path) -> tuple[Container, ...]:
    """The init container of a worker, with the first container's image, resources and security context."""
    container = mapping(template, "spec", "containers", 0)
    taken = ("image", "imagePullPolicy", "securityContext", "env", "volumeMounts")
    value = {key: container[key] for key in taken if key in container}
    value |= {"name": "wait-gcs-ready", "resources": {"limits": {"cpu": "200m", "memory": "256Mi"}}}
    return (Container((*at, "spec", "containers", 0), value, COPIED),)


def _autoscaler(cluster: RayCluster) -> Container:
    options = mapping(cluster.spec, "autoscalerOptions")
    image = text(options, "image") or dig(cluster.head, "template", "spec", "containers", 0, "image")
    value: dict[str, Any] = {
        key: options[key] for key in ("securityContext", "env", "envFrom", "volumeMounts") if key in options
    }
    value |= {
        "name": "autoscaler",
        "image": image,
        "resources": options.get("resources") or _AUTOSCALER_RESOURCES,
    }
    return Container((*cluster.base, "autoscalerOptions"), value, "added by KubeRay")


def _submitter(manifest: Manifest, job: RayJob) -> Iterator[Pod]:
    """The pod that submits in K8sJobMode: the template of ours, or the operator's own."""
    if job.mode != K8S_JOB:
        return
    at: Path = (*job.base, "submitterPodTemplate")
    labels = {
        "ray.io/originated-from-cr-name": manifest.name,
        "ray.io/originated-from-crd": "RayJob",
        "app.kubernetes.io/created-by": "kuberay-operator",
        "batch.kubernetes.io/job-name": manifest.name,
        "job-name": manifest.name,
    }
    template = dig(job.spec, "submitterPodTemplate")
    if isinstance(template, dict):
        yield _pod(manifest, SUBMITTER, at, template, labels=labels, cluster=job.cluster, job=job)
        return
    image = dig(job.cluster.head, "template", "spec", "containers", 0, "image") if job.cluster else None
    value = {"name": "ray-job-submitter", "image": image, "resources": _SUBMITTER_RESOURCES}
    added = (Container(at, value, "KubeRay's own submitter"),)
    yield _pod(manifest, SUBMITTER, at, {}, labels=labels, added=added, cluster=job.cluster, job=job)
