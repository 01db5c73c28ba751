"""Quotas and limit ranges against what they are for: a pod or a sweep that they can never let in."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hpsearch.ship.lint.finding import Level
from hpsearch.ship.lint.names import quantity
from hpsearch.ship.lint.pods import RAY_ROLES
from hpsearch.ship.lint.references import of_pod
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.scene import Placed, Scene, near
from hpsearch.ship.lint.selectors import matches
from hpsearch.ship.lint.shape import dig, mapping, maps, text
from hpsearch.ship.lint.sums import needs

BOUNDS: Rulebook[Scene, Placed] = Rulebook("bounds", "Kubernetes, ResourceQuota and LimitRange")
_COUNTED = re.compile(r"count/([a-z0-9]+)(?:\.([a-z0-9.-]+))?")


@BOUNDS.rule(
    "limit-range",
    "No container has more than the namespace's LimitRange allows, or its pod is refused.",
    "lower the container's limit, or raise max of the LimitRange",
)
def limit_range(scene: Scene) -> Iterator[Placed]:
    for each in scene.of("LimitRange"):
        for place, item in maps(each.value, "spec", "limits"):
            most = {name: quantity(amount) for name, amount in mapping(item, "max").items()}
            for name, amount in mapping(item, "default").items():
                given, top = quantity(amount), most.get(name)
                if given is not None and top is not None and given > top:
                    path = ("spec", "limits", place, "default", name)
                    yield Placed(each, path, f"the default {amount} is more than max {item['max'][name]}")
            if text(item, "type") == "Container":
                yield from _too_large(scene, each.namespace, each.name, most)


def _too_large(scene: Scene, namespace: str, name: str, most: dict[str, float | None]) -> Iterator[Placed]:
    for pod in scene.pods:
        if not near(pod.manifest.namespace, namespace):
            continue
        for container in pod.containers:
            for resource, amount in mapping(container.value, "resources", "limits").items():
                given, top = quantity(amount), most.get(resource)
                if given is not None and top is not None and given > top:
                    said = f"{amount} of {resource}, and the LimitRange {name} allows less"
                    yield Placed(pod.manifest, (*container.path, "resources", "limits", resource), said)


@BOUNDS.rule(
    "quota",
    "A sweep with its fewest workers fits the namespace's quota, or its pods are never made.",
    "raise the quota, or make the sweep smaller",
)
def quota(scene: Scene) -> Iterator[Placed]:
    for each in scene.of("ResourceQuota"):
        hard = mapping(each.value, "spec", "hard")
        for job in (j for j in scene.jobs if near(j.manifest.namespace, each.namespace)):
            for name, needed in needs(job, largest=False).items():
                keys = (name, f"requests.{name}")
                top = next((quantity(hard[key]) for key in keys if key in hard), None)
                if top is not None and needed > top:
                    said = f"head, submitter and fewest workers need {needed:g} of {name}"
                    said += f", and the quota {each.name} has {top:g}"
                    yield Placed(job.manifest, (*job.base, "rayClusterSpec"), said)


@BOUNDS.rule(
    "quota-counts",
    "What a quota counts is a kind of objects: count/PLURAL.GROUP.",
    "write count/rayjobs.ray.io; see `kubectl api-resources`",
)
def quota_counts(scene: Scene) -> Iterator[Placed]:
    plurals = {
        "ray.io": {"rayjobs", "rayclusters", "rayservices", "raycronjobs"},
        "batch": {"jobs", "cronjobs"},
    }
    for each in scene.of("ResourceQuota"):
        for key in mapping(each.value, "spec", "hard"):
            found = _COUNTED.fullmatch(key)
            if found and found[2] in plurals and found[1] not in plurals[found[2]]:
                said = f"{key} counts nothing: {found[2]} has {', '.join(sorted(plurals[found[2]]))}"
                yield Placed(each, ("spec", "hard", key), said)


@BOUNDS.rule(
    "key",
    "What is read from a ConfigMap or Secret of these files is one of its keys, or the pod never starts.",
    "add the key, or correct it",
    source="Kubernetes, volumes; environment variables",
)
def key(scene: Scene) -> Iterator[Placed]:
    for pod in scene.pods:
        wanted = [(r.kind, r.name, r.key, r.path) for r in of_pod(pod) if r.key and not r.optional]
        for place, volume in maps(pod.spec, "volumes"):
            for field, named, kind in (
                ("configMap", "name", "ConfigMap"),
                ("secret", "secretName", "Secret"),
            ):
                source = mapping(volume, field)
                for item, entry in maps(source, "items"):
                    at = (*pod.path, "volumes", place, field, "items", item, "key")
                    if source.get("optional") is not True:
                        wanted.append((kind, text(source, named), text(entry, "key"), at))
        for kind, name, one, path in wanted:
            found = scene.find(kind, name, pod.manifest.namespace)
            if found is None:
                continue
            there = {k for part in ("data", "binaryData", "stringData") for k in mapping(found.value, part)}
            if one and one not in there:
                said = f"the {kind} {name} of these files has no key {one!r}"
                yield Placed(pod.manifest, path, said)


@BOUNDS.rule(
    "service-port",
    "A service's targetPort, where it is a name, is a port of the pods that it selects.",
    "name the port of the container, or write its number",
    source="Kubernetes, Service",
)
def service_port(scene: Scene) -> Iterator[Placed]:
    for each in scene.of("Service"):
        selector = mapping(each.value, "spec", "selector")
        pods = [
            p
            for p in scene.pods
            if selector
            and p.role not in RAY_ROLES
            and near(p.manifest.namespace, each.namespace)
            and matches({"matchLabels": selector}, p.labels)
        ]
        names = {text(port, "name") for p in pods for c in p.containers for _, port in maps(c.value, "ports")}
        for place, port in maps(each.value, "spec", "ports"):
            target = dig(port, "targetPort")
            if pods and isinstance(target, str) and target not in names:
                said = f"no port of the pods is called {target!r}"
                yield Placed(each, ("spec", "ports", place, "targetPort"), said, Level.ERROR)
