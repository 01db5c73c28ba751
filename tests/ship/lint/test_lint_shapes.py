"""What API servers refuse that schemas take; rules about starting Ray, launchers, queues and quotas."""

from __future__ import annotations

from typing import Any

import lint_world as world
import pytest
import typer.main
from lint_cases import (
    BOX,
    GROUP,
    HEAD,
    HEAD_POD,
    OPTIONS,
    SUBMITTER,
    Case,
    Edits,
    rule_tests,
    service,
)
from lint_world import GONE, Object

from hpsearch.cli import app
from hpsearch.ship.lint import (
    bounds_rules,
    launcher_rules,
    naming_rules,
    object_shape,
    pod_shape,
    queue_rules,
    ray_start,
    submission_rules,
)

BOOKS = (
    naming_rules.NAMES,
    pod_shape.SHAPE,
    object_shape.SHAPES,
    ray_start.STARTS,
    submission_rules.SUBMISSIONS,
    launcher_rules.LAUNCHERS,
    queue_rules.QUEUES,
    bounds_rules.BOUNDS,
)
RBAC = "rbac.authorization.k8s.io"
POD = "spec template spec"
ONE = f"{POD} containers 0"
TICK = "CronJob/nightly spec jobTemplate spec"
TICK_POD = f"{TICK} template spec"
WORKER = f"{GROUP} template spec containers 0"
QUOTA, LIMITS = "ResourceQuota/all spec hard", "LimitRange/each spec limits 0"
ROLE, BINDING = "Role/hpsearch-launch", "RoleBinding/hpsearch-launch"
CLAIM, CONFIG = "PersistentVolumeClaim/hpsearch-studies spec", "ConfigMap/auto-mpg-sweep"
UPGRADE = "spec upgradeStrategy"
KUEUE = "kueue.x-k8s.io"
QUEUES = """
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {name: any}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: all}
spec:
  resourceGroups:
    - coveredResources: [cpu, memory]
      flavors: [{name: any, resources: [{name: cpu, nominalQuota: 50}, {name: memory, nominalQuota: 200Gi}]}]
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata: {name: gpus, namespace: hpsearch}
spec: {clusterQueue: all}
"""
FLAVOR = "ClusterQueue/all spec resourceGroups 0 flavors 0"


def server() -> list[Object]:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "mlflow", "namespace": "hpsearch"},
        "spec": {"selector": {"app": "mlflow"}, "ports": [{"port": 80, "targetPort": "http"}]},
    }
    made = world.documents(world.SERVER)
    world.edited(made[0], f"{ONE} ports", [{"name": "http", "containerPort": 5000}])
    return [*made, service]


