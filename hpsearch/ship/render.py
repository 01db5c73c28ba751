"""A job as Kubernetes objects: pure, the same bytes for the same job, and why each field is as it is.

Facts about KubeRay are those of version 1.7; they were read in its source.
"""

from __future__ import annotations

from typing import Any

from hpsearch.ship import pods
from hpsearch.ship.job import DEADLINE_SLACK, Gi, Group, Job, Mi, Profile, Submitter
from hpsearch.ship.kuberay import STUDY
from hpsearch.ship.pods import Object

QUEUE, QUEUE_PRIORITY = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"
SHA256, DIGEST = "hpsearch/space-sha256", "hpsearch/image-digest"
SCHEDULED_TIME = "hpsearch/scheduled-time"
# For Ray's shared memory on the head; nothing but reports of a few bytes goes there.
HEAD_OBJECT_STORE = 256 * Mi
# Line ends of other alphabets, which YAML folds into blanks unless they are escaped.
UNWRITTEN = frozenset("\x85\u2028\u2029\ufeff")
IDLE = 300  # seconds after which a worker without a trial goes; less makes clusters flap


def render(job: Job) -> list[Object]:
    """All objects of a job, in the order in which they may be applied."""
    return [config_map(job), ray_job(job), budget(job)]


def config_map(job: Job) -> Object:
    """The sweep's file, to the byte; immutable, because what a running study goes by must not change."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(job, job.config_map) | {"annotations": {SHA256: job.sweep.sha256}},
        "immutable": True,
        "data": {"sweep.yaml": job.sweep.text},
    }


def budget(job: Job) -> Object:
    """Keeps node drains off this job's head, the one pod whose loss costs the whole cluster.

    One of its own for each job: a shared one would let all heads but one be evicted.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(job, f"{job.name}-head"),
        "spec": {
            # For pods of custom controllers nothing but a whole number of those that stay is taken.
            "minAvailable": 1,
            "selector": {"matchLabels": {pods.LABEL: job.name, "ray.io/node-type": "head"}},
            # A head that is broken already may go.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def ray_job(job: Job) -> Object:
    """The RayJob; `suspend` and `managedBy` are never written: those are Kueue's to set."""
    platform = job.platform
    metadata = _metadata(job, job.name)
    if platform.queue:
        metadata["labels"][QUEUE] = platform.queue
        if platform.queue_priority:
            metadata["labels"][QUEUE_PRIORITY] = platform.queue_priority
    metadata["annotations"] = _annotations(job)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": metadata,
        "spec": {
            # It reaches a shell in one of the submission modes, so it holds nothing that a shell acts on.
            "entrypoint": job.entrypoint,
            # Shown by the dashboard to whoever looks: names and hashes, never a secret.
            "metadata": _tags(job),
            **_submission(job),
            # Each retry is a new cluster; the study's name is the same, so it goes on where it stopped.
            "backoffLimit": platform.retries,
            # A net under the sweep's own deadline, which comes first: this one stops no Ray job, it only
            # deletes pods. It is counted again from zero after each retry.
            "activeDeadlineSeconds": job.deadline + platform.pre_running + DEADLINE_SLACK,
            # Until head and submitter are there; waiting for a queue does not count.
            "preRunningDeadlineSeconds": platform.pre_running,
            **_afterwards(job),
            "rayClusterSpec": _cluster(job),
        },
    }


def dump(objects: list[Object]) -> str:
    """The objects as YAML documents, keys in the order in which they are made, texts to the byte."""
    import yaml

    def text(dumper: Any, data: str) -> Any:
        style = "|" if "\n" in data else None
        if set(data) & UNWRITTEN:
            style = '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    plain: Any = type("Plain", (yaml.SafeDumper,), {"ignore_aliases": lambda self, data: True})
    plain.add_representer(str, text)
    options = {"sort_keys": False, "allow_unicode": True, "explicit_start": True, "width": 10_000}
    return str(yaml.dump_all(objects, Dumper=plain, **options))


def kustomization(files: list[str]) -> str:
    """What makes rendered files something that kustomize builds, alone or with components."""
    kind: Object = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    return dump([kind | {"resources": files}])


