"""The CronJob whose pods launch a sweep at each tick, and follow it to its end: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from hpsearch.ship import pods
from hpsearch.ship.choices import Overlap
from hpsearch.ship.job import DEADLINE_SLACK, LONGEST_CRONJOB, SWEEP_FILE, Gi, Mi, Platform, label_name
from hpsearch.ship.making import Wishes
from hpsearch.ship.pods import Object

ACCOUNT = "hpsearch-launch"
CONTAINER = "launcher"
# Ends that the same command will only meet again; 69, 73 and 75 are worth another pod.
FINAL_CODES = (2, 3, 4, 74)
# A tick that could not start within this time is skipped (seconds); without a limit a hundred missed ticks
# would stop the CronJob for good, and less than ten is missed by the controller's own pace.
LATE, LEAST_LATE = 300, 10
# For a launcher that starts late or is started again, beyond what its RayJob may take (seconds).
LAUNCHER_SLACK = 1800
# The flags of `launch` by what they say, in the order in which they stand.
FLAGS = {
    "sweep": "--sweep",
    "study": "--study",
    "profile": "--profile",
    "submitter": "--submitter",
    "queue": "--kueue",
    "queue_priority": "--kueue-priority",
    "groups": "--group",
    "head_cpus": "--head-cpus",
    "head_memory": "--head-memory",
    "claim": "--claim",
    "store_secret": "--store-secret",
    "webhook_secret": "--webhook-secret",
    "mlflow_secret": "--mlflow-secret",
    "tracking_uri": "--tracking-uri",
    "storage": "--storage",
    "storage_secret": "--storage-secret",
    "deadline": "--deadline",
    "retries": "--retries",
}


@dataclass(frozen=True, slots=True)
class Timetable:
    """When, of what image and with what words a CronJob launches.

    `config_map` has the sweep's file. `options` are flags of `launch`. `period`: between two ticks, and
    `patience`: for all that one launch may take, None: no limit (seconds).
    """

    name: str
    cron: str
    time_zone: str
    image: str
    config_map: str
    namespace: str = "hpsearch"
    overlap: Overlap = Overlap.SKIP
    options: Sequence[str] = ()
    period: int = LATE
    patience: int | None = None
    suspended: bool = False


def cronjob(wanted: Timetable) -> Object:
    """The CronJob. Raises ValueError for a name that leaves no room for those of its Jobs and RayJobs."""
    label_name(wanted.name, LONGEST_CRONJOB)
    labels = {"app.kubernetes.io/name": "hpsearch", "app.kubernetes.io/component": "launcher"}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": wanted.name, "namespace": wanted.namespace, "labels": dict(labels)},
        "spec": {
            "schedule": wanted.cron,
            "timeZone": wanted.time_zone,
            "suspend": wanted.suspended,
            # It protects only because a launcher waits for the end of what it launched.
            "concurrencyPolicy": "Replace" if wanted.overlap is Overlap.REPLACE else "Forbid",
            # Under Forbid a tick that was held back starts late, within this window.
            "startingDeadlineSeconds": _window(wanted),
            # Old Jobs take their RayJobs along: they own them.
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {"metadata": {"labels": dict(labels)}, "spec": _job(wanted, labels)},
        },
    }


def patience(platform: Platform, deadline: int) -> int | None:
    """What a launch may take: as many clusters as there are retries; None while a queue decides (seconds)."""
    if platform.queue:
        return None
    cluster = deadline + platform.pre_running + DEADLINE_SLACK
    return (platform.retries + 1) * cluster + LAUNCHER_SLACK


def options(wishes: Wishes) -> list[str]:
    """The flags of `launch` that ask for the same; image and names are those of the launcher's own Job."""
    defaults = {field.name: field.default for field in fields(Wishes)}
    words: list[str] = []
    for name, flag in FLAGS.items():
        value = getattr(wishes, name)
        if value == defaults[name]:
            continue
        values = value if isinstance(value, tuple) else (value,)
        for each in values:
            words += [flag, f"{each:.15g}" if isinstance(each, float) else str(each)]
    return words


def _window(wanted: Timetable) -> int:
    return max(LEAST_LATE, wanted.period if wanted.overlap is Overlap.QUEUE else LATE)


def _job(wanted: Timetable, labels: dict[str, str]) -> Object:
    limit = {} if wanted.patience is None else {"activeDeadlineSeconds": wanted.patience}
    return {
        "backoffLimit": 4,
        **limit,
        "podFailurePolicy": {
            "rules": [
                # A drained node costs no attempt. The status is written out: some versions demand it.
                {
                    "action": "Ignore",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": CONTAINER,
                        "operator": "In",
                        "values": list(FINAL_CODES),
                    },
                    # Empty: the schemas of Kubernetes before 1.30 demand the field.
                    "onPodConditions": [],
                },
            ]
        },
        "template": {"metadata": {"labels": dict(labels)}, "spec": _pod(wanted)},
    }


def _pod(wanted: Timetable) -> Object:
    words = ["launch", SWEEP_FILE, "--job-name", "$(JOB_NAME)", "--wait", "--overlap", str(wanted.overlap)]
    container = {
        "name": CONTAINER,
        "image": wanted.image,
        "imagePullPolicy": "IfNotPresent",
        # Words for the image's entrypoint, hpsearch.
        "args": [*words, *wanted.options],
        "env": [
            {
                "name": "JOB_NAME",
                "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}},
            }
        ],
        "resources": pods.exactly("200m", 512 * Mi, 1 * Gi),
        "securityContext": pods.container_security(),
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "home", "mountPath": pods.HOME},
            {"name": "sweep", "mountPath": SWEEP_FILE.rpartition("/")[0], "readOnly": True},
        ],
    }
    return {
        # The one account that may create RayJobs, and so the one pod besides the head that has a token.
        "serviceAccountName": ACCOUNT,
        "automountServiceAccountToken": True,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 30,
        "enableServiceLinks": False,
        "securityContext": pods.pod_security(),
        "containers": [container],
        "volumes": [
            pods.scratch("tmp", 256 * Mi),
            pods.scratch("home", 256 * Mi),
            {"name": "sweep", "configMap": {"name": wanted.config_map}},
        ],
    }
