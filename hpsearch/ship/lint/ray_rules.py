"""What a Ray cluster on Kubernetes must have, though its operator takes it without: the known traps."""

from __future__ import annotations

from collections.abc import Iterator

from hpsearch.ship.job import Gi
from hpsearch.ship.lint.finding import Fault, Level, Path
from hpsearch.ship.lint.kuberay_clusters import GROUPS, HEAD, PROBE_FLOOR
from hpsearch.ship.lint.names import quantity
from hpsearch.ship.lint.ray_objects import FORGOTTEN, RayCluster
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import dig, mapping, text, whole

HEAD_POD: Path = (HEAD, "template", "spec")
MOST_WORKERS = 10_000
AUTOSCALER_MEMORY = 1 * Gi
RAY: Rulebook[RayCluster, Fault] = Rulebook("ray", "this project's rules for Ray on Kubernetes")


@RAY.rule(
    "max-replicas",
    f"maxReplicas is written: its default is {FORGOTTEN}.",
    "write maxReplicas: what the sweep's maxParallelTrials needs, and no more",
    source="trap: forgotten maxReplicas; KubeRay 1.7.0, CRD",
)
def max_replicas(cluster: RayCluster) -> Iterator[Fault]:
    for place, group in cluster.groups:
        most = whole(group, "maxReplicas")
        if dig(cluster.raw, GROUPS, place, "maxReplicas") is None:
            said = f"group {text(group, 'groupName')} has no maxReplicas, and so may grow to {most}"
            yield Fault((GROUPS, place, "maxReplicas"), said)
        elif most is not None and most > MOST_WORKERS:
            yield Fault((GROUPS, place, "maxReplicas"), f"{most} workers at most")


@RAY.rule(
    "replica-counts",
    "All three counts of workers are written.",
    "write replicas and minReplicas",
    level=Level.WARNING,
)
def replica_counts(cluster: RayCluster) -> Iterator[Fault]:
    for place, group in cluster.groups:
        for name in ("replicas", "minReplicas"):
            if dig(cluster.raw, GROUPS, place, name) is None:
                yield Fault(
                    (GROUPS, place, name), f"group {text(group, 'groupName')} has no {name}, which means 0"
                )


@RAY.rule(
    "version",
    "rayVersion is set: without 2.53 or later the probes need wget, which slim images lack, and no pod "
    "gets ready.",
    "set rayVersion to the image's exact version, such as 2.60.0",
    source="trap: slim image never ready; KubeRay 1.7.0, probes",
)
def version(cluster: RayCluster) -> Iterator[Fault]:
    given = dig(cluster.spec, "rayVersion")
    if cluster.version is None:
        said = f"rayVersion {shown(given)} is no version" if given is not None else "no rayVersion"
        yield Fault(("rayVersion",), f"{said}: probes need wget")
    elif cluster.version < PROBE_FLOOR:
        yield Fault(("rayVersion",), f"Ray {given} is older than 2.53: its probes need wget")


@RAY.rule(
    "token",
    "Ray's dashboard and jobs ask for a token: without one whoever reaches them runs code.",
    "set authOptions: {mode: token}",
    source="CVE-2023-48022, CVE-2025-62593",
)
def token(cluster: RayCluster) -> Iterator[Fault]:
    mode = text(cluster.spec, "authOptions", "mode")
    if mode != "token":
        yield Fault(("authOptions", "mode"), f"authentication is {mode or 'off'}")


@RAY.rule(
    "exposed",
    "The head is reached from inside alone: ClusterIP, no Ingress; people use kubectl port-forward and "
    "the token.",
    "set serviceType: ClusterIP and enableIngress: false",
)
def exposed(cluster: RayCluster) -> Iterator[Fault]:
    for at in ((HEAD, "serviceType"), (HEAD, "headService", "spec", "type")):
        kind = text(cluster.spec, *at)
        if kind not in ("", "ClusterIP"):
            yield Fault(at, f"a head behind a Service of type {kind}")
    if cluster.head.get("enableIngress") is True:
        yield Fault((HEAD, "enableIngress"), "a head behind an Ingress")
    if mapping(cluster.head, "ingressOptions"):
        yield Fault((HEAD, "ingressOptions"), "options of an Ingress to the head")
    if dig(cluster.head, "headService", "spec", "externalIPs"):
        yield Fault((HEAD, "headService", "spec", "externalIPs"), "a head behind external addresses")


@RAY.rule(
    "workers",
    "Some group can have a worker, where the head runs no trials.",
    "write workerGroupSpecs (a strategic merge patch replaces the whole list: use a JSON 6902 patch)",
    source="trap: patches of custom resources",
)
def workers(cluster: RayCluster) -> Iterator[Fault]:
    idle = text(cluster.head, "rayStartParams", "num-cpus") == "0"
    if idle and all((whole(group, "maxReplicas") or 0) == 0 for _, group in cluster.groups):
        yield Fault((GROUPS,), "no worker can ever start, and the head has num-cpus 0")