def _metadata(job: Job, name: str) -> Object:
    return {"name": name, "namespace": job.platform.namespace, "labels": pods.labels(job)}


def _annotations(job: Job) -> dict[str, str]:
    found = {STUDY: job.study, SHA256: job.sweep.sha256, DIGEST: job.platform.digest}
    if job.schedule:
        found[SCHEDULED_TIME] = job.schedule.scheduled_time
    return found


def _tags(job: Job) -> dict[str, str]:
    tags = {
        "sweep": job.sweep_name,
        "study": job.study,
        "rayjob": job.name,
        "space_sha256": job.sweep.sha256,
        "image_digest": job.platform.digest,
        "git_sha": job.git_sha or "",
        "schedule": job.schedule.name if job.schedule else "",
        "scheduled_time": job.schedule.scheduled_time if job.schedule else "",
    }
    return {name: value for name, value in tags.items() if value}


def _submission(job: Job) -> Object:
    """Who hands the job to Ray: a pod of ours that polls, so that a dropped log never ends a sweep.

    Never SidecarMode: its container has no security context and cannot be given one.
    """
    if job.platform.submitter is Submitter.NONE:
        return {"submissionMode": "HTTPMode"}
    return {
        "submissionMode": "K8sJobMode",
        "submitterPodTemplate": pods.submitter(job),
        "submitterConfig": {"backoffLimit": job.platform.submitter_retries},
    }


def _afterwards(job: Job) -> Object:
    """What becomes of the cluster: the two ways exclude each other."""
    if job.platform.profile is Profile.SHUTDOWN:
        return {"shutdownAfterJobFinishes": True, "ttlSecondsAfterFinished": job.platform.ttl}
    succeeded = {"policy": "DeleteCluster", "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": 0}}
    failed = {
        "policy": "DeleteCluster",
        "condition": {"jobDeploymentStatus": "Failed", "ttlSeconds": job.platform.retained},
    }
    return {
        "shutdownAfterJobFinishes": False,
        "deletionStrategy": {"deletionRules": [succeeded, failed]},
    }


def _cluster(job: Job) -> Object:
    platform = job.platform
    return {
        # Without it probes need wget, and tokens and priorities are refused.
        "rayVersion": job.ray_version,
        # Without a token whoever reaches the dashboard runs code here.
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": platform.elastic,
        **({"autoscalerOptions": _autoscaler()} if platform.elastic else {}),
        "headGroupSpec": {
            # The dashboard is reached by port-forward and token, never from outside.
            "serviceType": "ClusterIP",
            "enableIngress": False,
            "rayStartParams": {
                # No trial runs beside the driver and Ray's own services.
                "num-cpus": "0",
                "dashboard-host": "0.0.0.0",
                "object-store-memory": str(HEAD_OBJECT_STORE),
            },
            "template": pods.head(job),
        },
        "workerGroupSpecs": [_group(job, group) for group in platform.groups],
    }


def _group(job: Job, group: Group) -> Object:
    """Workers of a kind; all three counts are written, because the schema's default is 2147483647 at most."""
    fixed = not job.platform.elastic
    least = group.max_replicas if fixed else group.min_replicas
    scaling: Object = {} if fixed else {"idleTimeoutSeconds": IDLE, "priority": group.priority}
    return {
        "groupName": group.name,
        "replicas": least,
        "minReplicas": least,
        "maxReplicas": group.max_replicas,
        **scaling,
        "rayStartParams": {
            # The pod's limit also pays for Ray's own processes and its shared memory.
            "memory": str(group.ray_memory),
            "object-store-memory": str(group.object_store),
        },
        "template": pods.worker(job, group),
    }


def _autoscaler() -> Object:
    """The container that the operator adds to the head, by default with 512Mi and no security context."""
    return {
        "version": "v2",
        "upscalingMode": "Conservative",
        "idleTimeoutSeconds": IDLE,
        "imagePullPolicy": "IfNotPresent",
        "resources": pods.exactly("500m", 1 * Gi),
        "securityContext": pods.container_security(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "home", "mountPath": pods.HOME}],
    }
