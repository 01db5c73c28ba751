"""What KubeRay's operator refuses in the spec of a cluster: groups, autoscaling, authentication."""

from __future__ import annotations

from collections.abc import Iterator

from hpsearch.ship.job import LONGEST_RAYCLUSTER
from hpsearch.ship.lint.finding import TOP, Fault, Level, Path
from hpsearch.ship.lint.names import DNS_1035, DNS_1123, is_label_key, is_label_value
from hpsearch.ship.lint.ray_objects import V2_VARIABLE, RayCluster
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import dig, mapping, maps, sequence, text, whole

GROUPS = "workerGroupSpecs"
HEAD = "headGroupSpec"
RESOURCE_PARAMETERS = ("num-cpus", "num-gpus", "memory", "resources")
TOKEN_FLOOR, K8S_TOKEN_FLOOR, PROBE_FLOOR, PRIORITY_FLOOR = (2, 52, 0), (2, 55, 0), (2, 53, 0), (2, 56, 0)
START_COMMAND = "KUBERAY_GEN_AUTOSCALER_START_CMD"
CLUSTERS: Rulebook[RayCluster, Fault] = Rulebook("kuberay", "KubeRay 1.7.0, ValidateRayClusterSpec")


def _groups(cluster: RayCluster) -> Iterator[tuple[Path, str, dict[str, object]]]:
    """Head and worker groups, each with its path and the name that messages use."""
    yield (HEAD,), "head", cluster.head
    for place, group in cluster.groups:
        yield (GROUPS, place), text(group, "groupName") or str(place), group


@CLUSTERS.rule(
    "cluster-name",
    "A cluster's name is a DNS-1035 label of at most 53 characters, a RayService's of at most 47.",
    "use a-z, 0-9 and '-', a letter first",
    source="KubeRay 1.7.0, ValidateRayClusterMetadata",
)
def cluster_name(cluster: RayCluster) -> Iterator[Fault]:
    name, kind = text(cluster.manifest.value, "metadata", "name"), cluster.manifest.kind
    longest = {"RayCluster": LONGEST_RAYCLUSTER, "RayService": 47}.get(kind)
    if longest and name:
        if len(name) > longest:
            said = f"the name has {len(name)} characters, and a {kind}'s at most {longest}"
            yield Fault((TOP, "metadata", "name"), said)
        if not DNS_1035.fullmatch(name):
            yield Fault((TOP, "metadata", "name"), f"{name!r} is no DNS-1035 label")


@CLUSTERS.rule("containers", "Each group's pods have a container.", "write one: the first is Ray's")
def containers(cluster: RayCluster) -> Iterator[Fault]:
    for path, name, group in _groups(cluster):
        if not sequence(group, "template", "spec", "containers"):
            yield Fault((*path, "template", "spec", "containers"), f"group {name} has no container")


@CLUSTERS.rule(
    "group-name",
    "A worker group's name is a DNS-1123 label, its own, and not head.",
    "use a-z, 0-9 and '-'; pods and policies are named by it",
    source="KubeRay 1.7.0, names of pods; Kueue reserves head",
)
def group_name(cluster: RayCluster) -> Iterator[Fault]:
    seen: set[str] = set()
    for place, group in cluster.groups:
        name = text(group, "groupName")
        if name and not DNS_1123.fullmatch(name):
            yield Fault((GROUPS, place, "groupName"), f"{name!r} is no DNS-1123 label")
        if name == "head":
            yield Fault((GROUPS, place, "groupName"), "a worker group is called head")
        if name and name in seen:
            yield Fault((GROUPS, place, "groupName"), f"two worker groups are called {name!r}")
        seen.add(name)


@CLUSTERS.rule(
    "group-resources",
    "What a group offers is said in rayStartParams or in resources, not in both.",
    "remove resources, or the parameter",
)
def group_resources(cluster: RayCluster) -> Iterator[Fault]:
    for path, name, group in _groups(cluster):
        given = [each for each in RESOURCE_PARAMETERS if dig(group, "rayStartParams", each) not in (None, "")]
        if given and mapping(group, "resources"):
            said = f"group {name} has resources and {', '.join(given)} in rayStartParams"
            yield Fault((*path, "resources"), said)


