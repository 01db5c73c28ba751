"""Rules about pods: security, images, limits, tokens, secrets, MLflow's server, and what operators add."""

from __future__ import annotations

import time

import lint_world as world
import pytest
from lint_cases import BOX, GROUP, HEAD_POD, OPTIONS, SUBMITTER, Case, rule_tests
from lint_world import GONE, IMAGE, Object

from hpsearch.ship.lint import mlflow_rules, pod_rules, pod_security, secret_rules

BOOKS = (pod_security.SECURITY, pod_rules.PODS, secret_rules.POD_SECRETS, mlflow_rules.MLFLOW)
POD = "spec template spec"
ONE = f"{POD} containers 0"
CONTEXT = f"{ONE} securityContext"


def server() -> list[Object]:
    return world.documents(world.SERVER)


# rule, what it is about, edits that break it, edits that do not
CASES: list[Case] = [
    (
        "restricted/non-root",
        server,
        {f"{CONTEXT} runAsNonRoot": GONE},
        {f"{CONTEXT} runAsNonRoot": GONE, f"{POD} securityContext": {"runAsNonRoot": True}},
    ),
    ("restricted/non-root", server, {f"{CONTEXT} runAsUser": 0}, {f"{CONTEXT} runAsUser": 1}),
    (
        "restricted/non-root",
        server,
        {f"{POD} securityContext": {"runAsNonRoot": True}, f"{CONTEXT} runAsNonRoot": False},
        {f"{POD} securityContext": {"runAsNonRoot": False}},
    ),
    ("restricted/numeric-user", server, {f"{CONTEXT} runAsUser": GONE}, {}),
    ("restricted/seccomp", server, {f"{CONTEXT} seccompProfile type": "Unconfined"}, {}),
    (
        "restricted/seccomp",
        server,
        {f"{CONTEXT} seccompProfile": GONE},
        {
            f"{CONTEXT} seccompProfile": GONE,
            f"{POD} securityContext": {"seccompProfile": {"type": "Localhost"}},
        },
    ),
    ("restricted/privilege-escalation", server, {f"{CONTEXT} allowPrivilegeEscalation": GONE}, {}),
    ("restricted/capabilities", server, {f"{CONTEXT} capabilities drop": ["NET_RAW"]}, {}),
    (
        "restricted/capabilities",
        server,
        {f"{CONTEXT} capabilities add": ["SYS_PTRACE"]},
        {f"{CONTEXT} capabilities add": ["NET_BIND_SERVICE"]},
    ),
    ("restricted/read-only-root", server, {f"{CONTEXT} readOnlyRootFilesystem": False}, {}),
    ("restricted/privileged", server, {f"{CONTEXT} privileged": True}, {f"{CONTEXT} privileged": False}),
    ("restricted/host-namespaces", server, {f"{POD} hostNetwork": True}, {f"{POD} hostNetwork": False}),
    (
        "restricted/host-ports",
        server,
        {f"{ONE} ports": [{"containerPort": 80, "hostPort": 80}]},
        {f"{ONE} ports": [{"containerPort": 80}]},
    ),
    (
        "restricted/volumes",
        server,
        {f"{POD} volumes 0": {"name": "tmp", "hostPath": {"path": "/tmp"}}},
        {f"{POD} volumes 0": {"name": "tmp", "persistentVolumeClaim": {"claimName": "a"}}},
    ),
    (
        "restricted/sysctls",
        server,
        {f"{POD} securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}},
        {f"{POD} securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}},
    ),
    (
        "restricted/confinement",
        server,
        {f"{CONTEXT} seLinuxOptions": {"type": "spc_t"}},
        {f"{CONTEXT} seLinuxOptions": {"type": "container_t"}},
    ),
    ("restricted/confinement", server, {f"{CONTEXT} appArmorProfile": {"type": "Unconfined"}}, {}),
    # -- what the operator adds is judged too
    ("restricted/privilege-escalation", world.job, {f"{OPTIONS} securityContext": GONE}, {}),
    ("restricted/non-root", world.job, {"spec submitterPodTemplate": GONE}, {}),
    ("restricted/capabilities", world.job, {f"{GROUP} template spec containers 0 securityContext": GONE}, {}),
    ("pod/image-missing", world.job, {f"{SUBMITTER} image": GONE}, {}),
    ("pod/image-missing", server, {f"{ONE} image": GONE}, {}),
    ("pod/image-digest", server, {f"{ONE} image": "registry.example/hpsearch:1.0"}, {}),
    ("pod/image-digest", world.job, {f"{GROUP} template spec containers 0 image": "rayproject/ray"}, {}),
    (
        "pod/image-pull",
        server,
        {f"{ONE} imagePullPolicy": "Always"},
        {f"{ONE} imagePullPolicy": "IfNotPresent"},
    ),
    ("pod/limits", server, {f"{ONE} resources limits memory": GONE}, {}),
    ("pod/limits", world.job, {f"{BOX} resources": GONE}, {}),
    ("pod/requests-within-limits", server, {f"{ONE} resources requests cpu": "1500m"}, {}),
    ("pod/requests-within-limits", server, {f"{ONE} resources requests cpu": "many"}, {}),
    ("pod/scratch-size", server, {f"{POD} volumes 0 emptyDir": {}}, {}),
    ("pod/scratch-missing", server, {f"{ONE} volumeMounts": GONE}, {}),
    ("pod/mounts", server, {f"{POD} volumes 0 name": "temp"}, {}),
    ("pod/mounts", server, {f"{ONE} volumeMounts 1": {"name": "tmp", "mountPath": "/tmp"}}, {}),
    (
        "pod/ray-stop",
        world.job,
        {f"{BOX} lifecycle preStop exec command": ["bash", "-c", "ray stop --force"]},
        {f"{BOX} lifecycle preStop exec command": ["hpsearch", "stop", "--here"]},
    ),
    ("pod/insecure", server, {f"{ONE} args": ["hpsearch", "status", "--insecure"]}, {}),
    ("pod/insecure", world.job, {f"{BOX} env 0": {"name": "RAY_AUTH_MODE", "value": "disabled"}}, {}),
    (
        "pod/token-file",
        world.job,
        {f"{HEAD_POD} volumes 0": {"name": "tmp", "secret": {"secretName": "token"}}},
        {f"{HEAD_POD} volumes 0": {"name": "tmp", "secret": {"secretName": "token", "defaultMode": 0o440}}},
    ),
    (
        "pod/token-file",
        server,
        {f"{POD} volumes 0": {"name": "tmp", "secret": {"defaultMode": 0o400, "items": [{"mode": 0o644}]}}},
        {f"{POD} volumes 0": {"name": "tmp", "secret": {"defaultMode": 0o400, "items": [{"mode": 0o400}]}}},
    ),
    (
        "pod/token-file",
        server,
        {f"{ONE} args": ["ray get-auth-token --generate"]},
        {f"{ONE} args": ["umask 077; ray get-auth-token --generate"]},
    ),
    ("pod/api-token", server, {f"{POD} automountServiceAccountToken": GONE}, {}),
    ("pod/api-token", world.job, {f"{GROUP} template spec automountServiceAccountToken": GONE}, {}),
    # -- secrets
    (
        "secret/env",
        server,
        {f"{ONE} env 2": {"name": "DATABASE_PASSWORD", "value": "hunter2x"}},
        {
            f"{ONE} env 2": {
                "name": "DATABASE_PASSWORD",
                "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}},
            }
        },
    ),
    (
        "secret/env",
        server,
        {f"{ONE} env 2": {"name": "STORE", "value": "postgresql://me:hunter2x@db/studies"}},
        {f"{ONE} env 2": {"name": "STORE", "value": "postgresql://me:$(PASSWORD)@db/studies"}},
    ),
    (
        "secret/command",
        server,
        {f"{ONE} args": ["--api-key", "abcdef123"]},
        {f"{ONE} args": ["--api-key", "$(KEY)", "--mlflow-secret", "hpsearch-mlflow"]},
    ),
    # -- MLflow
    ("mlflow/allowed-hosts", server, {f"{ONE} env 0": {"name": "A", "value": "b"}}, {}),
    (
        "mlflow/allowed-hosts",
        server,
        {f"{ONE} env 0 value": "mlflow"},
        {f"{ONE} env 0 value": "mlflow,mlflow:*"},
    ),
    ("mlflow/allowed-hosts", server, {f"{ONE} env 0 value": "*"}, {}),
    ("mlflow/probes", server, {f"{ONE} livenessProbe httpGet path": "/version"}, {}),
    ("mlflow/startup", server, {f"{ONE} startupProbe": GONE}, {}),
    ("mlflow/memory", server, {f"{ONE} resources limits memory": "1Gi"}, {}),
    ("mlflow/auth", server, {f"{ONE} command": ["mlflow", "server"]}, {}),
    ("mlflow/auth", server, {f"{ONE} env 1": {"name": "A", "value": "b"}}, {}),
    (
        "mlflow/one-writer",
        server,
        {f"{ONE} args": ["--backend-store-uri=sqlite:////data/mlflow.db"], "spec replicas": 2},
        {
            f"{ONE} args": ["--backend-store-uri=sqlite:////data/mlflow.db"],
            "spec strategy": {"type": "Recreate"},
        },
    ),
    (
        "mlflow/one-writer",
        server,
        {f"{ONE} env 0": {"name": "MLFLOW_BACKEND_STORE_URI", "value": "sqlite:////data/mlflow.db"}},
        {f"{ONE} args": ["--backend-store-uri=postgresql://db/mlflow"], "spec replicas": 2},
    ),
    (
        "pod/api-token",
        world.job,
        {f"{GROUP} template spec automountServiceAccountToken": True},
        {},
    ),
]


test_a_broken_rule_is_told_and_a_kept_one_is_not, test_each_rule_has_a_case = rule_tests(CASES, BOOKS)


def test_findings_name_the_container_that_the_operator_adds() -> None:
    made = world.job()
    world.edited(made[1], f"{OPTIONS} securityContext", GONE)
    found = [f for f in world.ruled(*made) if f.rule == "restricted/capabilities"]
    assert [f.message for f in found] == ["container 'autoscaler' (added by KubeRay) keeps capabilities"]
    assert found[0].path == (
        "spec",
        "rayClusterSpec",
        "autoscalerOptions",
        "securityContext",
        "capabilities",
        "drop",
    )


def test_what_the_operator_copies_from_a_container_is_told_once() -> None:
    made = world.job()
    world.edited(made[1], f"{GROUP} template spec containers 0 securityContext readOnlyRootFilesystem", False)
    found = [f.message for f in world.ruled(*made) if f.rule == "restricted/read-only-root"]
    assert found == ["container 'ray-worker' can write to its image's files"]


def test_no_secret_is_shown_by_the_line_that_finds_it() -> None:
    secret = "hunter2" * 3
    made = server()
    world.edited(made[0], f"{ONE} env 2", {"name": "DATABASE_PASSWORD", "value": secret})
    world.edited(made[0], f"{ONE} args", ["--token", secret])
    hidden = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "a"},
        "stringData": {"password": secret},
    }
    wrong = {**hidden, "stringData": {"password": [secret]}, "metadata": {"name": "b"}}
    found = world.check(*made, hidden, wrong)
    assert {"secret/env", "secret/command", "secret/in-file", "schema"} <= {f.rule for f in found}
    assert not any(secret in f.text for f in found)