def platform() -> list[Object]:
    made = [*world.documents(world.PLATFORM), *world.documents(world.CRONJOB), *world.job()]
    rules = [
        {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
        for (group, resource), verbs in launcher_rules.NEEDED.items()
    ]
    for each in made:
        if each["kind"] == "Role":
            each["rules"] = rules
        if each["metadata"]["name"] == "nightly-sweep":
            each["data"] = {"sweep.yaml": world.SWEEP}
    return made


def job() -> list[Object]:
    spec = world.documents(world.CRONJOB)[0]["spec"]["jobTemplate"]["spec"]
    return [{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": spec}]


def queued() -> list[Object]:
    return [*world.documents(QUEUES), *world.queued()]


def policy() -> list[Object]:
    peer = {"ipBlock": {"cidr": "10.0.0.0/8"}}
    rule = {"to": [peer], "ports": [{"port": 443}]}
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [rule]}
    metadata = {"name": "some", "namespace": "hpsearch"}
    return [
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}
    ]


def env(**given: Any) -> Edits:
    return {f"{ONE} env 0": {"name": "A", **given}}


SOURCE = {"fieldRef": {"fieldPath": "metadata.name"}}
# rule, what it is about, edits that break it, edits that do not
CASES: list[Case] = [
    ("name/object", server, {"metadata name": GONE}, {"metadata name": GONE, "metadata generateName": "a-"}),
    ("name/object", server, {"metadata name": "A_b"}, {"metadata name": "a.b"}),
    ("name/object", server, {"Service/mlflow metadata name": "1.a"}, {"Service/mlflow metadata name": "a1"}),
    ("name/object", platform, {f"{ROLE} metadata name": "a/b"}, {f"{ROLE} metadata name": "a:B"}),
    ("name/object", server, {"metadata namespace": "a.b"}, {}),
    ("name/object", world.job, {"metadata name": ""}, {}),
    ("name/label", server, {"metadata labels": {"a": "b c"}}, {"metadata labels": {"a.b/c": ""}}),
    ("name/label", server, {f"{POD[:-5]} metadata labels a/b/c": "d"}, {}),
    (
        "name/annotation",
        server,
        {"metadata annotations": {"a b": "c"}},
        {"metadata annotations": {"A.b/c": "anything: {}"}},
    ),
    ("name/annotation", server, {"metadata annotations": {"a": "b" * 262_144}}, {}),
    ("pod/container-name", server, {f"{ONE} name": "A_b"}, {}),
    ("pod/container-name", server, {f"{POD} containers 1": {"name": "mlflow"}}, {}),
    ("pod/ports", server, {f"{ONE} ports 0 containerPort": 65_536}, {f"{ONE} ports 0 containerPort": 1}),
    ("pod/ports", server, {f"{ONE} ports 0 name": "5000"}, {f"{ONE} ports 0 name": "p-5000"}),
    ("pod/variable", server, env(value="b", valueFrom=SOURCE), env(valueFrom=SOURCE)),
    ("pod/variable", server, env(valueFrom={}), env(value="")),
    ("pod/variable", server, {f"{ONE} env 0 name": ""}, {}),
    ("pod/policy", server, {f"{ONE} imagePullPolicy": "Allways"}, {f"{ONE} imagePullPolicy": "Never"}),
    ("pod/policy", server, {f"{POD} dnsPolicy": "None?"}, {f"{POD} dnsPolicy": "None"}),
    (
        "pod/toleration",
        server,
        {f"{POD} tolerations": [{"key": "a", "operator": "Equals", "value": "b"}]},
        {f"{POD} tolerations": [{"key": "a", "value": "b"}, {"operator": "Exists"}]},
    ),
    (
        "pod/toleration",
        server,
        {f"{POD} tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
        {f"{POD} tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute"}]},
    ),
    ("pod/toleration", server, {f"{POD} tolerations": [{"value": "b"}]}, {}),
    ("pod/toleration", server, {f"{POD} tolerations": [{"key": "a", "effect": "No"}]}, {}),
    (
        "pod/whole-amounts",
        server,
        {f"{ONE} resources limits nvidia.com/gpu": "500m"},
        {f"{ONE} resources limits nvidia.com/gpu": 2, f"{ONE} resources limits memory": "0.5Gi"},
    ),
    ("pod/whole-amounts", server, {f"{ONE} resources limits memory": "6GB"}, {}),
    ("pod/whole-amounts", server, {f"{ONE} resources limits memory": "6m"}, {}),
    ("pod/volume-source", server, {f"{POD} volumes 0 configMap": {"name": "a"}}, {}),
    ("pod/volume-source", server, {f"{POD} volumes 1": {"name": "tmp", "emptyDir": {}}}, {}),
    ("pod/volume-source", server, {f"{POD} volumes 0": {"name": "a", "configMap": {"items": [1]}}}, {}),
    ("object/claim", platform, {f"{CLAIM} accessModes": ["RWX"]}, {}),
    ("object/claim", platform, {f"{CLAIM} accessModes": GONE}, {}),
    ("object/claim", platform, {f"{CLAIM} resources": GONE}, {}),
    ("object/config-size", world.job, {"ConfigMap/auto-mpg-sweep data b": "b" * 1_048_576}, {}),
    ("object/binding-shape", platform, {f"{BINDING} roleRef kind": "Roles"}, {}),
    ("object/binding-shape", platform, {f"{BINDING} roleRef apiGroup": "rbac"}, {}),
    ("object/binding-shape", platform, {f"{BINDING} subjects 0 namespace": GONE}, {}),
    ("object/binding-shape", platform, {f"{BINDING} subjects 0 apiGroup": RBAC}, {}),
    (
        "object/binding-shape",
        platform,
        {f"{BINDING} subjects 1": {"kind": "Robot", "name": "a"}},
        {f"{BINDING} subjects 1": {"kind": "User", "name": "a", "apiGroup": RBAC}},
    ),
    ("object/rights-spelled", platform, {f"{ROLE} rules 0 verbs": ["creat"]}, {}),
    (
        "object/rights-spelled",
        platform,
        {f"{ROLE} rules 0 verbs": ["gets"]},
        {f"{ROLE} rules 0 verbs": ["use"]},
    ),
    ("object/rights-spelled", platform, {f"{ROLE} rules 0 resources": ["RayJobs"]}, {}),
    ("object/rights-spelled", platform, {f"{ROLE} rules 0 resourceNames": ["a"]}, {}),
    ("object/policy-shape", policy, {"spec policyTypes": ["Ingress"]}, {"spec policyTypes": GONE}),
    ("object/policy-shape", policy, {"spec policyTypes": ["Outgress"]}, {}),
    ("object/policy-shape", policy, {"spec egress 0 to 0 ipBlock cidr": "10.0.0.0/33"}, {}),
    ("object/policy-shape", policy, {"spec egress 0 to 0 ipBlock cidr": "10.0.0.1"}, {}),
    ("object/policy-shape", policy, {"spec egress 0 to 0 podSelector": {}}, {}),
    ("object/policy-shape", policy, {"spec egress 0 ports 0 port": "443"}, {}),
    (
        "object/policy-shape",
        policy,
        {"spec egress 0 ports 0 port": 0},
        {"spec egress 0 ports 0 port": "https"},
    ),
    (
        "object/job-shape",
        platform,
        {f"{TICK} selector": {}},
        {f"{TICK} selector": {}, f"{TICK} manualSelector": True},
    ),
    ("object/failure-policy", platform, {f"{TICK} podFailurePolicy rules 0 action": "Fail"}, {}),
    (
        "object/failure-policy",
        platform,
        {f"{TICK} podFailurePolicy rules 0 onExitCodes containerName": "a"},
        {},
    ),
    ("object/failure-policy", platform, {f"{TICK} podFailurePolicy rules 0 onExitCodes values": [0, 2]}, {}),
    ("object/failure-policy", platform, {f"{TICK} podFailurePolicy rules 0 onExitCodes values": [3, 2]}, {}),
    (
        "ray/unknown-parameter",
        world.job,
        {f"{HEAD} rayStartParams num-cpu": "0"},
        {f"{HEAD} rayStartParams metrics-export-port": "8080"},
    ),
    ("ray/unknown-parameter", world.job, {f"{HEAD} rayStartParams --num-cpus": "0"}, {}),
    ("ray/unknown-parameter", world.job, {f"{HEAD} rayStartParams of-tomorrow": "0"}, {}),
    ("ray/dashboard", world.job, {f"{HEAD} rayStartParams include-dashboard": "false"}, {}),
    ("ray/dashboard", world.job, {f"{HEAD} rayStartParams dashboard-host": "127.0.0.1"}, {}),
    (
        "ray/memory-parameter",
        world.job,
        {f"{GROUP} rayStartParams memory": "99999999999"},
        {f"{GROUP} rayStartParams memory": "1000000000"},
    ),
    ("ray/replica-range", world.job, {f"{GROUP} replicas": 9}, {f"{GROUP} replicas": 1}),
    (
        "ray/replica-range",
        world.job,
        {f"{GROUP} minReplicas": 2, f"{GROUP} replicas": 1},
        {f"{GROUP} minReplicas": 1, f"{GROUP} replicas": GONE},
    ),
    (
        "ray/head-spot",
        world.job,
        {f"{HEAD_POD} nodeSelector": {"karpenter.sh/capacity-type": "spot"}},
        {f"{HEAD_POD} nodeSelector": {"karpenter.sh/capacity-type": "on-demand"}},
    ),
    ("ray/head-spot", world.job, {f"{HEAD_POD} tolerations": [{"key": "cloud.google.com/gke-spot"}]}, {}),
    (
        "ray/head-spot",
        world.job,
        {
            f"{HEAD_POD} affinity nodeAffinity requiredDuringSchedulingIgnoredDuringExecution "
            "nodeSelectorTerms 0 matchExpressions 0 operator": "In"
        },
        {},
    ),
    (
        "ray/farewell",
        world.job,
        {f"{BOX} env 0": {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "90"}},
        {f"{BOX} env 0": {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "60"}},
    ),
    (
        "ray/autoscaler-image",
        world.job,
        {f"{OPTIONS} image": "rayproject/ray:latest"},
        {f"{OPTIONS} image": world.IMAGE},
    ),
    ("ray/service-upgrade", service, {f"{UPGRADE} type": "Blue"}, {f"{UPGRADE} type": "NewCluster"}),
    (
        "ray/service-upgrade",
        service,
        {f"{UPGRADE} type": "NewClusterWithIncrementalUpgrade"},
        {
            f"{UPGRADE} type": "NewClusterWithIncrementalUpgrade",
            f"{UPGRADE} clusterUpgradeOptions": {
                "gatewayClassName": "istio",
                "stepSizePercent": 20,
                "intervalSeconds": 10,
                "maxSurgePercent": 50,
            },
        },
    ),
    ("sweep/submitter-words", world.job, {f"{SUBMITTER} command 5": "$(RAY_DASHBOARD_ADDRESS)"}, {}),
    ("sweep/submitter-words", world.job, {f"{SUBMITTER} command 7": "mine"}, {}),
    ("sweep/submitter-retries", world.job, {"spec submitterConfig backoffLimit": 0}, {}),
    ("sweep/unused-submitter", world.job, {"spec submissionMode": "HTTPMode"}, {}),
    ("sweep/unused-cluster", world.job, {"spec clusterSelector": {"ray.io/cluster": "a"}}, {}),
    ("sweep/preemption-marker", world.job, {f"{WORKER} lifecycle preStop exec command 1": "/tmp/b"}, {}),
    ("sweep/preemption-marker", world.job, {f"{WORKER} env": []}, {f"{WORKER} lifecycle": GONE}),
    ("launch/words", platform, {f"{TICK_POD} containers 0 args 5": "--dedline"}, {}),
    ("launch/words", platform, {f"{TICK_POD} containers 0 args 7": "--overlap=wait"}, {}),
    ("launch/file", platform, {"ConfigMap/nightly-sweep data sweep.yaml": "trainingInput: {}"}, {}),
    ("launch/file", platform, {f"{CONFIG} data sweep.yaml": "a: [b"}, {}),
    ("launch/file", platform, {f"{TICK_POD} containers 0 args 1": "/etc/hpsearch/other.yaml"}, {}),
    ("launch/token", platform, {f"{TICK_POD} automountServiceAccountToken": False}, {}),
    ("launch/rights", platform, {f"{ROLE} rules 0 verbs": ["create", "get", "list"]}, {}),
    ("launch/rights", platform, {f"{ROLE} rules 3 apiGroups": [""]}, {f"{ROLE} rules 3 verbs": ["*"]}),
    ("launch/one-pod", platform, {f"{TICK} completions": 2}, {f"{TICK} completions": 1}),
    ("launch/one-pod", platform, {f"{TICK} ttlSecondsAfterFinished": 60}, {}),
    ("kueue/queue-reference", queued, {f"RayJob/auto-mpg metadata labels {KUEUE}/queue-name": "cpus"}, {}),
    ("kueue/queue-reference", queued, {"LocalQueue/gpus spec clusterQueue": "other"}, {}),
    ("kueue/queue-reference", queued, {f"{FLAVOR} name": "other"}, {"LocalQueue/gpus": GONE}),
    ("kueue/covered", queued, {f"{FLAVOR} resources 0 name": "gpu"}, {}),
    ("kueue/unqueued", world.job, {f"metadata labels {KUEUE}/priority-class": "high"}, {}),
    ("kueue/unqueued", world.job, {f"metadata annotations {KUEUE}/queue-name": "gpus"}, {}),
    (
        "kueue/unqueued",
        queued,
        {f"RayJob/auto-mpg {GROUP} template metadata labels {KUEUE}/queue-name": "gpus"},
        {},
    ),
    (
        "kueue/quota",
        queued,
        {f"{FLAVOR} resources 0 nominalQuota": 1},
        {f"{FLAVOR} resources 0 nominalQuota": 1, "ClusterQueue/all spec cohort": "lenders"},
    ),
    ("object/job-shape", job, {"spec template spec restartPolicy": GONE}, {}),
    (
        "object/job-shape",
        job,
        {"spec template spec restartPolicy": "OnFailure"},
        {"spec template spec restartPolicy": "OnFailure", "spec podFailurePolicy": GONE},
    ),
    ("bounds/limit-range", platform, {f"{LIMITS} max memory": "1Gi"}, {}),
    (
        "bounds/limit-range",
        platform,
        {f"{LIMITS} default": {"cpu": "17"}},
        {f"{LIMITS} default": {"cpu": "1"}},
    ),
    ("bounds/quota", platform, {f"{QUOTA} requests.memory": "1Gi"}, {f"{QUOTA} requests.memory": "64Gi"}),
    (
        "bounds/quota-counts",
        platform,
        {f"{QUOTA} count/rayjob.ray.io": "5"},
        {f"{QUOTA} count/foos.a.b": "5"},
    ),
    (
        "bounds/key",
        world.job,
        {f"{HEAD_POD} volumes 3 configMap items": [{"key": "other", "path": "a"}]},
        {f"{HEAD_POD} volumes 3 configMap items": [{"key": "sweep.yaml", "path": "sweep.yaml"}]},
    ),
    ("bounds/service-port", server, {"Service/mlflow spec ports 0 targetPort": "web"}, {}),
]


