"""Selectors of budgets, policies and services: which of the pods in the files they mean."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from hpsearch.ship.job import Group, Job, Platform, Sweep
from hpsearch.ship.lint.cron_rules import launches
from hpsearch.ship.lint.document import Document
from hpsearch.ship.lint.finding import Level, Path
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.pods import HEAD, RAY_ROLES, Pod, pods_of
from hpsearch.ship.lint.ray_objects import job_of
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.scene import Placed, Scene, near
from hpsearch.ship.lint.shape import dig, mapping, maps, text, texts
from hpsearch.ship.render import ray_job

SELECTORS: Rulebook[Scene, Placed] = Rulebook("selector", "Kubernetes, label selectors")
# Labels whose values only the operator knows.
UNKNOWN = ("ray.io/cluster", "ray.io/identifier")
# Labels that tell one sweep's pods from those of all others.
OF_ONE = ("hpsearch/rayjob", "app.kubernetes.io/instance", "ray.io/originated-from-cr-name", "ray.io/cluster")
OPERATED = ("ray.io/", "batch.kubernetes.io/", "job-name")


def matches(selector: Any, labels: Mapping[str, str]) -> bool:
    """Whether a label selector means a pod with these labels. An empty one means all."""
    for key, value in mapping(selector, "matchLabels").items():
        if key not in UNKNOWN and labels.get(key) != value:
            return False
    for _, wanted in maps(selector, "matchExpressions"):
        key, values = text(wanted, "key"), texts(wanted, "values")
        held = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if key not in UNKNOWN and not held.get(text(wanted, "operator"), False):
            return False
    return True


def keys(selector: Any) -> list[str]:
    """The labels that a selector asks for."""
    return [
        *mapping(selector, "matchLabels"),
        *(text(each, "key") for _, each in maps(selector, "matchExpressions")),
    ]


def _chosen(scene: Scene, manifest: Manifest, selector: Any) -> list[Pod]:
    return [
        pod
        for pod in scene.pods
        if near(pod.manifest.namespace, manifest.namespace) and matches(selector, pod.labels)
    ]


def _means_later(scene: Scene, selector: Any) -> bool:
    """Whether a selector means pods of sweeps that are launched later, by a CronJob of these files."""
    if not any(launches(manifest) for manifest in scene.of("CronJob", "batch")):
        return False
    return any(matches(selector, labels) for labels in launched())


@functools.cache
def launched() -> tuple[dict[str, str], ...]:
    """The labels of the pods of a launched sweep, without those that tell sweeps apart."""
    group = Group(name="workers", max_replicas=1)
    platform = Platform(image=f"hpsearch@sha256:{'0' * 64}", groups=(group,))
    job = Job(
        name="sweep",
        study="sweep",
        sweep=Sweep(text=""),
        sweep_name="sweep",
        platform=platform,
        ray_version="2.60.0",
        deadline=3600,
    )
    manifest = Manifest("", Document(), ray_job(job))
    whole = job_of(manifest, manifest.value, frozenset())
    pods = pods_of(manifest, whole, whole.cluster if whole else None)
    return tuple({key: value for key, value in pod.labels.items() if key not in OF_ONE} for pod in pods)


def _judged(scene: Scene, selector: Any) -> bool:
    """Whether the files show the pods that a selector may mean: Ray's pods are often started later."""
    if any(key.startswith(OPERATED) or key in OF_ONE for key in keys(selector)):
        return any(pod.role in RAY_ROLES for pod in scene.pods)
    return bool(scene.pods) and not _means_later(scene, selector)


@SELECTORS.rule(
    "nothing", "A budget, policy or service selects some pod.", "correct the labels", level=Level.WARNING
)
def nothing(scene: Scene) -> Iterator[Placed]:
    for manifest, path, selector in _selecting(scene):
        if keys(selector) and _judged(scene, selector) and not _chosen(scene, manifest, selector):
            wanted = ", ".join(keys(selector))
            yield Placed(manifest, path, f"no pod in these files has what is asked for by {wanted}")


