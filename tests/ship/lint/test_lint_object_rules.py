"""Rules about other objects and about all together: rights, doors, budgets, policies, names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lint_world as world
import pytest
from lint_cases import Case, rule_tests
from lint_world import GONE, Object

from hpsearch.ship.lint import (
    conflicts,
    kustomizations,
    network_rules,
    object_rules,
    references,
    selectors,
)

BOOKS = (
    object_rules.OBJECTS,
    object_rules.BUDGETS,
    object_rules.POLICIES,
    kustomizations.KUSTOMIZATIONS,
    kustomizations.TREES,
    references.REFERENCES,
    selectors.SELECTORS,
    network_rules.NETWORK,
    conflicts.CONFLICTS,
)
JOB = "spec jobTemplate spec"
CRON_POD = f"{JOB} template spec"
LAUNCHER = f"{CRON_POD} containers 0"
WORDS = ["launch", "/etc/hpsearch/sweep.yaml", "--job-name", "$(JOB_NAME)", "--wait"]
LABELS = "metadata labels pod-security.kubernetes.io/"


def cron() -> list[Object]:
    return world.documents(world.CRONJOB)


def platform() -> list[Object]:
    return [*world.documents(world.PLATFORM), *cron(), *world.job()]


def one(kind: str, name: str) -> Callable[[], list[Object]]:
    """One object of the platform."""
    return lambda: [e for e in platform() if (e["kind"], e["metadata"]["name"]) == (kind, name)]


def kustomization() -> list[Object]:
    made = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "metadata": {"name": "x"},
    }
    return [{**made, "metadata": {"name": "x"}, "resources": ["a.yaml"]}, *world.job()]


def thing(kind: str, group: str = "v1", name: str = "other", **fields: Any) -> dict[str, Any]:
    """Another object, added by an edit `+`."""
    made = {"apiVersion": group, "kind": kind, "metadata": {"name": name, "namespace": "hpsearch"}}
    return {**made, **fields}


role, budget, deny = (
    one("Role", "hpsearch-launch"),
    one("PodDisruptionBudget", "auto-mpg-head"),
    one("NetworkPolicy", "deny"),
)
ray_policy = one("NetworkPolicy", "ray")
PATCH = "{apiVersion: ray.io/v1, kind: RayJob, spec: {rayClusterSpec: {workerGroupSpecs: [{groupName: a}]}}}"
SWEEP_TEXT = "ConfigMap/auto-mpg-sweep data sweep.yaml"
NIGHTLY_TEXT = "ConfigMap/nightly-sweep data sweep.yaml"
MANY = world.SWEEP.replace("maxParallelTrials: 4", "maxParallelTrials: 40")
TIMEOUT = "hpsearch: {limits: {studyTimeout: 1h}}\n"
DRIVER = "hpsearch run /etc/hpsearch/sweep.yaml --study a --resume auto"
JSON_PATCH = "- {op: replace, path: /spec/suspend, value: true}"

# rule, what it is about, edits that break it, edits that do not
CASES: list[Case] = [
    ("object/door", cron, {"+": thing("Ingress", "networking.k8s.io/v1")}, {"+": thing("Service", spec={})}),
    (
        "object/service-type",
        cron,
        {"+": thing("Service", spec={"type": "NodePort"})},
        {"+": thing("Service", spec={"type": "ClusterIP"})},
    ),
    ("object/service-type", cron, {"+": thing("Service", spec={"type": "LoadBalancer"})}, {}),
    ("object/namespace-security", one("Namespace", "hpsearch"), {f"{LABELS}enforce": "baseline"}, {}),
    ("object/namespace-security", one("Namespace", "hpsearch"), {f"{LABELS}enforce-version": "latest"}, {}),
    ("object/namespace-security", one("Namespace", "hpsearch"), {"metadata labels": GONE}, {}),
    ("object/quota", one("ResourceQuota", "all"), {"spec hard count/rayjobs.ray.io": GONE}, {}),
    ("object/rights-wildcard", role, {"rules 0 verbs": ["*"]}, {}),
    (
        "object/rights-strong",
        role,
        {"rules 1": {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}},
        {},
    ),
    ("object/rights-launcher", role, {"rules 0 verbs": ["create", "delete"]}, {}),
    ("object/binding", one("RoleBinding", "hpsearch-launch"), {"subjects 0 name": "default"}, {}),
    ("object/binding", one("RoleBinding", "hpsearch-launch"), {"roleRef name": "cluster-admin"}, {}),
    ("budget/selector", budget, {"spec selector": {}}, {}),
    ("budget/selector", budget, {"spec selector": GONE}, {}),
    ("budget/amount", budget, {"spec maxUnavailable": 1}, {}),
    ("budget/broken-pods", budget, {"spec unhealthyPodEvictionPolicy": GONE}, {}),
    ("network/open-ray", ray_policy, {"spec ingress 0 from": GONE}, {}),
    (
        "network/open-ray",
        ray_policy,
        {"spec ingress 0": {"ports": [{"port": 8265}]}},
        {"spec ingress 0": {"ports": [{"port": 8080}]}},
    ),
    ("network/open-ray", ray_policy, {"spec ingress 0 from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}, {}),
    ("network/open-egress", ray_policy, {"spec egress": [{}]}, {}),
    (
        "network/open-egress",
        ray_policy,
        {"spec egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]},
        {"spec egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443}]}]},
    ),
    # -- kustomize
    (
        "kustomize/merge-patch",
        kustomization,
        {"Kustomization/x patches": [{"patch": PATCH}]},
        {"Kustomization/x patches": [{"patch": JSON_PATCH}]},
    ),
    ("kustomize/merge-patch", kustomization, {"Kustomization/x patchesStrategicMerge": [PATCH + "\n"]}, {}),
    (
        "kustomize/deprecated",
        kustomization,
        {"Kustomization/x commonLabels": {"a": "b"}},
        {"Kustomization/x labels": []},
    ),
    (
        "kustomize/names",
        kustomization,
        {"Kustomization/x namePrefix": "dev-"},
        {"Kustomization/x namePrefix": "dev-", "Kustomization/x configurations": ["kuberay-refs.yaml"]},
    ),
    # -- references
    (
        "reference/pod",
        platform,
        {"ConfigMap/nightly-sweep": GONE},
        {"+": thing("Secret", name="mlflow")},
    ),
    ("reference/binding", platform, {"Role/hpsearch-launch": GONE}, {}),
    ("reference/binding", platform, {"ServiceAccount/hpsearch-launch": GONE}, {}),
    (
        "reference/claim",
        platform,
        {"PersistentVolumeClaim/hpsearch-studies spec accessModes": ["ReadWriteOnce"]},
        {},
    ),
    # -- selectors
    (
        "selector/nothing",
        platform,
        {"NetworkPolicy/ray spec podSelector": {"matchLabels": {"ray.io/node-type": "boss"}}},
        {},
    ),
    (
        "selector/nothing",
        platform,
        {"+": thing("Service", spec={"selector": {"app": "mlfow"}})},
        {"+": thing("Service", spec={"selector": {"ray.io/node-type": "head"}})},
    ),
    (
        "selector/template",
        lambda: world.documents(world.SERVER),
        {"spec selector matchLabels app": "other"},
        {},
    ),
    ("selector/budget-amount", platform, {"PodDisruptionBudget/auto-mpg-head spec minAvailable": "50%"}, {}),
    (
        "selector/budget-amount",
        platform,
        {
            "PodDisruptionBudget/auto-mpg-head spec": {
                "maxUnavailable": 0,
                "selector": {"matchLabels": {"ray.io/node-type": "head"}},
            }
        },
        {},
    ),
    (
        "selector/budget-shared",
        platform,
        {"PodDisruptionBudget/auto-mpg-head spec selector": {"matchLabels": {"ray.io/node-type": "head"}}},
        {},
    ),
    ("selector/budget-head", platform, {"PodDisruptionBudget/auto-mpg-head": GONE}, {}),
    # -- network and quota
    ("network/default-deny", platform, {"NetworkPolicy/deny": GONE}, {}),
    ("network/default-deny", platform, {"NetworkPolicy/deny spec policyTypes": ["Ingress"]}, {}),
    ("network/dns", platform, {"NetworkPolicy/dns": GONE}, {}),
    ("network/ray", platform, {"NetworkPolicy/ray": GONE}, {}),
    ("network/quota", platform, {"ResourceQuota/all": GONE}, {}),
    ("network/quota", platform, {"LimitRange/each": GONE}, {}),
    # -- together
    (
        "conflict/twice",
        platform,
        {"+": thing("ConfigMap", name="nightly-sweep")},
        {"+": thing("ConfigMap", name="nightly-swee")},
    ),
    (
        "conflict/job-name",
        platform,
        {"+": thing("Job", "batch/v1", name="auto-mpg")},
        {"+": thing("Job", "batch/v1", name="auto-mp")},
    ),
    (
        "conflict/job-name",
        platform,
        {"RayJob/auto-mpg metadata name": "nightly-29012345"},
        {"RayJob/auto-mpg metadata name": "nightly-29012345-r"},
    ),
    (
        "conflict/stale-image",
        platform,
        {"+": thing("ConfigMap", data={"image": f"registry.example/hpsearch@sha256:{'b' * 64}"})},
        {"+": thing("ConfigMap", data={"image": world.IMAGE})},
    ),
    (
        "conflict/two-digests",
        platform,
        {f"CronJob/nightly {LAUNCHER} image": f"registry.example/hpsearch@sha256:{'b' * 64}"},
        {f"CronJob/nightly {LAUNCHER} image": f"registry.example/other@sha256:{'b' * 64}"},
    ),
    ("conflict/account-token", platform, {"RoleBinding/hpsearch-launch subjects 0 name": "hpsearch-run"}, {}),
    ("conflict/fit", platform, {SWEEP_TEXT: MANY}, {SWEEP_TEXT: world.SWEEP}),
    (
        "conflict/launch-deadline",
        platform,
        {NIGHTLY_TEXT: world.SWEEP, f"CronJob/nightly {LAUNCHER} args": WORDS},
        {NIGHTLY_TEXT: world.SWEEP + TIMEOUT, f"CronJob/nightly {LAUNCHER} args": WORDS},
    ),
    (
        "conflict/sweep-deadline",
        platform,
        {SWEEP_TEXT: world.SWEEP + TIMEOUT.replace("1h", "2h"), "spec entrypoint": DRIVER},
        {SWEEP_TEXT: world.SWEEP + TIMEOUT, "spec entrypoint": DRIVER},
    ),
    ("conflict/launcher-account", cron, {f"{CRON_POD} serviceAccountName": GONE}, {}),
    (
        "selector/budget-mixed",
        platform,
        {"PodDisruptionBudget/auto-mpg-head spec selector matchLabels ray.io/node-type": GONE},
        {},
    ),
    (
        "network/ray",
        platform,
        {"NetworkPolicy/ray spec ingress 0 ports": [{"port": 8265}]},
        {"NetworkPolicy/ray spec ingress 0 ports": [{"port": 1024, "endPort": 65535}]},
    ),
    (
        "conflict/account-token",
        platform,
        {"RoleBinding/hpsearch-launch subjects 0 namespace": "other"},
        {"RoleBinding/hpsearch-launch subjects 0 namespace": "hpsearch"},
    ),
    ("conflict/unread-config", platform, {"spec entrypoint": "hpsearch run /etc/other/sweep.yaml"}, {}),
]


test_a_broken_rule_is_told_and_a_kept_one_is_not, test_each_rule_has_a_case = rule_tests(CASES, BOOKS)


def test_a_secret_that_no_file_has_is_a_note_and_strictly_an_error() -> None:
    def level(**wishes: Any) -> set[str]:
        found = world.ruled(*platform(), **wishes)
        return {str(f.level) for f in found if "no Secret mlflow" in f.message}

    assert level() == {"note"}
    assert level(strict_references=True) == {"error"}


def test_a_name_that_kustomize_did_not_rewrite_is_an_error_that_says_why() -> None:
    made = platform()
    world.edited(made[-3], "metadata name", "auto-mpg-sweep-7kk2h2b9d4")
    found = [f for f in world.ruled(*made) if f.rule == "reference/pod" and "auto-mpg-sweep" in f.message]
    assert [str(f.level) for f in found] == ["error"]
    assert found[0].message.endswith("but auto-mpg-sweep-7kk2h2b9d4")
    assert "nameReference" in found[0].hint


def test_a_policy_may_mean_the_pods_of_sweeps_that_are_launched_later() -> None:
    later = thing("NetworkPolicy", "networking.k8s.io/v1", spec={"podSelector": {"matchLabels": {}}})
    names = {"app.kubernetes.io/name": "hpsearch"}
    world.edited(later, "spec podSelector matchLabels", names)
    without = [each for each in platform() if each["kind"] not in ("RayJob", "PodDisruptionBudget")]
    assert "selector/nothing" not in {f.rule for f in world.ruled(*without, later)}
    launcherless = [each for each in without if each["kind"] != "CronJob"] + world.documents(world.SERVER)
    assert "selector/nothing" in {f.rule for f in world.ruled(*launcherless, later)}


@pytest.mark.parametrize(
    ("expression", "meant"),
    [
        ({"key": "a", "operator": "In", "values": ["b"]}, True),
        ({"key": "a", "operator": "NotIn", "values": ["b"]}, False),
        ({"key": "c", "operator": "NotIn", "values": ["b"]}, True),
        ({"key": "a", "operator": "Exists"}, True),
        ({"key": "c", "operator": "DoesNotExist"}, True),
        ({"key": "a", "operator": "Sometimes"}, False),
    ],
)
def test_label_selectors_mean_what_they_mean_to_kubernetes(expression: Object, meant: bool) -> None:
    assert selectors.matches({"matchExpressions": [expression]}, {"a": "b"}) is meant
