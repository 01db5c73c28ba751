"""Rules of KubeRay's operator: a manifest that breaks each, and one beside it that does not."""

from __future__ import annotations

import lint_world as world
from lint_cases import (
    BOX,
    FIXED,
    GROUP,
    HEAD,
    HEAD_POD,
    KEPT,
    LEGACY,
    NO_SUBMITTER,
    OPTIONS,
    PLAIN_GROUPS,
    RULE,
    SELECTED,
    SIDECAR,
    SPEC,
    Case,
    env,
    rule,
    rule_tests,
    service,
    service_at,
)
from lint_world import GONE

from hpsearch.ship.lint import kuberay_clusters, kuberay_deletion, kuberay_jobs, kuberay_options

BOOKS = (kuberay_jobs.JOBS, kuberay_deletion.DELETION, kuberay_clusters.CLUSTERS, kuberay_options.OPTIONS)

# rule, what it is about, edits that break it, edits that do not
CASES: list[Case] = [
    # -- the operator, jobs
    ("kuberay/job-name", world.job, {"metadata name": "a" * 48}, {"metadata name": "a" * 47}),
    ("kuberay/job-name", world.job, {"metadata name": "1-mpg"}, {"metadata name": "mpg-1"}),
    ("kuberay/job-name", world.ray_cron, {"metadata name": "a" * 37}, {"metadata name": "a" * 36}),
    ("kuberay/suspend-needs-shutdown", world.job, {"spec suspend": True, **KEPT}, {"spec suspend": True}),
    ("kuberay/suspend-selector", world.job, {**SELECTED, "spec suspend": True}, SELECTED),
    (
        "kuberay/ttl-negative",
        world.job,
        {"spec ttlSecondsAfterFinished": -1},
        {"spec ttlSecondsAfterFinished": 0},
    ),
    ("kuberay/ttl-needs-shutdown", world.job, {"spec shutdownAfterJobFinishes": False}, KEPT),
    ("kuberay/cluster-or-selector", world.job, {SPEC: GONE}, {SPEC: GONE, **SELECTED}),
    ("kuberay/selector-name", world.job, {"spec clusterSelector": {"name": "mine"}}, SELECTED),
    ("kuberay/selector-sidecar", world.job, {**SELECTED, **SIDECAR}, SELECTED),
    ("kuberay/backoff-selector", world.job, {**SELECTED, "spec backoffLimit": 1}, SELECTED),
    (
        "kuberay/backoff-interactive",
        world.job,
        {"spec submissionMode": "InteractiveMode"},
        {"spec submissionMode": "InteractiveMode", "spec backoffLimit": 0},
    ),
    ("kuberay/backoff-negative", world.job, {"spec backoffLimit": -1}, {"spec backoffLimit": 0}),
    ("kuberay/deadline-positive", world.job, {"spec activeDeadlineSeconds": 0}, {}),
    ("kuberay/deadline-positive", world.job, {"spec preRunningDeadlineSeconds": -5}, {}),
    (
        "kuberay/submission-mode",
        world.job,
        {"spec submissionMode": "k8sJobMode"},
        {"spec submissionMode": GONE},  # the schema's default
    ),
    ("kuberay/sidecar-submitter", world.job, SIDECAR, {**SIDECAR, **NO_SUBMITTER}),
    ("kuberay/sidecar-restart", world.job, {**SIDECAR, f"{HEAD_POD} restartPolicy": "Always"}, SIDECAR),
    ("kuberay/k8s-token-auth", world.job, {f"{SPEC} authOptions enableK8sTokenAuth": True}, {}),
    ("kuberay/upgrade-strategy", world.job, {f"{SPEC} upgradeStrategy": {"type": "Recreate"}}, {}),
    (
        "kuberay/runtime-env",
        world.job,
        {"spec runtimeEnvYAML": "a: ["},
        {"spec runtimeEnvYAML": "env_vars: {A: b}"},
    ),
    ("kuberay/runtime-env", world.job, {"spec runtimeEnvYAML": "- a"}, {"spec runtimeEnvYAML": ""}),
    ("kuberay/deprecated-version", world.job, {"apiVersion": "ray.io/v1alpha1"}, {}),
    # -- the operator, deletion
    ("kuberay/rules-exclude-shutdown", world.retained, {"spec shutdownAfterJobFinishes": True}, {}),
    (
        "kuberay/rules-exclude-legacy",
        world.retained,
        {"spec deletionStrategy onSuccess": {"policy": "DeleteSelf"}},
        LEGACY,
    ),
    (
        "kuberay/strategy-empty",
        world.retained,
        {"spec deletionStrategy": {}},
        {"spec deletionStrategy": GONE},
    ),
    ("kuberay/legacy-deprecated", world.retained, LEGACY, {}),
    (
        "kuberay/legacy-both",
        world.retained,
        {"spec deletionStrategy": {"onSuccess": {"policy": "DeleteSelf"}}},
        LEGACY,
    ),
    (
        "kuberay/legacy-none-shutdown",
        world.job,
        {**LEGACY, "spec deletionStrategy onFailure": {"policy": "DeleteNone"}},
        LEGACY,
    ),
    ("kuberay/rule-condition", world.retained, {f"{RULE} 0 condition": {"ttlSeconds": 1}}, {}),
    (
        "kuberay/rule-condition",
        world.retained,
        {f"{RULE} 0": rule("DeleteSelf", jobStatus="FAILED", jobDeploymentStatus="Failed")},
        {f"{RULE} 0": rule("DeleteSelf", jobStatus="FAILED")},
    ),
    (
        "kuberay/rule-status",
        world.retained,
        {f"{RULE} 0 condition jobStatus": "STOPPED"},
        {f"{RULE} 0 condition jobStatus": "FAILED"},
    ),
    (
        "kuberay/rule-ttl",
        world.retained,
        {f"{RULE} 0 condition ttlSeconds": -1},
        {f"{RULE} 0 condition ttlSeconds": 0},
    ),
    (
        "kuberay/delete-selected",
        world.retained,
        SELECTED,
        {**SELECTED, f"{RULE} 0 policy": "DeleteSelf", f"{RULE} 1 policy": "DeleteNone"},
    ),
    (
        "kuberay/delete-workers-autoscaling",
        world.retained,
        {f"{RULE} 0 policy": "DeleteWorkers"},
        {f"{RULE} 0 policy": "DeleteWorkers", **FIXED},
    ),
    (
        "kuberay/rule-twice",
        world.retained,
        {f"{RULE} 2": rule("DeleteCluster", 5, jobStatus="SUCCEEDED")},
        {f"{RULE} 2": rule("DeleteSelf", 5, jobStatus="SUCCEEDED")},
    ),
    (
        "kuberay/rule-order",
        world.retained,
        {f"{RULE} 2": rule("DeleteSelf", 5, jobDeploymentStatus="Failed")},
        {f"{RULE} 2": rule("DeleteSelf", 1800, jobDeploymentStatus="Failed")},
    ),
    # -- the operator, clusters
    ("kuberay/cluster-name", world.cluster, {"metadata name": "a" * 54}, {"metadata name": "a" * 53}),
    ("kuberay/cluster-name", service, {"metadata name": "a" * 48}, {"metadata name": "a" * 47}),
    ("kuberay/containers", world.job, {f"{HEAD_POD} containers": []}, {}),
    ("kuberay/containers", world.job, {f"{GROUP} template spec containers": GONE}, {}),
    ("kuberay/group-name", world.job, {f"{GROUP} groupName": "Spot"}, {f"{GROUP} groupName": "spot-1"}),
    ("kuberay/group-name", world.job, {f"{GROUP} groupName": "head"}, {}),
    ("kuberay/group-name", world.job, {f"{GROUP} groupName": "on-demand"}, {}),
    (
        "kuberay/group-resources",
        world.job,
        {f"{GROUP} resources": {"CPU": "4"}},
        {f"{GROUP} resources": {"CPU": "4"}, f"{GROUP} rayStartParams memory": GONE},
    ),
    (
        "kuberay/group-labels",
        world.job,
        {f"{GROUP} rayStartParams labels": "a=b"},
        {f"{GROUP} labels": {"ray.io/a": "b"}},
    ),
    ("kuberay/label-syntax", world.job, {f"{HEAD} labels": {"a b": "c"}}, {f"{HEAD} labels": {"a/b": "c"}}),
    ("kuberay/label-syntax", world.job, {f"{GROUP} labels": {"a": "-c"}}, {f"{GROUP} labels": {"a": ""}}),
    ("kuberay/replicas", world.job, {f"{GROUP} minReplicas": 3}, {f"{GROUP} minReplicas": 2}),
    ("kuberay/replicas", world.job, {f"{GROUP} maxReplicas": -1}, {}),
    ("kuberay/idle-timeout", world.job, {f"{GROUP} idleTimeoutSeconds": -1}, {}),
    ("kuberay/idle-timeout", world.job, FIXED, {**FIXED, **PLAIN_GROUPS}),
    ("kuberay/idle-timeout", world.job, {f"{OPTIONS} idleTimeoutSeconds": -1}, {}),
    ("kuberay/priority", world.job, {f"{SPEC} rayVersion": "2.55.1"}, {f"{SPEC} rayVersion": "2.56.0"}),
    (
        "kuberay/priority",
        world.job,
        {f"{OPTIONS} version": "v1"},
        {f"{OPTIONS} version": "v1", **PLAIN_GROUPS},
    ),
    (
        "kuberay/suspend-autoscaling",
        world.job,
        {f"{GROUP} suspend": True},
        {f"{GROUP} suspend": True, **FIXED},
    ),
    ("kuberay/autoscaler-variable", world.job, env("RAY_enable_autoscaler_v2", "1"), {}),
    (
        "kuberay/autoscaler-variable",
        world.job,
        {**FIXED, **env("RAY_enable_autoscaler_v2", "true")},
        {**FIXED, **env("RAY_enable_autoscaler_v2", "0")},
    ),
    (
        "kuberay/autoscaler-restart",
        world.job,
        {f"{GROUP} template spec restartPolicy": "Always"},
        {f"{GROUP} template spec restartPolicy": GONE},
    ),
    (
        "kuberay/autoscaler-start",
        world.job,
        {f"{OPTIONS} env": [{"name": "KUBERAY_GEN_AUTOSCALER_START_CMD", "value": "x"}]},
        {f"{OPTIONS} env": [{"name": "A", "value": "x"}]},
    ),
    ("kuberay/token-version", world.job, {f"{SPEC} rayVersion": "2.51.9"}, {f"{SPEC} rayVersion": "2.52.0"}),
    ("kuberay/token-version", world.job, {f"{SPEC} rayVersion": "nightly"}, {}),
    (
        "kuberay/k8s-token",
        world.cluster,
        {"spec authOptions": {"enableK8sTokenAuth": True}},
        {"spec authOptions": {"enableK8sTokenAuth": True, "mode": "token"}},
    ),
    (
        "kuberay/k8s-token",
        world.cluster,
        {"spec authOptions": {"enableK8sTokenAuth": True, "mode": "token", "secretName": "a"}},
        {},
    ),
    (
        "kuberay/k8s-token",
        world.cluster,
        {"spec authOptions enableK8sTokenAuth": True, "spec rayVersion": "2.54.0"},
        {"spec authOptions enableK8sTokenAuth": True, "spec rayVersion": "2.55.0"},
    ),
    (
        "kuberay/service-head-name",
        service,
        {service_at(f"{HEAD} headService"): {"metadata": {"name": "mine"}}},
        {service_at(f"{HEAD} headService"): {"metadata": {"labels": {"a": "b"}}}},
    ),
    ("kuberay/deprecated-cluster-version", world.cluster, {"apiVersion": "ray.io/v1alpha1"}, {}),
    # -- the operator, options
    ("kuberay/gate", world.job, {f"{SPEC} networkPolicy": {}}, {}),
    ("kuberay/gate", world.job, {f"{SPEC} tlsOptions": {"enabled": True}}, {}),
    ("kuberay/gate", world.job, {f"{SPEC} historyServerOptions": {}}, {}),
    ("kuberay/gate", world.job, {f"{SPEC} gcsFaultToleranceOptions": {"backend": "rocksdb"}}, {}),
    (
        "kuberay/gcs-both",
        world.job,
        {"metadata annotations ray.io/ft-enabled": "true", f"{SPEC} gcsFaultToleranceOptions": {}},
        {f"{SPEC} gcsFaultToleranceOptions": {}},
    ),
    (
        "kuberay/gcs-redis",
        world.job,
        env("RAY_REDIS_ADDRESS", "redis:6379"),
        {**env("RAY_REDIS_ADDRESS", "redis:6379"), "metadata annotations ray.io/ft-enabled": "true"},
    ),
    ("kuberay/gcs-redis", world.job, env("REDIS_USERNAME", "me"), {}),
    ("kuberay/gcs-redis", world.job, {f"{HEAD} rayStartParams redis-username": "me"}, {}),
    (
        "kuberay/gcs-redis",
        world.job,
        {f"{SPEC} gcsFaultToleranceOptions": {}, f"{HEAD} rayStartParams redis-password": "$X"},
        {f"{HEAD} rayStartParams redis-password": "$X"},
    ),
    (
        "kuberay/gcs-backend",
        world.job,
        {f"{SPEC} gcsFaultToleranceOptions": {"backend": "rocksdb", "redisAddress": "a"}},
        {f"{SPEC} gcsFaultToleranceOptions": {"backend": "redis", "redisAddress": "a"}},
    ),
    (
        "kuberay/gcs-backend",
        world.job,
        {f"{SPEC} gcsFaultToleranceOptions": {"storage": {"size": "1Gi"}}},
        {f"{SPEC} gcsFaultToleranceOptions": {"backend": "rocksdb", "storage": {"size": "1Gi"}}},
    ),
    (
        "kuberay/history-server",
        world.job,
        {f"{SPEC} historyServerOptions": {}},
        {f"{SPEC} historyServerOptions": {"collectorOptions": {"image": "a"}}},
    ),
    (
        "kuberay/network-policy",
        world.job,
        {f"{SPEC} networkPolicy": {"workerGroups": [{"groupName": "nobody"}]}},
        {f"{SPEC} networkPolicy": {"workerGroups": [{"groupName": "spot"}]}},
    ),
    (
        "kuberay/network-policy",
        world.job,
        {f"{SPEC} networkPolicy": {"mode": "DenyAllEgress", "head": {"ingressRules": [{}]}}},
        {f"{SPEC} networkPolicy": {"mode": "DenyAllIngress", "head": {"ingressRules": [{}]}}},
    ),
    (
        "kuberay/tls",
        world.job,
        {f"{SPEC} tlsOptions": {"enabled": True}, **env("RAY_USE_TLS", "1")},
        env("RAY_USE_TLS", "1"),
    ),
    (
        "kuberay/collector-name",
        world.job,
        {f"{SPEC} historyServerOptions": {}, f"{BOX} name": "collector"},
        {f"{BOX} name": "collector"},
    ),
]


test_a_broken_rule_is_told_and_a_kept_one_is_not, test_each_rule_has_a_case = rule_tests(CASES, BOOKS)


def test_a_gate_that_the_operator_has_on_is_no_fault() -> None:
    made = world.job()
    world.edited(made[1], f"{SPEC} networkPolicy", {})
    assert "kuberay/gate" in {f.rule for f in world.ruled(*made)}
    gates = frozenset({"RayClusterNetworkPolicy"})
    assert "kuberay/gate" not in {f.rule for f in world.ruled(*made, gates=gates)}