@CLUSTERS.rule(
    "group-labels", "Labels are a field of the group, not a start parameter.", "write labels: beside it"
)
def group_labels(cluster: RayCluster) -> Iterator[Fault]:
    for path, name, group in _groups(cluster):
        if "labels" in mapping(group, "rayStartParams"):
            yield Fault((*path, "rayStartParams", "labels"), f"labels in rayStartParams of group {name}")


@CLUSTERS.rule(
    "label-syntax", "A group's labels are written as Kubernetes' are.", "use letters, digits, '-_.'"
)
def label_syntax(cluster: RayCluster) -> Iterator[Fault]:
    for path, _, group in _groups(cluster):
        for key, value in mapping(group, "labels").items():
            if not is_label_key(key) or (isinstance(value, str) and not is_label_value(value)):
                yield Fault((*path, "labels", key), f"{key}={value} is no label")


@CLUSTERS.rule("replicas", "0 <= minReplicas <= maxReplicas.", "correct the numbers")
def replicas(cluster: RayCluster) -> Iterator[Fault]:
    for place, group in cluster.groups:
        least, most = whole(group, "minReplicas"), whole(group, "maxReplicas")
        for name, count in (("minReplicas", least), ("maxReplicas", most)):
            if count is not None and count < 0:
                yield Fault((GROUPS, place, name), f"{count} is negative")
        if least is not None and most is not None and least > most >= 0:
            yield Fault((GROUPS, place, "minReplicas"), f"minReplicas {least} above maxReplicas {most}")


@CLUSTERS.rule(
    "idle-timeout",
    "idleTimeoutSeconds is not negative, and a group's needs autoscaler v2.",
    "set enableInTreeAutoscaling: true and autoscalerOptions.version: v2, or remove it",
)
def idle_timeout(cluster: RayCluster) -> Iterator[Fault]:
    at = ("autoscalerOptions", "idleTimeoutSeconds")
    if (idle := whole(cluster.spec, *at)) is not None and idle < 0:
        yield Fault(at, f"{idle} is negative")
    for place, group in cluster.groups:
        seconds = whole(group, "idleTimeoutSeconds")
        if seconds is None:
            continue
        if seconds < 0:
            yield Fault((GROUPS, place, "idleTimeoutSeconds"), f"{seconds} is negative")
        if not cluster.autoscaler_v2:
            yield Fault((GROUPS, place, "idleTimeoutSeconds"), "idleTimeoutSeconds without autoscaler v2")


@CLUSTERS.rule(
    "priority",
    "A group's priority needs autoscaler v2 and Ray 2.56.",
    "set rayVersion, enableInTreeAutoscaling and autoscalerOptions.version: v2, or remove it",
)
def priority(cluster: RayCluster) -> Iterator[Fault]:
    for place, group in cluster.groups:
        if not (given := whole(group, "priority")):
            continue
        if cluster.version is None or cluster.version < PRIORITY_FLOOR:
            said = f"priority {given} with rayVersion {shown(cluster.spec.get('rayVersion'))}"
            yield Fault((GROUPS, place, "priority"), f"{said}; it came with 2.56")
        if not cluster.autoscaler_v2:
            yield Fault((GROUPS, place, "priority"), f"priority {given} without autoscaler v2")


@CLUSTERS.rule(
    "suspend-autoscaling",
    "A worker group is not suspended under autoscaling.",
    "remove suspend, or set replicas",
)
def suspend_autoscaling(cluster: RayCluster) -> Iterator[Fault]:
    for place, group in cluster.groups:
        if cluster.autoscaling and group.get("suspend") is True:
            yield Fault((GROUPS, place, "suspend"), "suspend together with enableInTreeAutoscaling")


