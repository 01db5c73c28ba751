"""What single objects beside pods must not be: doors to the outside, rights without need, empty budgets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hpsearch.ship.lint.finding import Fault, Level
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.names import quantity
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import dig, mapping, maps, sequence, text, texts

OBJECTS: Rulebook[Manifest, Fault] = Rulebook("object", "this project's security rules")
DOORS = {
    ("networking.k8s.io", "Ingress"),
    ("extensions", "Ingress"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "HTTPRoute"),
    ("gateway.networking.k8s.io", "TCPRoute"),
    ("gateway.networking.k8s.io", "TLSRoute"),
    ("gateway.networking.k8s.io", "GRPCRoute"),
    ("route.openshift.io", "Route"),
    ("traefik.io", "IngressRoute"),
}
LEVELS = "pod-security.kubernetes.io/"
SYSTEM_NAMESPACES = ("kube-system", "kube-public", "kube-node-lease", "default")
# Rights with which whoever has them takes over the namespace or more.
_STRONG = {("", "secrets"), ("", "pods/exec"), ("", "serviceaccounts/token"), ("", "nodes/proxy")}
_STRONG_VERBS = {"impersonate", "escalate", "bind"}


@OBJECTS.rule(
    "door",
    "No Ingress, no Gateway, no Route: dashboards are reached by kubectl port-forward and a token.",
    "remove it; use kubectl port-forward service/NAME PORT",
)
def door(manifest: Manifest) -> Iterator[Fault]:
    if (manifest.group, manifest.kind) in DOORS:
        yield Fault(("kind",), f"a door to the outside: {manifest.kind}")


@OBJECTS.rule(
    "service-type",
    "Services are of type ClusterIP.",
    "set type: ClusterIP; use kubectl port-forward service/NAME PORT",
)
def service_type(manifest: Manifest) -> Iterator[Fault]:
    if manifest.kind != "Service" or manifest.api != "v1":
        return
    kind = text(manifest.value, "spec", "type")
    if kind not in ("", "ClusterIP"):
        yield Fault(("spec", "type"), f"a Service of type {kind}")
    if sequence(manifest.value, "spec", "externalIPs"):
        yield Fault(("spec", "externalIPs"), "a Service with external addresses")
    for place, port in maps(manifest.value, "spec", "ports"):
        if port.get("nodePort") and kind in ("", "ClusterIP"):
            yield Fault(("spec", "ports", place, "nodePort"), "a port of every node")


@OBJECTS.rule(
    "namespace-security",
    "A namespace enforces the pod security standard restricted, in a pinned version.",
    f"set the labels {LEVELS}enforce: restricted and {LEVELS}enforce-version: v1.28",
)
def namespace_security(manifest: Manifest) -> Iterator[Fault]:
    if manifest.kind != "Namespace" or manifest.name in SYSTEM_NAMESPACES:
        return
    at = ("metadata", "labels")
    level, version = manifest.labels.get(f"{LEVELS}enforce"), manifest.labels.get(f"{LEVELS}enforce-version")
    if level != "restricted":
        yield Fault((*at, f"{LEVELS}enforce"), f"pod security is {shown(level) if level else 'not enforced'}")
    elif not isinstance(version, str) or not version.startswith("v1."):
        said = f"the version of the standard is {shown(version) if version else 'whatever the server has'}"
        yield Fault((*at, f"{LEVELS}enforce-version"), said)


@OBJECTS.rule(
    "quota",
    "A quota counts RayJobs, pods, CPU and memory.",
    "set hard: {count/rayjobs.ray.io: ..., pods: ..., limits.cpu: ..., limits.memory: ...}",
)
def quota(manifest: Manifest) -> Iterator[Fault]:
    if manifest.kind != "ResourceQuota":
        return
    hard = mapping(manifest.value, "spec", "hard")
    scoped = sequence(manifest.value, "spec", "scopes") or mapping(manifest.value, "spec", "scopeSelector")
    wanted = {
        "count/rayjobs.ray.io": ("count/rayjobs.ray.io",),
        "pods": ("pods", "count/pods"),
        "CPU": ("limits.cpu", "requests.cpu", "cpu"),
        "memory": ("limits.memory", "requests.memory", "memory"),
    }
    if missing := [
        name for name, keys in wanted.items() if not any(key in hard for key in keys) and not scoped
    ]:
        yield Fault(("spec", "hard"), f"no quota of {', '.join(missing)}")
    for name, amount in hard.items():
        if quantity(amount) is None:
            yield Fault(("spec", "hard", name), f"{shown(amount)} is no quantity")


def _rules(manifest: Manifest) -> Iterator[tuple[int, dict[str, Any]]]:
    if manifest.group == "rbac.authorization.k8s.io" and manifest.kind in ("Role", "ClusterRole"):
        yield from maps(manifest.value, "rules")


@OBJECTS.rule(
    "rights-wildcard",
    "Rights are named one by one.",
    "write the groups, resources and verbs that are needed",
    source="Kubernetes, RBAC good practices",
)
def rights_wildcard(manifest: Manifest) -> Iterator[Fault]:
    for place, rule in _rules(manifest):
        for name in ("apiGroups", "resources", "verbs"):
            if "*" in texts(rule, name):
                yield Fault(("rules", place, name), f"{name} are all")


@OBJECTS.rule(
    "rights-strong",
    "No role reads secrets, enters pods, or gives rights.",
    "remove the right; pods get secrets by secretKeyRef",
    source="Kubernetes, RBAC good practices",
)
def rights_strong(manifest: Manifest) -> Iterator[Fault]:
    for place, rule in _rules(manifest):
        groups, resources = texts(rule, "apiGroups"), texts(rule, "resources")
        for group, resource in sorted(_STRONG):
            if group in groups and resource in resources:
                yield Fault(("rules", place, "resources"), f"rights on {resource}")
        for verb in texts(rule, "verbs"):
            if verb in _STRONG_VERBS:
                yield Fault(("rules", place, "verbs"), f"the verb {verb}")


@OBJECTS.rule(
    "rights-launcher",
    "Whoever launches makes and reads RayJobs, ConfigMaps and budgets; nothing deletes or changes them.",
    "remove delete, deletecollection, patch and update",
)
def rights_launcher(manifest: Manifest) -> Iterator[Fault]:
    if "launch" not in manifest.name:
        return
    for place, rule in _rules(manifest):
        more = [v for v in texts(rule, "verbs") if v in ("delete", "deletecollection", "patch", "update")]
        if more:
            yield Fault(("rules", place, "verbs"), f"a launcher may {', '.join(more)}")


@OBJECTS.rule(
    "binding",
    "Rights go to an account of their own, never to all accounts, and never to all of a cluster.",
    "make a ServiceAccount and a Role, and bind these",
    source="Kubernetes, RBAC good practices",
)
def binding(manifest: Manifest) -> Iterator[Fault]:
    if manifest.kind not in ("RoleBinding", "ClusterRoleBinding"):
        return
    role = text(manifest.value, "roleRef", "name")
    if role in ("cluster-admin", "admin", "edit"):
        yield Fault(("roleRef", "name"), f"a binding to {role}")
    for place, subject in maps(manifest.value, "subjects"):
        name, kind = text(subject, "name"), text(subject, "kind")
        if kind == "ServiceAccount" and name == "default":
            yield Fault(("subjects", place, "name"), "rights for the account default, which every pod has")
        if kind == "Group" and name.startswith("system:") and manifest.namespace not in SYSTEM_NAMESPACES[:3]:
            yield Fault(("subjects", place, "name"), f"rights for the group {name}")


BUDGETS: Rulebook[Manifest, Fault] = Rulebook("budget", "Kubernetes, PodDisruptionBudget")


@BUDGETS.rule(
    "selector",
    "A budget selects some pods of its namespace, not all of them and not none.",
    "write selector: {matchLabels: ...}",
)
def selector(manifest: Manifest) -> Iterator[Fault]:
    if manifest.kind != "PodDisruptionBudget":
        return
    chosen = dig(manifest.value, "spec", "selector")
    if not mapping(chosen, "matchLabels") and not sequence(chosen, "matchExpressions"):
        said = "a budget without selector protects nothing" if chosen is None else "a budget for all pods"
        yield Fault(("spec", "selector"), said)


@BUDGETS.rule(
    "amount",
    "A budget says minAvailable or maxUnavailable, and allows what must go to go.",
    "write minAvailable: 1 for one pod",
)
def amount(manifest: Manifest) -> Iterator[Fault]:
    if manifest.kind != "PodDisruptionBudget":
        return
    given = [
        name for name in ("minAvailable", "maxUnavailable") if dig(manifest.value, "spec", name) is not None
    ]
    if len(given) != 1:
        said = "both minAvailable and maxUnavailable" if given else "neither minAvailable nor maxUnavailable"
        yield Fault(("spec",), said)


@BUDGETS.rule(
    "broken-pods",
    "Pods that are broken already may go, or a node with one of them is never drained.",
    "set unhealthyPodEvictionPolicy: AlwaysAllow",
    level=Level.WARNING,
)
def broken_pods(manifest: Manifest) -> Iterator[Fault]:
    if manifest.kind == "PodDisruptionBudget":
        given = text(manifest.value, "spec", "unhealthyPodEvictionPolicy")
        if given != "AlwaysAllow":
            yield Fault(("spec", "unhealthyPodEvictionPolicy"), f"the policy is {given or 'IfHealthyBudget'}")


POLICIES: Rulebook[Manifest, Fault] = Rulebook("network", "this project's security rules")
CONTROL_STORE = 6379
DASHBOARD = (8265, 10001, CONTROL_STORE)


def covers(rule: dict[str, Any], ports: tuple[int, ...]) -> bool:
    """Whether a rule of a policy lets one of some ports through; without ports it lets all."""
    listed = [port for _, port in maps(rule, "ports")]
    if not listed:
        return True
    for port in listed:
        first, last = port.get("port"), port.get("endPort")
        if first is None:
            return True
        if isinstance(first, int) and any(
            first <= each <= (last if isinstance(last, int) else first) for each in ports
        ):
            return True
    return False


@POLICIES.rule(
    "open-ray",
    "Ray's own ports are open to its own pods, its submitters and the operator alone.",
    "name who may come: from: [{podSelector: ...}]",
)
def open_ray(manifest: Manifest) -> Iterator[Fault]:
    if manifest.kind != "NetworkPolicy":
        return
    for place, rule in maps(manifest.value, "spec", "ingress"):
        peers = [peer for _, peer in maps(rule, "from")]
        everybody = not sequence(rule, "from") or any(
            peer.get("namespaceSelector") == {} and not mapping(peer, "podSelector") for peer in peers
        )
        world = any(text(peer, "ipBlock", "cidr") in ("0.0.0.0/0", "::/0") for peer in peers)
        if (everybody or world) and covers(rule, DASHBOARD):
            said = "the world" if world else "every pod of the cluster"
            yield Fault(("spec", "ingress", place), f"{said} may reach Ray's ports")


@POLICIES.rule(
    "open-egress",
    "Pods speak to those that they need, not to the world on every port.",
    "name ports and peers; the object store is 443",
)
def open_egress(manifest: Manifest) -> Iterator[Fault]:
    if manifest.kind != "NetworkPolicy":
        return
    for place, rule in maps(manifest.value, "spec", "egress"):
        world = any(text(peer, "ipBlock", "cidr") in ("0.0.0.0/0", "::/0") for _, peer in maps(rule, "to"))
        if (world or not sequence(rule, "to")) and not sequence(rule, "ports"):
            yield Fault(("spec", "egress", place), "everything may be reached on every port")
