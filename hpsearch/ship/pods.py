"""The pods of a job: what head, workers and submitter have in common, and what each is alone with."""

from __future__ import annotations

from typing import Any

from hpsearch.ship.job import STUDIES, SWEEP_FILE, Gi, Group, Head, Job, Mi, Platform, SecretKey

Object = dict[str, Any]

USER = 10001  # the image's user
ACCOUNT = "hpsearch-run"  # has no rights at all
LABEL, SCHEDULE_LABEL = "hpsearch/rayjob", "hpsearch/schedule"
HOME = "/home/hpsearch"
PREEMPTED = "/tmp/hpsearch-preempted"
# A hook, then Ray's own farewell, then SIGKILL (seconds).
GRACE, HOOK = 90, 50
# What tells spot nodes from others, by label and value, on Karpenter, EKS, GKE and AKS.
SPOT = {
    "karpenter.sh/capacity-type": "spot",
    "eks.amazonaws.com/capacityType": "SPOT",
    "cloud.google.com/gke-spot": "true",
    "kubernetes.azure.com/scalesetpriority": "spot",
}
# The taints that keep other pods off them.
SPOT_TAINTS = ("cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority")


def size(count: int) -> str:
    """A number of bytes as Kubernetes writes it."""
    for unit, factor in (("Gi", Gi), ("Mi", Mi)):
        if count % factor == 0:
            return f"{count // factor}{unit}"
    return str(count)


def cpu(count: float) -> str:
    """A number of CPUs as Kubernetes writes it."""
    return f"{count:g}" if count == int(count) else f"{round(count * 1000)}m"


def pod_security() -> Object:
    """What the restricted standard asks of a pod; the group owns what it mounts."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Object:
    """What it asks of each container, also of those that an operator adds."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def exactly(cpus: str, memory: int, storage: int | None = None, gpus: int = 0) -> Object:
    """Requests that are the limits, so that a pod is the last to be evicted."""
    amounts = {"cpu": cpus, "memory": size(memory)}
    if storage is not None:
        amounts["ephemeral-storage"] = size(storage)
    if gpus:
        amounts["nvidia.com/gpu"] = str(gpus)
    return {"requests": dict(amounts), "limits": dict(amounts)}


def plain_env(**values: str) -> list[Object]:
    """Variables with values that anybody may read."""
    return [{"name": name, "value": value} for name, value in values.items()]


def secret_env(**places: SecretKey | None) -> list[Object]:
    """Variables by the place of their value, which stands nowhere else."""
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": place.name, "key": place.key}}}
        for name, place in places.items()
        if place
    ]


def labels(job: Job) -> dict[str, str]:
    """What finds the objects and pods of a job; of all schedules, those of one."""
    found = {
        "app.kubernetes.io/name": "hpsearch",
        "app.kubernetes.io/instance": job.name,
        LABEL: job.name,
    }
    return found | ({SCHEDULE_LABEL: job.schedule.name} if job.schedule else {})


def head(job: Job) -> Object:
    """The template of the head's pod, in which the driver runs, too."""
    platform, wanted = job.platform, job.platform.head
    container = {
        "name": "ray-head",
        "image": platform.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [
            {"name": "gcs-server", "containerPort": 6379},
            {"name": "dashboard", "containerPort": 8265},
            {"name": "metrics", "containerPort": 8080},
        ],
        "env": [
            # The driver is told to end by the hook; Ray's own ways to end it come after that.
            *plain_env(RAY_JOB_STOP_WAIT_TIME_S="45", RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S="5"),
            *_ray_env(),
            *plain_env(**_told(job)),
            *secret_env(
                HPSEARCH_STORE=platform.store,
                HPSEARCH_WEBHOOK=platform.webhook,
                MLFLOW_TRACKING_USERNAME=platform.mlflow_user,
                MLFLOW_TRACKING_PASSWORD=platform.mlflow_password,
            ),
            *_storage_env(platform),
        ],
        "resources": exactly(cpu(wanted.cpus), wanted.memory, wanted.ephemeral_storage),
        "securityContext": container_security(),
        "lifecycle": _before_the_end("hpsearch", "stop", "--here", "--within", str(HOOK)),
        "volumeMounts": [
            *_mounts(),
            {"name": "sweep", "mountPath": SWEEP_FILE.rpartition("/")[0], "readOnly": True},
        ],
    }
    # With autoscaling the operator makes an account for the head, which needs its token; else nobody does.
    account = {} if platform.elastic else _no_token()
    volumes = [*_volumes(job, wanted), {"name": "sweep", "configMap": {"name": job.config_map}}]
    return {
        "metadata": {
            "labels": _part(job, "head"),
            "annotations": {
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                "karpenter.sh/do-not-disrupt": "true",
            },
        },
        "spec": {**account, **_pod(container, volumes), "affinity": _not_on_spot()},
    }


def worker(job: Job, group: Group) -> Object:
    """The template of a worker's pod, in which trials run."""
    container = {
        "name": "ray-worker",
        "image": job.platform.image,
        "imagePullPolicy": "IfNotPresent",
        "env": [
            # The hook's file is read by whoever supervises a trial, which then has until the drain's end.
            *plain_env(HPSEARCH_PREEMPTED=PREEMPTED, RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S="60"),
            *_ray_env(),
            *_storage_env(job.platform),
        ],
        "resources": exactly(cpu(group.cpus), group.memory, group.ephemeral_storage, group.gpus),
        "securityContext": container_security(),
        "lifecycle": _before_the_end("touch", PREEMPTED),
        "volumeMounts": _mounts(claim=not job.in_bucket),
    }
    spec = {
        **_no_token(),
        **_pod(container, _volumes(job, group, claim=not job.in_bucket)),
        "affinity": _rather_on_spot() if group.spot else _not_on_spot(),
    }
    if group.node_selector:
        spec["nodeSelector"] = dict(group.node_selector)
    if tolerations := _tolerations(group):
        spec["tolerations"] = tolerations
    return {"metadata": {"labels": _part(job, "worker")}, "spec": spec}