@CLUSTERS.rule(
    "autoscaler-variable",
    f"Which autoscaler runs is said by autoscalerOptions.version, not by {V2_VARIABLE}.",
    "remove the variable from the head",
)
def autoscaler_variable(cluster: RayCluster) -> Iterator[Fault]:
    value = cluster.head_variable(V2_VARIABLE)
    at = (HEAD, "template", "spec", "containers", 0, "env")
    if value in ("1", "true") and not cluster.autoscaling:
        yield Fault(at, f"{V2_VARIABLE}={value} without enableInTreeAutoscaling")
    if (
        value is not None
        and cluster.autoscaling
        and dig(cluster.spec, "autoscalerOptions", "version") is not None
    ):
        yield Fault(at, f"{V2_VARIABLE} together with autoscalerOptions.version")


@CLUSTERS.rule(
    "autoscaler-restart",
    "Under autoscaler v2 neither head nor workers are restarted in place.",
    "set restartPolicy: Never, or leave it out",
)
def autoscaler_restart(cluster: RayCluster) -> Iterator[Fault]:
    if not (cluster.autoscaling and cluster.autoscaler_v2):
        return
    for path, name, group in _groups(cluster):
        policy = text(group, "template", "spec", "restartPolicy")
        if policy not in ("", "Never"):
            yield Fault(
                (*path, "template", "spec", "restartPolicy"), f"restartPolicy {policy} of group {name}"
            )


@CLUSTERS.rule("autoscaler-start", f"{START_COMMAND} is the operator's.", "remove it")
def autoscaler_start(cluster: RayCluster) -> Iterator[Fault]:
    for place, entry in maps(cluster.spec, "autoscalerOptions", "env"):
        if entry.get("name") == START_COMMAND:
            yield Fault(("autoscalerOptions", "env", place, "name"), f"{START_COMMAND} is set")


@CLUSTERS.rule(
    "token-version",
    "Token authentication needs a rayVersion of at least 2.52.",
    "set rayVersion to the image's exact version",
)
def token_version(cluster: RayCluster) -> Iterator[Fault]:
    if text(cluster.spec, "authOptions", "mode") != "token":
        return
    given = dig(cluster.spec, "rayVersion")
    if cluster.version is None:
        yield Fault(("rayVersion",), f"authOptions.mode: token with rayVersion {shown(given)}")
    elif cluster.version < TOKEN_FLOOR:
        yield Fault(("rayVersion",), f"authOptions.mode: token with Ray {given}; it came with 2.52")


@CLUSTERS.rule(
    "k8s-token",
    "enableK8sTokenAuth needs mode: token, Ray 2.55 and no secretName.",
    "remove enableK8sTokenAuth",
)
def k8s_token(cluster: RayCluster) -> Iterator[Fault]:
    options, at = mapping(cluster.spec, "authOptions"), ("authOptions", "enableK8sTokenAuth")
    if options.get("enableK8sTokenAuth") is not True:
        return
    if options.get("mode") != "token":
        yield Fault(at, "enableK8sTokenAuth without mode: token")
    if cluster.version is not None and cluster.version < K8S_TOKEN_FLOOR:
        yield Fault(at, f"enableK8sTokenAuth with Ray {text(cluster.spec, 'rayVersion')}; it came with 2.55")
    if options.get("secretName"):
        yield Fault(at, "enableK8sTokenAuth together with secretName")


@CLUSTERS.rule(
    "service-head-name",
    "A RayService names the head's service itself.",
    "remove the name",
    source="KubeRay 1.7.0, ValidateRayServiceSpec",
)
def service_head_name(cluster: RayCluster) -> Iterator[Fault]:
    at = (HEAD, "headService", "metadata", "name")
    if cluster.manifest.kind == "RayService" and text(cluster.spec, *at):
        yield Fault(at, "headService.metadata.name in a RayService")


@CLUSTERS.rule(
    "deprecated-cluster-version",
    "ray.io/v1alpha1 is deprecated and lacks fields.",
    "write ray.io/v1",
    level=Level.WARNING,
    source="KubeRay 1.7.0, CRDs",
)
def deprecated_cluster_version(cluster: RayCluster) -> Iterator[Fault]:
    if cluster.manifest.kind != "RayJob" and cluster.manifest.api == "ray.io/v1alpha1":
        yield Fault((TOP, "apiVersion"), "ray.io/v1alpha1 is deprecated")
