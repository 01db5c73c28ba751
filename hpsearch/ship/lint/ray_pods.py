"""What the pods of a Ray cluster must have: memory, time to end, a place to stay, their own shared memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hpsearch.ship.job import Gi
from hpsearch.ship.lint.finding import Fault, Level, Path
from hpsearch.ship.lint.kuberay_clusters import GROUPS, HEAD
from hpsearch.ship.lint.names import quantity
from hpsearch.ship.lint.ray_objects import RayCluster
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import dig, mapping, maps, sequence, text, whole

HEAD_POD: Path = (HEAD, "template", "spec")
HEAD_MEMORY = 8 * Gi
STAY = ("cluster-autoscaler.kubernetes.io/safe-to-evict", "karpenter.sh/do-not-disrupt")
RAY_PODS: Rulebook[RayCluster, Fault] = Rulebook("ray", "this project's rules for Ray on Kubernetes")


def groups_of(cluster: RayCluster) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """Head and worker groups, each with its path and name."""
    yield (HEAD,), "head", cluster.head
    for place, group in cluster.groups:
        yield (GROUPS, place), text(group, "groupName"), group


@RAY_PODS.rule(
    "head-memory",
    "The head has 8Gi or more: 2 to 5Gi is where reports of lost heads come from.",
    "set its requests and limits of memory to 8Gi",
    level=Level.WARNING,
)
def head_memory(cluster: RayCluster) -> Iterator[Fault]:
    at: Path = (*HEAD_POD, "containers", 0, "resources", "limits", "memory")
    given = quantity(dig(cluster.spec, *at))
    if given is not None and given < HEAD_MEMORY:
        yield Fault(at, f"a head with {dig(cluster.spec, *at)} of memory")


@RAY_PODS.rule(
    "head-guaranteed",
    "The head's requests are its limits, so that it is the last pod to be evicted.",
    "write requests equal to limits",
    level=Level.WARNING,
)
def head_guaranteed(cluster: RayCluster) -> Iterator[Fault]:
    at: Path = (*HEAD_POD, "containers", 0, "resources")
    given = mapping(cluster.spec, *at)
    limits, requests = mapping(given, "limits"), mapping(given, "requests")
    # What requests do not name, Kubernetes takes from the limits.
    for name in ("cpu", "memory"):
        if name in limits and name in requests and quantity(limits[name]) != quantity(requests[name]):
            yield Fault(
                (*at, "requests", name),
                f"requests {requests[name]} of {name}, and the limit is {limits[name]}",
            )


@RAY_PODS.rule(
    "head-stays",
    "No autoscaler of nodes moves the head.",
    f'set the annotations {STAY[0]}: "false" and {STAY[1]}: "true"',
    level=Level.WARNING,
)
def head_stays(cluster: RayCluster) -> Iterator[Fault]:
    given = mapping(cluster.head, "template", "metadata", "annotations")
    if given.get(STAY[0]) != "false" or given.get(STAY[1]) != "true":
        yield Fault(
            (HEAD, "template", "metadata", "annotations"), "a node's autoscaler may remove the head's node"
        )


@RAY_PODS.rule(
    "object-store",
    "Shared memory counts against a pod's memory, and Ray takes a third of it unless told.",
    "set rayStartParams.object-store-memory low",
    level=Level.WARNING,
)
def object_store(cluster: RayCluster) -> Iterator[Fault]:
    for path, name, group in groups_of(cluster):
        given = dig(group, "rayStartParams", "object-store-memory")
        limit = quantity(dig(group, "template", "spec", "containers", 0, "resources", "limits", "memory"))
        at = (*path, "rayStartParams", "object-store-memory")
        if given is None:
            yield Fault(at, f"group {name} leaves the size of shared memory to Ray")
        elif limit and isinstance(given, str) and given.isdigit() and int(given) * 2 > limit:
            yield Fault(at, f"group {name} gives more than half of its memory to shared memory")


@RAY_PODS.rule(
    "probes",
    "Ray's containers have no probes of their own: the operator's ask what is right.",
    "remove them",
    level=Level.WARNING,
)
def probes(cluster: RayCluster) -> Iterator[Fault]:
    for path, name, container in cluster.containers():
        for probe in ("livenessProbe", "readinessProbe"):
            if container.get(probe) is not None:
                yield Fault((*path, probe), f"group {name} has a {probe} of its own")


@RAY_PODS.rule(
    "grace",
    "Ray's pods have time to end: hooks, a checkpoint, Ray's own farewell.",
    "set terminationGracePeriodSeconds: 90",
)
def grace(cluster: RayCluster) -> Iterator[Fault]:
    for path, name, group in groups_of(cluster):
        spec = mapping(group, "template", "spec")
        hook = dig(spec, "containers", 0, "lifecycle", "preStop") is not None
        seconds = whole(spec, "terminationGracePeriodSeconds")
        if seconds is None or seconds < 60:
            given = "30 s (the default)" if seconds is None else f"{seconds} s"
            level = Level.ERROR if hook else Level.WARNING
            at = (*path, "template", "spec", "terminationGracePeriodSeconds")
            yield Fault(at, f"pods of group {name} are killed after {given}", level)


@RAY_PODS.rule(
    "prestop",
    "No hook ends the Ray job by `ray job stop`: it ends as Complete, and is never retried.",
    "use preStop: {exec: {command: [hpsearch, stop, --here]}}, which signals the driver by its pid",
    source="trap: the driver gets no SIGTERM",
)
def prestop(cluster: RayCluster) -> Iterator[Fault]:
    for path, name, container in cluster.containers():
        words = sequence(container, "lifecycle", "preStop", "exec", "command")
        if re.search(r"\bray\s+job\s+stop\b|/api/jobs/[^ ]*/stop", " ".join(map(str, words))):
            yield Fault(
                (*path, "lifecycle", "preStop"), f"the hook of group {name} stops the Ray job for good"
            )


@RAY_PODS.rule(
    "ephemeral-storage",
    "Local disk has a limit.",
    "set resources.limits.ephemeral-storage",
    level=Level.WARNING,
)
def ephemeral_storage(cluster: RayCluster) -> Iterator[Fault]:
    for path, name, container in cluster.containers():
        if quantity(dig(container, "resources", "limits", "ephemeral-storage")) is None:
            at = (*path, "resources", "limits", "ephemeral-storage")
            yield Fault(at, f"group {name} has no limit of local disk: logs and scratch may fill its node")


@RAY_PODS.rule(
    "gpu-limits",
    "GPUs are limits, alone or equal to the requests.",
    "write nvidia.com/gpu under limits",
    source="Kubernetes, extended resources",
)
def gpu_limits(cluster: RayCluster) -> Iterator[Fault]:
    for path, name, container in cluster.containers():
        limits = mapping(container, "resources", "limits")
        for key, wanted in mapping(container, "resources", "requests").items():
            if key.endswith("/gpu") and str(limits.get(key)) != str(wanted):
                said = f"group {name} requests {wanted} of {key}, and its limit is {limits.get(key)}"
                yield Fault((*path, "resources", "requests", key), said)


@RAY_PODS.rule(
    "unused",
    "Each volume of Ray's pods is mounted.",
    "mount it, or remove it",
    level=Level.WARNING,
)
def unused(cluster: RayCluster) -> Iterator[Fault]:
    options = [mapping(cluster.spec, "autoscalerOptions")]
    for path, _, group in groups_of(cluster):
        spec = mapping(group, "template", "spec")
        users = [c for key in ("containers", "initContainers") for _, c in maps(spec, key)] + options
        mounted = {text(mount, "name") for user in users for _, mount in maps(user, "volumeMounts")}
        for place, volume in maps(spec, "volumes"):
            if text(volume, "name") not in mounted:
                at = (*path, "template", "spec", "volumes", place)
                yield Fault(at, f"the volume {shown(volume.get('name'))} is mounted nowhere")