def _selecting(scene: Scene) -> Iterator[tuple[Manifest, Path, Any]]:
    for each in scene.of("PodDisruptionBudget", "policy"):
        yield each, ("spec", "selector"), dig(each.value, "spec", "selector")
    for each in scene.of("NetworkPolicy", "networking.k8s.io"):
        yield each, ("spec", "podSelector"), dig(each.value, "spec", "podSelector")
    for each in scene.of("Service"):
        yield each, ("spec", "selector"), {"matchLabels": mapping(each.value, "spec", "selector")}


@SELECTORS.rule(
    "template",
    "A workload selects the pods of its own template.",
    "let selector.matchLabels be among the template's labels",
    source="Kubernetes, validation of workloads",
)
def template(scene: Scene) -> Iterator[Placed]:
    for pod in scene.pods:
        manifest = pod.manifest
        selector = dig(manifest.value, "spec", "selector")
        if manifest.group == "apps" and isinstance(selector, dict) and not matches(selector, pod.labels):
            yield Placed(manifest, ("spec", "selector"), "the selector does not mean the template's own pods")


@SELECTORS.rule(
    "budget-amount",
    "A budget for Ray's pods says minAvailable as a whole number: a custom controller's pods allow "
    "nothing else.",
    "write minAvailable: 1",
    source="Kubernetes, PodDisruptionBudget: arbitrary controllers",
)
def budget_amount(scene: Scene) -> Iterator[Placed]:
    for each in scene.of("PodDisruptionBudget", "policy"):
        if not _of_ray(scene, each):
            continue
        spec = mapping(each.value, "spec")
        for name in ("minAvailable", "maxUnavailable"):
            given = spec.get(name)
            if given is not None and (name == "maxUnavailable" or not isinstance(given, int)):
                yield Placed(
                    each, ("spec", name), f"{name} {given} for pods of a custom controller protects nothing"
                )


def _of_ray(scene: Scene, budget: Manifest) -> bool:
    selector = dig(budget.value, "spec", "selector")
    by_label = any(key.startswith("ray.io/") for key in keys(selector))
    return by_label or any(
        pod.role in RAY_ROLES for pod in _chosen(scene, budget, selector) if keys(selector)
    )


@SELECTORS.rule(
    "budget-shared",
    "Each sweep's head has a budget of its own: a shared one lets all heads but one be evicted.",
    "add a label of the one sweep to the selector",
)
def budget_shared(scene: Scene) -> Iterator[Placed]:
    for each in scene.of("PodDisruptionBudget", "policy"):
        selector = dig(each.value, "spec", "selector")
        if _of_ray(scene, each) and not set(keys(selector)) & set(OF_ONE):
            yield Placed(each, ("spec", "selector"), "one budget for the heads of all sweeps")


@SELECTORS.rule(
    "budget-head",
    "A job's head is protected from drains: its loss costs the whole cluster.",
    "add a PodDisruptionBudget with minAvailable: 1 that selects the head",
    level=Level.WARNING,
)
def budget_head(scene: Scene) -> Iterator[Placed]:
    budgets = list(scene.of("PodDisruptionBudget", "policy"))
    for pod in scene.pods:
        if pod.role != HEAD or pod.manifest.kind != "RayJob":
            continue
        mine = [b for b in budgets if near(b.namespace, pod.manifest.namespace)]
        selectors = [dig(b.value, "spec", "selector") for b in mine]
        if not any(keys(selector) and matches(selector, pod.labels) for selector in selectors):
            yield Placed(pod.manifest, ("metadata", "name"), "no PodDisruptionBudget protects the head")


@SELECTORS.rule(
    "budget-mixed",
    "A head's budget selects the head alone: with workers in it one pod that stays is enough.",
    "add ray.io/node-type: head to the selector",
    level=Level.WARNING,
)
def budget_mixed(scene: Scene) -> Iterator[Placed]:
    for each in scene.of("PodDisruptionBudget", "policy"):
        selector = dig(each.value, "spec", "selector")
        roles = {pod.role for pod in _chosen(scene, each, selector)} if keys(selector) else set()
        if HEAD in roles and roles - {HEAD}:
            yield Placed(each, ("spec", "selector"), f"one budget for {' and '.join(sorted(roles))}")