def submitter(job: Job) -> Object:
    """The template of the pod that hands the job to Ray and follows it; the operator adds where Ray is."""
    command = [
        *("hpsearch", "submit", "--wait", "--as-submitter"),
        *("--address", "http://$(RAY_DASHBOARD_ADDRESS)"),
        *("--submission-id", "$(RAY_JOB_SUBMISSION_ID)"),
        *("--", *job.entrypoint.split()),
    ]
    container = {
        "name": "submitter",
        "image": job.platform.image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "env": _ray_env(),
        "resources": exactly("500m", 1 * Gi, 1 * Gi),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "home", "mountPath": HOME},
        ],
    }
    volumes = [scratch("tmp", 256 * Mi), scratch("home", 256 * Mi)]
    # It has nothing to keep: whoever comes next attaches to the job.
    spec = {**_no_token(), **_pod(container, volumes), "terminationGracePeriodSeconds": 30}
    return {"metadata": {"labels": _part(job, "submitter")}, "spec": spec}


def _part(job: Job, part: str) -> dict[str, str]:
    """The labels of a pod, which network policies go by."""
    return labels(job) | {"app.kubernetes.io/component": part}


def _told(job: Job) -> dict[str, str]:
    """What the driver finds in its environment: where studies are, and what its runs shall be found by."""
    tags = {"sweep": job.sweep_name, "rayjob": job.name, "image_digest": job.platform.digest}
    if job.git_sha:
        tags["git_sha"] = job.git_sha
    told = {
        "HPSEARCH_HOME": STUDIES,
        "HPSEARCH_TAGS": " ".join(f"{name}={value}" for name, value in tags.items()),
    }
    if job.schedule:
        told["HPSEARCH_SCHEDULE"] = job.schedule.name
        told["HPSEARCH_SCHEDULED_TIME"] = job.schedule.scheduled_time
    return told


def _storage_env(platform: Platform) -> list[Object]:
    """The credentials of an object store, as all its clients take them."""
    if platform.storage_secret is None:
        return []
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    found = secret_env(**{name: SecretKey(name=platform.storage_secret, key=name) for name in names})
    for name in ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):  # of a store that is not Amazon's own
        [each] = secret_env(**{name: SecretKey(name=platform.storage_secret, key=name)})
        each["valueFrom"]["secretKeyRef"]["optional"] = True
        found.append(each)
    return found


def _ray_env() -> list[Object]:
    return plain_env(RAY_USAGE_STATS_ENABLED="0")


def _pod(container: Object, volumes: list[Object]) -> Object:
    return {
        # A pod that ended is replaced by another; what its hook left behind must not outlive it.
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE,
        # A Service called mlflow would set MLFLOW_PORT in every pod.
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "containers": [container],
        "volumes": volumes,
    }


def _no_token() -> Object:
    return {"serviceAccountName": ACCOUNT, "automountServiceAccountToken": False}


def _before_the_end(*command: str) -> Object:
    return {"preStop": {"exec": {"command": list(command)}}}


def _mounts(*, claim: bool = True) -> list[Object]:
    own: list[Object] = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "home", "mountPath": HOME}]
    # Beneath it, because the root of a disk has a lost+found that nobody may look into.
    return [*own, {"name": "studies", "mountPath": STUDIES.rpartition("/")[0]}] if claim else own


def _volumes(job: Job, wanted: Head | Group, *, claim: bool = True) -> list[Object]:
    """The root is read-only: Ray's files and a library's go to the pod's own disk, within its limit."""
    home = min(wanted.ephemeral_storage // 4, Gi)
    own = [
        scratch("tmp", wanted.ephemeral_storage - home - min(wanted.ephemeral_storage // 4, Gi)),
        scratch("home", home),
    ]
    studies = {"name": "studies", "persistentVolumeClaim": {"claimName": job.platform.claim.name}}
    return [*own, studies] if claim else own


def scratch(name: str, limit: int) -> Object:
    """Room on the pod's own disk, which goes with it."""
    return {"name": name, "emptyDir": {"sizeLimit": size(limit)}}


def _not_on_spot() -> Object:
    """Never on a node that says it may go away; one without any such label is none."""
    asked = [{"key": key, "operator": "NotIn", "values": [value]} for key, value in SPOT.items()]
    required = {"nodeSelectorTerms": [{"matchExpressions": asked}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def _rather_on_spot() -> Object:
    preferred = [
        {
            "weight": 100,
            "preference": {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]},
        }
        for key, value in SPOT.items()
    ]
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


def _tolerations(group: Group) -> list[Object]:
    found: list[Object] = []
    if group.gpus:
        found.append({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"})
    if group.spot:
        found += [
            {"key": key, "operator": "Equal", "value": SPOT[key], "effect": "NoSchedule"}
            for key in SPOT_TAINTS
        ]
    for each in group.tolerations:
        how = {"operator": "Equal", "value": each.value} if each.value else {"operator": "Exists"}
        found.append({"key": each.key, **how, "effect": each.effect})
    return found
