"""Network policies together: all is denied but what Ray needs, and namespaces have quotas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hpsearch.ship.lint.cron_rules import launches
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.object_rules import CONTROL_STORE, covers
from hpsearch.ship.lint.pods import RAY_ROLES
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.scene import Placed, Scene, near
from hpsearch.ship.lint.selectors import keys, launched, matches
from hpsearch.ship.lint.shape import dig, mapping, maps, sequence, texts

NETWORK: Rulebook[Scene, Placed] = Rulebook("network", "this project's security rules")


def _denies(policy: Manifest, direction: str) -> bool:
    """Whether a policy takes a direction from all pods of its namespace and gives nothing back."""
    spec = mapping(policy.value, "spec")
    types = texts(spec, "policyTypes") or ["Ingress"] + ["Egress"] * ("egress" in spec)
    return not keys(spec.get("podSelector")) and direction in types and not sequence(spec, direction.lower())


@NETWORK.rule(
    "default-deny",
    "A namespace of ours denies all traffic that no policy allows, both ways.",
    "add a NetworkPolicy with podSelector: {} and policyTypes: [Ingress, Egress]",
)
def default_deny(scene: Scene) -> Iterator[Placed]:
    for namespace in scene.of("Namespace"):
        policies = [
            p for p in scene.of("NetworkPolicy", "networking.k8s.io") if near(p.namespace, namespace.name)
        ]
        pods = [p for p in scene.pods if near(p.manifest.namespace, namespace.name)]
        missing = [way for way in ("Ingress", "Egress") if not any(_denies(p, way) for p in policies)]
        if pods and missing:
            said = f"nothing denies {' and '.join(missing).lower()} in the namespace {namespace.name}"
            yield Placed(namespace, ("metadata", "name"), said)


@NETWORK.rule(
    "dns",
    "Where egress is denied DNS is allowed: without it workers never find the head.",
    "allow UDP and TCP 53 to the namespace kube-system",
)
def dns(scene: Scene) -> Iterator[Placed]:
    policies = list(scene.of("NetworkPolicy", "networking.k8s.io"))
    for denying in policies:
        if not _denies(denying, "Egress"):
            continue
        mine = [p for p in policies if near(p.namespace, denying.namespace)]
        if not any(_lets(rule, 53) for p in mine for _, rule in maps(p.value, "spec", "egress")):
            yield Placed(denying, ("spec", "policyTypes"), "no policy of these files lets DNS out")


def _lets(rule: dict[str, Any], port: int) -> bool:
    """Whether a rule of egress lets a port out of its namespace: pods alone are of the same one."""
    peers = [peer for _, peer in maps(rule, "to")]
    outside = not peers or any(set(peer) & {"namespaceSelector", "ipBlock"} for peer in peers)
    listed = [each.get("port") for _, each in maps(rule, "ports")]
    return outside and (not listed or port in listed)


@NETWORK.rule(
    "ray",
    "Where traffic is denied Ray's pods may speak to each other, both ways.",
    "allow podSelector ray.io/node-type Exists among themselves, without ports",
)
def ray(scene: Scene) -> Iterator[Placed]:
    policies = list(scene.of("NetworkPolicy", "networking.k8s.io"))
    heads = [pod.labels for pod in scene.pods if pod.role in RAY_ROLES[:2]] or list(launched())
    if not _has_sweeps(scene):
        return
    for way, peers in (("Ingress", "from"), ("Egress", "to")):
        for denying in (p for p in policies if _denies(p, way)):
            mine = [p for p in policies if near(p.namespace, denying.namespace)]
            rules = [
                rule
                for policy in mine
                if any(matches(dig(policy.value, "spec", "podSelector"), each) for each in heads)
                for _, rule in maps(policy.value, "spec", way.lower())
            ]
            if not any(_among(rule, peers, heads) for rule in rules):
                said = f"no policy of these files lets Ray's pods speak to each other ({way.lower()})"
                yield Placed(denying, ("spec", "policyTypes"), said)


def _has_sweeps(scene: Scene) -> bool:
    if any(pod.role in RAY_ROLES for pod in scene.pods):
        return True
    return any(launches(manifest) for manifest in scene.of("CronJob", "batch"))


def _among(rule: dict[str, Any], peers: str, heads: list[dict[str, str]]) -> bool:
    """Whether a rule is about Ray's pods among themselves: also on the port where workers find the head."""
    if not covers(rule, (CONTROL_STORE,)):
        return False
    if not sequence(rule, peers):
        return True
    for _, peer in maps(rule, peers):
        chosen = peer.get("podSelector")
        if chosen is not None and any(matches(chosen, each) for each in heads):
            return True
    return False


@NETWORK.rule(
    "quota",
    "A namespace of ours has a quota and limits of its own.",
    "add a ResourceQuota (count/rayjobs.ray.io, pods, CPU, memory) and a LimitRange",
)
def quota(scene: Scene) -> Iterator[Placed]:
    for namespace in scene.of("Namespace"):
        if not any(near(p.manifest.namespace, namespace.name) for p in scene.pods):
            continue
        for kind in ("ResourceQuota", "LimitRange"):
            if not any(near(each.namespace, namespace.name) for each in scene.of(kind)):
                yield Placed(namespace, ("metadata", "name"), f"the namespace {namespace.name} has no {kind}")
