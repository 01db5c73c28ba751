"""Rules of Kueue, and ours about clusters: a manifest that breaks each, and one beside it that does not."""

from __future__ import annotations

import lint_world as world
from lint_cases import (
    BOX,
    FIXED,
    GROUP,
    HEAD,
    HEAD_POD,
    KEPT,
    OPTIONS,
    QUEUE,
    SELECTED,
    SPEC,
    Case,
    rule_tests,
)
from lint_world import GONE

from hpsearch.ship.lint import kueue, ray_pods, ray_rules

BOOKS = (kueue.KUEUE, ray_rules.RAY, ray_pods.RAY_PODS)

# rule, what it is about, edits that break it, edits that do not
CASES: list[Case] = [
    # -- Kueue
    ("kueue/queue-name", world.queued, {QUEUE: "My Queue"}, {QUEUE: "my-queue"}),
    ("kueue/queue-name", world.queued, {f"metadata labels {kueue.PRIORITY}": ""}, {}),
    ("kueue/shutdown", world.queued, KEPT, {}),
    ("kueue/selector", world.queued, SELECTED, {}),
    (
        "kueue/autoscaling",
        world.queued,
        {f"{SPEC} enableInTreeAutoscaling": True},
        {f"{SPEC} enableInTreeAutoscaling": True, f"metadata annotations {kueue.ELASTIC}": "true"},
    ),
    (
        "kueue/groups",
        world.queued,
        {f"{SPEC} workerGroupSpecs": [{"groupName": f"g{i}", "template": {}} for i in range(17)]},
        {f"{SPEC} workerGroupSpecs": [{"groupName": f"g{i}", "template": {}} for i in range(16)]},
    ),
    ("kueue/group-head", world.queued, {f"{GROUP} groupName": "head"}, {}),
    ("kueue/cron-child", world.ray_cron, {"metadata labels": {kueue.QUEUE: "gpus"}}, {}),
    ("kueue/managed-by", world.queued, {"spec managedBy": "kueue.x-k8s.io/multikueue"}, {}),
    # -- ours: clusters
    ("ray/max-replicas", world.job, {f"{GROUP} maxReplicas": GONE}, {f"{GROUP} maxReplicas": 3}),
    ("ray/max-replicas", world.job, {f"{GROUP} maxReplicas": 2147483647}, {}),
    ("ray/replica-counts", world.job, {f"{GROUP} minReplicas": GONE}, {}),
    ("ray/version", world.job, {f"{SPEC} rayVersion": GONE}, {f"{SPEC} rayVersion": "2.53.0"}),
    ("ray/version", world.job, {f"{SPEC} rayVersion": "2.52.1"}, {}),
    ("ray/token", world.job, {f"{SPEC} authOptions": GONE}, {}),
    ("ray/token", world.job, {f"{SPEC} authOptions mode": "disabled"}, {}),
    ("ray/exposed", world.job, {f"{HEAD} serviceType": "NodePort"}, {f"{HEAD} serviceType": GONE}),
    ("ray/exposed", world.job, {f"{HEAD} serviceType": "LoadBalancer"}, {}),
    ("ray/exposed", world.job, {f"{HEAD} enableIngress": True}, {f"{HEAD} enableIngress": False}),
    ("ray/workers", world.job, {f"{SPEC} workerGroupSpecs": []}, {}),
    (
        "ray/one-image",
        world.job,
        {f"{GROUP} template spec containers 0 image": f"registry.example/hpsearch@sha256:{'b' * 64}"},
        {},
    ),
    ("ray/head-cpus", world.job, {f"{HEAD} rayStartParams num-cpus": "2"}, {}),
    (
        "ray/head-memory",
        world.job,
        {f"{BOX} resources limits memory": "4Gi"},
        {f"{BOX} resources limits memory": "9Gi"},
    ),
    (
        "ray/head-guaranteed",
        world.job,
        {f"{BOX} resources requests cpu": "1"},
        {f"{BOX} resources requests cpu": "2000m"},
    ),
    ("ray/head-stays", world.job, {f"{HEAD} template metadata annotations": GONE}, {}),
    ("ray/object-store", world.job, {f"{GROUP} rayStartParams object-store-memory": GONE}, {}),
    ("ray/object-store", world.job, {f"{GROUP} rayStartParams object-store-memory": str(7 << 30)}, {}),
    ("ray/autoscaler", world.job, {f"{OPTIONS} upscalingMode": "Aggressive"}, {}),
    (
        "ray/autoscaler",
        world.job,
        {f"{OPTIONS} idleTimeoutSeconds": 5},
        {f"{OPTIONS} idleTimeoutSeconds": 60},
    ),
    ("ray/autoscaler", world.job, {f"{OPTIONS} resources": GONE}, {}),
    (
        "ray/head-account",
        world.job,
        {f"{HEAD_POD} serviceAccountName": "me"},
        {**FIXED, f"{HEAD_POD} serviceAccountName": "me"},
    ),
    ("ray/head-account", world.job, {f"{HEAD_POD} automountServiceAccountToken": False}, {}),
    ("ray/probes", world.job, {f"{BOX} readinessProbe": {"exec": {"command": ["true"]}}}, {}),
    ("ray/lost-head", world.job, {f"{SPEC} gcsFaultToleranceOptions": {}}, {}),
    (
        "ray/grace",
        world.job,
        {f"{HEAD_POD} terminationGracePeriodSeconds": GONE},
        {f"{HEAD_POD} terminationGracePeriodSeconds": 60},
    ),
    (
        "ray/prestop",
        world.job,
        {f"{BOX} lifecycle preStop exec command": ["bash", "-c", "ray job stop $ID"]},
        {f"{BOX} lifecycle preStop exec command": ["bash", "-c", "ray job list"]},
    ),
    (
        "ray/start-parameters",
        world.job,
        {f"{HEAD} rayStartParams node-ip-address": "1.2.3.4"},
        {f"{HEAD} rayStartParams block": "true"},
    ),
    ("ray/ephemeral-storage", world.job, {f"{BOX} resources limits ephemeral-storage": GONE}, {}),
    (
        "ray/gpu-limits",
        world.job,
        {f"{GROUP} template spec containers 0 resources requests nvidia.com/gpu": "1"},
        {
            f"{GROUP} template spec containers 0 resources requests nvidia.com/gpu": "1",
            f"{GROUP} template spec containers 0 resources limits nvidia.com/gpu": 1,
        },
    ),
    ("ray/unused", world.job, {f"{HEAD_POD} volumes 0 name": "other"}, {}),
]


test_a_broken_rule_is_told_and_a_kept_one_is_not, test_each_rule_has_a_case = rule_tests(CASES, BOOKS)
