"""Good manifests to spoil, and what is found in them."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import yaml

from hpsearch.ship import render
from hpsearch.ship.job import Group, Job, Platform, Profile, SecretKey, Sweep
from hpsearch.ship.lint import checks, crds, sources
from hpsearch.ship.lint.document import Document
from hpsearch.ship.lint.finding import Finding
from hpsearch.ship.lint.sources import Sources

Object = dict[str, Any]
ROOT = Path(__file__).parents[3]
CRD_FOLDER = ROOT.parent / "shared" / "kuberay_crds" / "v1.7.0"
DIGEST = "sha256:" + "a" * 64
IMAGE = f"registry.example/hpsearch@{DIGEST}"
SWEEP = """\
trainingInput:
  pythonModule: hpsearch.trainers.auto_mpg
  hyperparameters:
    goal: MINIMIZE
    hyperparameterMetricTag: val_rmse
    maxTrials: 40
    maxParallelTrials: 4
    params:
      - {parameterName: rate, type: DOUBLE, minValue: 1e-5, maxValue: 1e-1, scaleType: UNIT_LOG_SCALE}
"""
# Takes a key away where an edit gives it as the value.
GONE = object()

SECURITY = """
          securityContext:
            runAsNonRoot: true
            runAsUser: 10001
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
            seccompProfile: {type: RuntimeDefault}
          resources:
            requests: {cpu: 500m, memory: 2Gi}
            limits: {cpu: "1", memory: 2Gi}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
"""

CRONJOB = f"""
apiVersion: batch/v1
kind: CronJob
metadata: {{name: nightly, namespace: hpsearch}}
spec:
  schedule: "17 5 * * *"
  timeZone: Europe/Berlin
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 300
  successfulJobsHistoryLimit: 3
  failedJobsHistoryLimit: 3
  jobTemplate:
    spec:
      backoffLimit: 4
      activeDeadlineSeconds: 40000
      podFailurePolicy:
        rules:
          - {{action: FailJob, onExitCodes: {{operator: In, values: [2, 3, 4, 74]}}, onPodConditions: []}}
          - {{action: Ignore, onPodConditions: [{{type: DisruptionTarget, status: "True"}}]}}
      template:
        spec:
         restartPolicy: Never
         serviceAccountName: hpsearch-launch
         automountServiceAccountToken: true
         containers:
         - name: launcher
           image: {IMAGE}
           args: [launch, /etc/hpsearch/sweep.yaml, --job-name, $(JOB_NAME), --wait, --deadline, "10000"]
           env:
             - name: JOB_NAME
               valueFrom: {{fieldRef: {{fieldPath: "metadata.labels['batch.kubernetes.io/job-name']"}}}}
           securityContext:
             runAsNonRoot: true
             runAsUser: 10001
             allowPrivilegeEscalation: false
             readOnlyRootFilesystem: true
             capabilities: {{drop: [ALL]}}
             seccompProfile: {{type: RuntimeDefault}}
           resources:
             limits: {{cpu: "1", memory: 512Mi}}
           volumeMounts:
             - {{name: tmp, mountPath: /tmp}}
             - {{name: sweep, mountPath: /etc/hpsearch, readOnly: true}}
         volumes:
           - {{name: tmp, emptyDir: {{sizeLimit: 256Mi}}}}
           - {{name: sweep, configMap: {{name: nightly-sweep}}}}
"""

SERVER = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: mlflow, namespace: hpsearch}}
spec:
  selector: {{matchLabels: {{app: mlflow}}}}
  template:
    metadata: {{labels: {{app: mlflow}}}}
    spec:
      automountServiceAccountToken: false
      containers:
        - name: mlflow
          image: {IMAGE}
          command: [mlflow, server, --host, 0.0.0.0, --workers, "1", --app-name, basic-auth]
          env:
            - {{name: MLFLOW_SERVER_ALLOWED_HOSTS, value: "mlflow,mlflow.hpsearch.svc,mlflow.hpsearch.svc:*"}}
            - name: MLFLOW_FLASK_SERVER_SECRET_KEY
              valueFrom: {{secretKeyRef: {{name: mlflow, key: flask}}}}
          startupProbe: {{httpGet: {{path: /health, port: 5000}}, failureThreshold: 30, periodSeconds: 10}}
          livenessProbe: {{httpGet: {{path: /health, port: 5000}}}}
{SECURITY}
      volumes:
        - {{name: tmp, emptyDir: {{sizeLimit: 1Gi}}}}
"""