@RAY.rule(
    "one-image",
    "Head and workers run one image: other versions of Ray or Python refuse each other.",
    "use one digest for all",
    source="trap: a stale digest beside a new one",
)
def one_image(cluster: RayCluster) -> Iterator[Fault]:
    image = text(cluster.head, "template", "spec", "containers", 0, "image")
    for place, group in cluster.groups:
        other = text(group, "template", "spec", "containers", 0, "image")
        if image and other and other != image:
            path = (GROUPS, place, "template", "spec", "containers", 0, "image")
            yield Fault(path, f"{shown(other)} is not the head's {shown(image)}")


@RAY.rule(
    "head-cpus",
    "No trial runs on the head.",
    'set headGroupSpec.rayStartParams.num-cpus: "0"',
    level=Level.WARNING,
)
def head_cpus(cluster: RayCluster) -> Iterator[Fault]:
    if dig(cluster.head, "rayStartParams", "num-cpus") != "0" and not mapping(cluster.head, "resources"):
        yield Fault(
            (HEAD, "rayStartParams", "num-cpus"), "trials may run beside the driver and Ray's own services"
        )


@RAY.rule(
    "autoscaler",
    "The autoscaler is version 2, conservative, with 1Gi of memory, and workers idle 60 s or more before "
    "they go.",
    "set autoscalerOptions: {version: v2, upscalingMode: Conservative, idleTimeoutSeconds: 300, "
    "resources: ...}",
    level=Level.WARNING,
    source="kuberay#865, ray#35560",
)
def autoscaler(cluster: RayCluster) -> Iterator[Fault]:
    if not cluster.autoscaling:
        return
    options, at = mapping(cluster.spec, "autoscalerOptions"), ("autoscalerOptions",)
    if options.get("version") != "v2":
        yield Fault((*at, "version"), "autoscaler v1 kills busy workers")
    if options.get("upscalingMode") != "Conservative":
        yield Fault((*at, "upscalingMode"), f"upscalingMode {options.get('upscalingMode') or 'Default'}")
    idle = whole(options, "idleTimeoutSeconds")
    if idle is None or 0 <= idle < 60:
        yield Fault(
            (*at, "idleTimeoutSeconds"), f"workers go after {60 if idle is None else idle} s without a trial"
        )
    memory = quantity(dig(options, "resources", "limits", "memory"))
    if memory is None or memory < AUTOSCALER_MEMORY:
        given = dig(options, "resources", "limits", "memory") or "512Mi (the default)"
        yield Fault((*at, "resources"), f"an autoscaler with {given} of memory")


@RAY.rule(
    "head-account",
    "With autoscaling the operator makes the head's account, with the rights that the autoscaler needs.",
    "leave serviceAccountName of the head unset, and its token mounted",
)
def head_account(cluster: RayCluster) -> Iterator[Fault]:
    if not cluster.autoscaling:
        return
    spec = mapping(cluster.spec, *HEAD_POD)
    if text(spec, "serviceAccountName"):
        yield Fault(
            (*HEAD_POD, "serviceAccountName"), f"the head has the account {text(spec, 'serviceAccountName')}"
        )
    if spec.get("automountServiceAccountToken") is False:
        yield Fault(
            (*HEAD_POD, "automountServiceAccountToken"), "the autoscaler gets no token of the API server"
        )


@RAY.rule(
    "lost-head",
    "The driver of a sweep dies with the head: fault tolerance of Ray's control store does not save it.",
    "remove gcsFaultToleranceOptions; the study is resumed on a new cluster",
    level=Level.WARNING,
)
def lost_head(cluster: RayCluster) -> Iterator[Fault]:
    if cluster.of_job and cluster.spec.get("gcsFaultToleranceOptions") is not None:
        yield Fault(("gcsFaultToleranceOptions",), "fault tolerance of the control store for a job")


@RAY.rule(
    "start-parameters",
    "Ray's containers name no host of their own.",
    "remove node-ip-address and address: the operator sets them",
)
def start_parameters(cluster: RayCluster) -> Iterator[Fault]:
    groups: list[tuple[Path, dict[str, object]]] = [((HEAD,), cluster.head)]
    groups += [((GROUPS, place), group) for place, group in cluster.groups]
    for path, group in groups:
        for name in ("address", "node-ip-address", "block", "head"):
            given = dig(group, "rayStartParams", name)
            # The operator writes block and address itself; `block: "true"` in old samples changes nothing.
            if given is not None and not (name == "block" and given == "true"):
                yield Fault((*path, "rayStartParams", name), f"{name} is the operator's to set")