def test_a_value_that_a_schema_refuses_is_not_shown_where_it_may_be_a_secret() -> None:
    made = server()
    world.edited(made[0], f"{ONE} env 2", {"name": "DATABASE_PASSWORD", "value": 83920174})
    found = [f for f in world.check(*made) if f.rule == "schema"]
    assert [f.message for f in found] == ["the value is not a text"]


def test_what_names_hold_cannot_drive_a_terminal() -> None:
    made = server()
    volume = {"name": "tmp", "configMap": {"name": "a\x1b[31m"}}
    world.edited(made[0], f"{POD} volumes 0", volume)
    found = [f.message for f in world.ruled(*made) if f.rule == "reference/pod"]
    assert any("a\\x1b[31m" in message for message in found)
    assert all(message.isprintable() for message in found)


@pytest.mark.parametrize("kind", ["Pod", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"])
def test_pods_of_all_workloads_are_looked_at(kind: str) -> None:
    pod = {"containers": [{"name": "a", "image": IMAGE}]}
    template = {"spec": {"template": {"spec": pod}}}
    spec = {"Pod": pod, "CronJob": {"jobTemplate": template}}.get(kind, template["spec"])
    group = {"Pod": "v1", "Job": "batch/v1", "CronJob": "batch/v1"}.get(kind, "apps/v1")
    found = world.ruled({"apiVersion": group, "kind": kind, "metadata": {"name": "a"}, "spec": spec})
    assert "restricted/seccomp" in {f.rule for f in found}


def test_a_short_value_of_a_secret_spoils_no_words() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"user": "a"}}
    found = [f.message for f in world.ruled(secret) if f.rule == "secret/in-file"]
    assert found == ["a Secret's value stands in a file"]


@pytest.mark.parametrize("text", ["y" * 900_000, "$(" * 200_000, "${" * 200_000, "a.b-c:" * 100_000])
def test_a_long_text_is_looked_through_once(text: str) -> None:
    made = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a"},
        "data": {"a": text, "b": f"use {IMAGE}"},
    }
    world.edited(other := server()[0], f"{ONE} image", IMAGE.replace("a" * 64, "b" * 64))
    began = time.process_time()
    found = [f.rule for f in world.ruled(made, other)]
    assert "conflict/stale-image" in found
    # From each of its characters to its end, it took minutes.
    assert time.process_time() - began < 20