test_a_broken_rule_is_told_and_a_kept_one_is_not, test_each_rule_has_a_case = rule_tests(CASES, BOOKS)


def test_the_words_of_a_launcher_are_those_of_its_command() -> None:
    command = typer.main.get_command(app).commands["launch"]  # type: ignore[attr-defined]
    options = [each for each in command.params if each.param_type_name == "option"]
    assert {name for each in options for name in each.opts} - {"--help"} == launcher_rules.OPTIONS
    assert {each.opts[0] for each in options if each.is_flag} - {"--help"} == launcher_rules.ALONE


def test_each_parameter_of_rays_start_is_known() -> None:
    scripts = pytest.importorskip("ray.scripts.scripts")
    names = {name.lstrip("-") for each in scripts.start.params for name in (*each.opts, *each.secondary_opts)}
    assert names - {"", "help"} <= ray_start.KNOWN


def test_a_near_parameter_is_an_error_and_an_unheard_one_may_be_of_tomorrow() -> None:
    made = world.job()
    world.edited(made[1], f"{HEAD} rayStartParams", {"num-cpu": "0", "of-tomorrow": "1"})
    found = {f.path[-1]: f for f in world.ruled(*made) if f.rule == "ray/unknown-parameter"}
    assert str(found["num-cpu"].level) == "error"
    assert found["num-cpu"].hint == "did you mean num-cpus?"
    assert str(found["of-tomorrow"].level) == "warning"


def test_what_is_wrong_in_a_sweeps_file_is_told_with_its_line() -> None:
    made = platform()
    broken = world.SWEEP.replace("maxTrials: 40", "maxTrials: many")
    for each in made:
        if each["metadata"]["name"] == "nightly-sweep":
            each["data"]["sweep.yaml"] = broken
    found = [f for f in world.ruled(*made) if f.rule == "launch/file"]
    assert len(found) == 1
    assert "line 6" in found[0].message
    assert "maxTrials" in found[0].message
    assert found[0].subject == "CronJob/nightly"
