"""How Ray is started by KubeRay: parameters that `ray start` knows, a head that can be reached and stays."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from hpsearch.ship.lint.finding import Fault, Level, Path
from hpsearch.ship.lint.kuberay_clusters import GROUPS, HEAD
from hpsearch.ship.lint.names import quantity
from hpsearch.ship.lint.ray_objects import RayCluster, variable
from hpsearch.ship.lint.ray_pods import HEAD_POD, groups_of
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import dig, mapping, maps, text, texts, whole

STARTS: Rulebook[RayCluster, Fault] = Rulebook("ray", "this project's rules for Ray on Kubernetes")
# `ray start --help` of Ray 2.60, what it hides too, and what some earlier one knew.
KNOWN = frozenset(
    [
        "address",
        "autoscaling-config",
        "block",
        "cgroup-path",
        "dashboard-agent-grpc-port",
        "dashboard-agent-listen-port",
        "dashboard-grpc-port",
        "dashboard-host",
        "dashboard-port",
        "disable-usage-stats",
        "enable-object-reconstruction",
        "enable-resource-isolation",
        "gcs-server-port",
        "head",
        "include-dashboard",
        "include-log-monitor",
        "labels",
        "labels-file",
        "log-color",
        "log-style",
        "max-worker-port",
        "memory",
        "metrics-export-port",
        "min-worker-port",
        "no-monitor",
        "no-redirect-output",
        "node-ip-address",
        "node-manager-port",
        "node-name",
        "num-cpus",
        "num-gpus",
        "object-manager-port",
        "object-spilling-directory",
        "object-store-memory",
        "plasma-directory",
        "plasma-store-socket-name",
        "port",
        "proxy-server-url",
        "ray-client-server-port",
        "ray-debugger-external",
        "raylet-socket-name",
        "redis-password",
        "redis-shard-ports",
        "redis-username",
        "resources",
        "runtime-env-agent-port",
        "storage",
        "system-config",
        "system-reserved-cpu",
        "system-reserved-memory",
        "temp-dir",
        "tracing-startup-hook",
        "v",
        "verbose",
        "worker-port-list",
    ]
)
_SPOT = {
    "karpenter.sh/capacity-type": ("spot",),
    "eks.amazonaws.com/capacityType": ("SPOT",),
    "cloud.google.com/gke-spot": ("true",),
    "cloud.google.com/gke-preemptible": ("true",),
    "kubernetes.azure.com/scalesetpriority": ("spot",),
}
STOP_WAIT, DRAIN = "RAY_JOB_STOP_WAIT_TIME_S", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
GRACE = 30  # seconds, where a pod does not say


@STARTS.rule(
    "unknown-parameter",
    "rayStartParams are options of `ray start`, without dashes; one that it does not know ends each pod at "
    "its start.",
    "see `ray start --help`",
    source="Ray 2.60, ray start",
)
def unknown_parameter(cluster: RayCluster) -> Iterator[Fault]:
    for path, name, group in groups_of(cluster):
        for key in mapping(group, "rayStartParams"):
            if key in KNOWN:
                continue
            near = difflib.get_close_matches(key.strip("-").replace("_", "-"), KNOWN, 1, cutoff=0.7)
            remedy = f"did you mean {near[0]}?" if near else ""
            # A later Ray may know more.
            level = None if near else Level.WARNING
            said = f"group {name} starts Ray with --{key}, which Ray does not know"
            yield Fault((*path, "rayStartParams", key), said, level, remedy)


@STARTS.rule(
    "dashboard",
    "The head's dashboard answers to the operator and to the submitter: jobs go through it.",
    "remove include-dashboard, and set dashboard-host: 0.0.0.0",
)
def dashboard(cluster: RayCluster) -> Iterator[Fault]:
    if cluster.manifest.kind == "RayCluster":
        return
    at: Path = (HEAD, "rayStartParams")
    if text(cluster.head, "rayStartParams", "include-dashboard").lower() == "false":
        yield Fault((*at, "include-dashboard"), "the head has no dashboard, which takes the job")
    host = text(cluster.head, "rayStartParams", "dashboard-host")
    if host.startswith("127.") or host in ("localhost", "::1"):
        yield Fault((*at, "dashboard-host"), f"the dashboard listens on {host}, where nobody else reaches it")


@STARTS.rule(
    "memory-parameter",
    "Ray hands out no more memory than its container has.",
    "remove rayStartParams.memory: the operator takes the limit; or lower it",
    level=Level.WARNING,
)
def memory_parameter(cluster: RayCluster) -> Iterator[Fault]:
    for path, name, group in groups_of(cluster):
        given = text(group, "rayStartParams", "memory")
        limit = quantity(dig(group, "template", "spec", "containers", 0, "resources", "limits", "memory"))
        if limit and given.isdigit() and int(given) > limit:
            said = f"group {name} offers {int(given):,} bytes to trials, and its limit is {int(limit):,}"
            yield Fault((*path, "rayStartParams", "memory"), said)


@STARTS.rule(
    "replica-range",
    "replicas is between minReplicas and maxReplicas: the operator takes the nearer one.",
    "correct replicas",
    level=Level.WARNING,
    source="KubeRay 1.7.0, GetWorkerGroupDesiredReplicas",
)
def replica_range(cluster: RayCluster) -> Iterator[Fault]:
    for place, group in cluster.groups:
        least, most = whole(group, "minReplicas"), whole(group, "maxReplicas")
        given = whole(group, "replicas")
        written = dig(cluster.raw, GROUPS, place, "replicas") is not None
        if not written or given is None or least is None or most is None or least > most:
            continue
        if not least <= given <= most:
            said = f"{given} replicas of group {text(group, 'groupName')}, and {least} to {most} allowed"
            yield Fault((GROUPS, place, "replicas"), said)


@STARTS.rule(
    "head-spot",
    "The head is on a node that stays: with it the driver and all trials are lost.",
    "remove what chooses or tolerates spot nodes from the head",
    level=Level.WARNING,
)
def head_spot(cluster: RayCluster) -> Iterator[Fault]:
    spec = mapping(cluster.spec, *HEAD_POD)
    for key, values in _SPOT.items():
        if mapping(spec, "nodeSelector").get(key) in values:
            yield Fault((*HEAD_POD, "nodeSelector", key), "the head chooses a spot node")
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    at: Path = ("affinity", "nodeAffinity", required, "nodeSelectorTerms")
    for place, term in maps(spec, *at):
        for number, entry in maps(term, "matchExpressions"):
            spot = _SPOT.get(text(entry, "key"), ())
            if text(entry, "operator") == "In" and set(texts(entry, "values")) & set(spot):
                said = "the head chooses a spot node"
                yield Fault((*HEAD_POD, *at, place, "matchExpressions", number), said)
    for place, entry in maps(spec, "tolerations"):
        if text(entry, "key") in _SPOT:
            yield Fault((*HEAD_POD, "tolerations", place), "the head may be put on a spot node")


@STARTS.rule(
    "farewell",
    "What Ray waits for at its end is shorter than its pod's time to end.",
    "lower the variable, or raise terminationGracePeriodSeconds",
    level=Level.WARNING,
)
def farewell(cluster: RayCluster) -> Iterator[Fault]:
    for path, name, group in groups_of(cluster):
        spec = mapping(group, "template", "spec")
        given = whole(spec, "terminationGracePeriodSeconds")
        grace = GRACE if given is None else given
        for variable_name in (STOP_WAIT, DRAIN):
            seconds = variable(dig(spec, "containers", 0), variable_name) or ""
            if seconds.isdigit() and int(seconds) >= grace:
                at: Path = (*path, "template", "spec", "containers", 0, "env")
                said = f"{variable_name}={seconds}, and pods of group {name} are killed after {grace} s"
                yield Fault(at, said)


@STARTS.rule(
    "autoscaler-image",
    "The autoscaler runs the head's image: another Ray does not understand its control store.",
    "remove autoscalerOptions.image",
    source="trap: a stale digest beside a new one",
)
def autoscaler_image(cluster: RayCluster) -> Iterator[Fault]:
    given = text(cluster.spec, "autoscalerOptions", "image")
    image = text(cluster.spec, *HEAD_POD, "containers", 0, "image")
    if cluster.autoscaling and given and image and given != image:
        yield Fault(("autoscalerOptions", "image"), f"{shown(given)} is not the head's {shown(image)}")


def _options(manifest: dict[str, Any]) -> dict[str, Any]:
    return mapping(manifest, "spec", "upgradeStrategy", "clusterUpgradeOptions")


@STARTS.rule(
    "service-upgrade",
    "A RayService's upgradeStrategy is None, NewCluster, or NewClusterWithIncrementalUpgrade with "
    "autoscaling and its options.",
    "write type: NewCluster, or clusterUpgradeOptions: {gatewayClassName, stepSizePercent, intervalSeconds}",
    source="KubeRay 1.7.0, ValidateRayServiceSpec",
)
def service_upgrade(cluster: RayCluster) -> Iterator[Fault]:
    manifest, at = cluster.manifest, ("", "spec", "upgradeStrategy")
    kind = dig(manifest.value, "spec", "upgradeStrategy", "type")
    if manifest.kind != "RayService" or kind in (None, "None", "NewCluster"):
        return
    if kind != "NewClusterWithIncrementalUpgrade":
        yield Fault((*at, "type"), f"{shown(kind)} is no type of upgrade")
        return
    options = _options(manifest.value)
    if not cluster.autoscaling:
        yield Fault((*at, "type"), "an incremental upgrade needs enableInTreeAutoscaling: true")
    if not text(options, "gatewayClassName"):
        yield Fault((*at, "clusterUpgradeOptions", "gatewayClassName"), "no gatewayClassName")
    for name, least, most in (("maxSurgePercent", 0, 100), ("stepSizePercent", 0, 100)):
        given = whole(options, name)
        if (given is None and name == "stepSizePercent") or (
            given is not None and not least <= given <= most
        ):
            said = f"{name} is {shown(options.get(name))}, and from {least} to {most} allowed"
            yield Fault((*at, "clusterUpgradeOptions", name), said)
    if (whole(options, "intervalSeconds") or 0) <= 0:
        said = f"intervalSeconds is {shown(options.get('intervalSeconds'))}, and must be above 0"
        yield Fault((*at, "clusterUpgradeOptions", "intervalSeconds"), said)
