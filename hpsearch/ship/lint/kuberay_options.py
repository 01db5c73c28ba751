"""What KubeRay's operator refuses in a cluster's options: fields behind gates, lost heads, TLS, policies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hpsearch.ship.lint.finding import TOP, Fault, Path
from hpsearch.ship.lint.names import DNS_1123
from hpsearch.ship.lint.ray_objects import RayCluster, variable
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.shape import dig, mapping, maps, sequence, text

HEAD_CONTAINER: Path = ("headGroupSpec", "template", "spec", "containers", 0)
GCS = "gcsFaultToleranceOptions"
# Fields of a cluster that a default installation of the operator refuses.
GATES = {
    "networkPolicy": "RayClusterNetworkPolicy",
    "tlsOptions": "RayClusterMTLS",
    "historyServerOptions": "RayClusterHistoryServer",
}
ROCKSDB_GATE = "GCSFaultToleranceEmbeddedStorage"
ALL_GATES = (*GATES.values(), ROCKSDB_GATE, "RayCronJob")
FT_ANNOTATION, NAMESPACE_ANNOTATION = "ray.io/ft-enabled", "ray.io/external-storage-namespace"
TLS_VARIABLES = ("RAY_USE_TLS", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")
GCS_VARIABLES = ("RAY_GCS_STORAGE", "RAY_GCS_STORAGE_PATH")
OPTIONS: Rulebook[RayCluster, Fault] = Rulebook(
    "kuberay", "KubeRay 1.7.0, ValidateRayClusterSpec and its feature gates"
)


@OPTIONS.rule(
    "gate",
    "A default installation of KubeRay refuses fields whose feature gate is off.",
    "remove the field; if the operator runs with the gate on, say so: --gate NAME",
)
def gate(cluster: RayCluster) -> Iterator[Fault]:
    for name, needed in GATES.items():
        if cluster.spec.get(name) is not None and needed not in cluster.gates:
            yield Fault((name,), f"{name} needs the feature gate {needed}, which is off by default")
    if text(cluster.spec, GCS, "backend") == "rocksdb" and ROCKSDB_GATE not in cluster.gates:
        yield Fault(
            (GCS, "backend"), f"rocksdb needs the feature gate {ROCKSDB_GATE}, which is off by default"
        )


@OPTIONS.rule(
    "gcs-both",
    "The annotation ray.io/ft-enabled and gcsFaultToleranceOptions exclude each other.",
    "keep the field",
)
def gcs_both(cluster: RayCluster) -> Iterator[Fault]:
    if cluster.manifest.annotations.get(FT_ANNOTATION) and cluster.spec.get(GCS) is not None:
        yield Fault((TOP, "metadata", "annotations", FT_ANNOTATION), f"{FT_ANNOTATION} together with {GCS}")


@OPTIONS.rule(
    "gcs-redis",
    "Redis is said in gcsFaultToleranceOptions, not by variables, parameters or annotations.",
    "use the fields of gcsFaultToleranceOptions, or none of both",
)
def gcs_redis(cluster: RayCluster) -> Iterator[Fault]:
    env, parameters = (*HEAD_CONTAINER, "env"), ("headGroupSpec", "rayStartParams")
    on = cluster.spec.get(GCS) is not None
    by_annotation = cluster.manifest.annotations.get(FT_ANNOTATION) == "true"
    if cluster.head_variable("RAY_REDIS_ADDRESS") is not None and (on or not by_annotation):
        yield Fault(env, "RAY_REDIS_ADDRESS is set on the head")
    if on and cluster.head_variable("REDIS_PASSWORD") is not None:
        yield Fault(env, f"REDIS_PASSWORD together with {GCS}")
    if on and text(cluster.spec, *parameters, "redis-password"):
        yield Fault((*parameters, "redis-password"), f"redis-password together with {GCS}")
    if on and cluster.manifest.annotations.get(NAMESPACE_ANNOTATION):
        yield Fault(
            (TOP, "metadata", "annotations", NAMESPACE_ANNOTATION), f"the annotation together with {GCS}"
        )
    if text(cluster.spec, *parameters, "redis-username"):
        yield Fault((*parameters, "redis-username"), "a redis user in rayStartParams")
    if cluster.head_variable("REDIS_USERNAME") is not None:
        yield Fault(env, "REDIS_USERNAME is set on the head")


@OPTIONS.rule(
    "gcs-backend",
    "Each backend of gcsFaultToleranceOptions has its own fields.",
    "remove the field of the other backend",
)
def gcs_backend(cluster: RayCluster) -> Iterator[Fault]:
    options = mapping(cluster.spec, GCS)
    if options.get("backend") != "rocksdb":
        if options.get("storage") is not None:
            yield Fault((GCS, "storage"), "storage with the redis backend")
        return
    for name in ("redisAddress", "redisUsername", "redisPassword", "externalStorageNamespace"):
        if options.get(name):
            yield Fault((GCS, name), f"{name} with the rocksdb backend")
    storage = mapping(options, "storage")
    if storage.get("claimName") and any(
        storage.get(name) for name in ("size", "storageClassName", "accessModes")
    ):
        yield Fault((GCS, "storage"), "claimName together with size, storageClassName or accessModes")
    for name in GCS_VARIABLES:
        if cluster.head_variable(name) is not None:
            yield Fault((*HEAD_CONTAINER, "env"), f"{name} is the operator's")


@OPTIONS.rule(
    "history-server",
    "historyServerOptions name a collector's image.",
    "write collectorOptions: {image: ...}",
)
def history_server(cluster: RayCluster) -> Iterator[Fault]:
    options = cluster.spec.get("historyServerOptions")
    if isinstance(options, dict) and not text(options, "collectorOptions", "image"):
        yield Fault(("historyServerOptions", "collectorOptions"), "no image of a collector")


def _policy_rules(cluster: RayCluster) -> Iterator[tuple[Path, dict[str, Any]]]:
    for name in ("head", "worker"):
        yield ("networkPolicy", name), mapping(cluster.spec, "networkPolicy", name)
    for place, group in maps(cluster.spec, "networkPolicy", "workerGroups"):
        yield ("networkPolicy", "workerGroups", place), group


@OPTIONS.rule(
    "network-policy",
    "networkPolicy's rules are of the direction that its mode denies, and of groups that there are.",
    "change mode, or remove the rules",
)
def network_policy(cluster: RayCluster) -> Iterator[Fault]:
    if cluster.spec.get("networkPolicy") is None:
        return
    mode = text(cluster.spec, "networkPolicy", "mode") or "denyAll"
    idle = {"denyallegress": "ingressRules", "denyallingress": "egressRules"}.get(mode.lower())
    for path, rules in _policy_rules(cluster):
        if idle and sequence(rules, idle):
            yield Fault((*path, idle), f"{idle} with mode {mode}, which does not deny that direction")
    names = {text(group, "groupName") for _, group in cluster.groups}
    for place, group in maps(cluster.spec, "networkPolicy", "workerGroups"):
        if text(group, "groupName") not in names:
            said = f"no worker group is called {text(group, 'groupName')!r}"
            yield Fault(("networkPolicy", "workerGroups", place, "groupName"), said)
    for place, group in cluster.groups:
        if not DNS_1123.fullmatch(text(group, "groupName")):
            yield Fault(
                ("workerGroupSpecs", place, "groupName"), "policies are named by the group: no DNS-1123 label"
            )


@OPTIONS.rule(
    "tls", "With tlsOptions the operator sets the TLS variables.", "remove the variables, or tlsOptions"
)
def tls(cluster: RayCluster) -> Iterator[Fault]:
    options = cluster.spec.get("tlsOptions")
    if not isinstance(options, dict) or options.get("enabled") is False:
        return
    holders = [(path, container) for path, _, container in cluster.containers()]
    holders.append((("autoscalerOptions",), mapping(cluster.spec, "autoscalerOptions")))
    for path, holder in holders:
        for name in TLS_VARIABLES:
            if variable(holder, name) is not None:
                yield Fault((*path, "env"), f"{name} together with tlsOptions")


@OPTIONS.rule(
    "collector-name",
    "With historyServerOptions no container of ours is called collector.",
    "rename it",
)
def collector_name(cluster: RayCluster) -> Iterator[Fault]:
    if cluster.spec.get("historyServerOptions") is None:
        return
    groups = [(("headGroupSpec",), cluster.head), *((("workerGroupSpecs", i), g) for i, g in cluster.groups)]
    for path, group in groups:
        for place, container in maps(group, "template", "spec", "containers"):
            if dig(container, "name") == "collector":
                yield Fault(
                    (*path, "template", "spec", "containers", place, "name"), "a container called collector"
                )