PLATFORM = """
apiVersion: v1
kind: Namespace
metadata:
  name: hpsearch
  labels:
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/enforce-version: v1.28
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: all, namespace: hpsearch}
spec: {hard: {count/rayjobs.ray.io: "5", pods: "50", limits.cpu: "100", limits.memory: 400Gi}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: each, namespace: hpsearch}
spec: {limits: [{type: Container, max: {cpu: "16", memory: 64Gi}}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: hpsearch}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: dns, namespace: hpsearch}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
    - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]
      ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: ray, namespace: hpsearch}
spec:
  podSelector: {matchExpressions: [{key: ray.io/node-type, operator: Exists}]}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchExpressions: [{key: ray.io/node-type, operator: Exists}]}}]}]
  egress: [{to: [{podSelector: {matchExpressions: [{key: ray.io/node-type, operator: Exists}]}}]}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: hpsearch-run, namespace: hpsearch}
automountServiceAccountToken: false
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: hpsearch-launch, namespace: hpsearch}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: hpsearch-launch, namespace: hpsearch}
rules:
  - {apiGroups: [ray.io], resources: [rayjobs], verbs: [create, get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: hpsearch-launch, namespace: hpsearch}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: hpsearch-launch}
subjects: [{kind: ServiceAccount, name: hpsearch-launch, namespace: hpsearch}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: hpsearch-studies, namespace: hpsearch}
spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 10Gi}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: nightly-sweep, namespace: hpsearch}
data: {sweep.yaml: "trainingInput: {}"}
"""


def job(**platform: Any) -> list[Object]:
    """What is rendered for a sweep: ConfigMap, RayJob, budget."""
    return copy.deepcopy(_rendered(tuple(platform.items())))


@functools.cache
def _rendered(platform: tuple[tuple[str, Any], ...]) -> list[Object]:
    groups = (
        Group(name="spot", spot=True, priority=10, max_replicas=2),
        Group(name="on-demand", min_replicas=0, max_replicas=2),
    )
    given = {"image": IMAGE, "groups": groups, "mlflow_password": SecretKey(name="mlflow", key="password")}
    made = Job(
        name="auto-mpg",
        study="auto-mpg",
        sweep=Sweep(text=SWEEP),
        sweep_name="auto_mpg",
        platform=Platform(**(given | dict(platform))),
        ray_version="2.60.0",
        deadline=3600,
    )
    return render.render(made)


def retained() -> list[Object]:
    """The same, whose cluster stays a while if it fails."""
    return job(profile=Profile.RETAIN)


def queued() -> list[Object]:
    """The same, which waits in a queue of Kueue."""
    return job(queue="gpus", elastic=False)


def cluster(kind: str = "RayCluster") -> list[Object]:
    """A cluster of its own, or a RayService's."""
    spec = job()[1]["spec"]["rayClusterSpec"]
    spec = spec if kind == "RayCluster" else {"rayClusterConfig": spec}
    return [{"apiVersion": "ray.io/v1", "kind": kind, "metadata": {"name": "mine"}, "spec": spec}, job()[0]]


def ray_cron() -> list[Object]:
    """A RayCronJob of the same job."""
    spec = {"schedule": "17 5 * * *", "timeZone": "Etc/UTC", "jobTemplate": job()[1]["spec"]}
    driver = spec["jobTemplate"]["entrypoint"].replace(" --study auto-mpg", "")
    command = spec["jobTemplate"]["submitterPodTemplate"]["spec"]["containers"][0]["command"]
    command[command.index("--") + 1 :] = driver.split()
    spec["jobTemplate"]["entrypoint"] = driver
    metadata = {"name": "nightly"}
    return [{"apiVersion": "ray.io/v1", "kind": "RayCronJob", "metadata": metadata, "spec": spec}, job()[0]]


def documents(text: str) -> list[Object]:
    """The objects of a text."""
    return copy.deepcopy(_parsed(text))


@functools.cache
def _parsed(text: str) -> list[Object]:
    return [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]


def edited(value: Any, path: str, new: Any) -> None:
    """Set, or take away, what stands at a path: words with blanks between, numbers for places in lists."""
    *way, last = (int(step) if step.isdigit() else step for step in path.split(" "))
    for step in way:
        value = value.setdefault(step, {}) if isinstance(value, dict) else value[int(step)]
    if new is GONE:
        del value[last]
    elif isinstance(value, list) and last == len(value):
        value.append(copy.deepcopy(new))
    else:
        value[last] = copy.deepcopy(new)


def gathered(*objects: Object) -> Sources:
    """Objects as if they had been read from one file, but for their lines."""
    given = Sources(files=["some.yaml"])
    for value in objects:
        sources._add(given, "some.yaml", Document(value), value, ())
    return given


def check(*objects: Object, known: crds.Crds | None = None, **wishes: Any) -> list[Finding]:
    """All findings about objects."""
    return checks.check(gathered(*objects), known, checks.Wishes(**wishes)).findings


def ruled(*objects: Object, **wishes: Any) -> list[Finding]:
    """Findings by rules alone: no schema is looked at, which would take most of the time."""
    return check(*objects, versions=(), **wishes)
