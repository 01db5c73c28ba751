"""Our rules about jobs, and secrets in them: a manifest that breaks each, and one beside it that does not."""

from __future__ import annotations

import lint_world as world
from lint_cases import (
    BOX,
    GROUP,
    HEAD_POD,
    KEPT,
    NO_SUBMITTER,
    QUEUE,
    RULE,
    SIDECAR,
    SUBMITTER,
    Case,
    rule_tests,
)
from lint_world import GONE

from hpsearch.ship.lint import recovery_rules, secret_rules, sweep_rules

BOOKS = (sweep_rules.SWEEPS, recovery_rules.RECOVERY, secret_rules.JOB_SECRETS)

# rule, what it is about, edits that break it, edits that do not
CASES: list[Case] = [
    # -- ours: jobs
    (
        "sweep/entrypoint-shell",
        world.job,
        {"spec entrypoint": "cd /a && python b.py"},
        {"spec entrypoint": "python b.py"},
    ),
    ("sweep/entrypoint-shell", world.job, {"spec entrypoint": "python b.py --lr $LR"}, {}),
    ("sweep/entrypoint", world.job, {"spec entrypoint": GONE}, {"spec entrypoint": "python b.py"}),
    ("sweep/entrypoint-resources", world.job, {"spec entrypointNumGpus": 1}, {"spec entrypointNumGpus": 0}),
    ("sweep/entrypoint-resources", world.job, {"spec entrypointNumCpus": 0.5}, {}),
    (
        "sweep/entrypoint-resources",
        world.job,
        {"spec entrypointResources": '{"a": 1}'},
        {"spec entrypointResources": "{}"},
    ),
    ("sweep/sidecar", world.job, {**SIDECAR, **NO_SUBMITTER}, {"spec submissionMode": "HTTPMode"}),
    ("sweep/interactive", world.job, {"spec submissionMode": "InteractiveMode"}, {}),
    ("sweep/submitter", world.job, NO_SUBMITTER, {**NO_SUBMITTER, "spec submissionMode": "HTTPMode"}),
    (
        "sweep/submitter",
        world.job,
        {f"{SUBMITTER} command": ["bash", "-c", "ray job submit --no-wait -- x; ray job logs --follow"]},
        {f"{SUBMITTER} command": ["/opt/our-own-poller"]},
    ),
    ("sweep/submitter", world.job, {f"{SUBMITTER} command": ["hpsearch", "submit", "--wait", "--", "x"]}, {}),
    ("sweep/submitter-entrypoint", world.job, {"spec entrypoint": "hpsearch run other.yaml"}, {}),
    ("sweep/submitter-image", world.job, {f"{SUBMITTER} image": f"a@sha256:{'c' * 64}"}, {}),
    ("sweep/submitter-restart", world.job, {"spec submitterPodTemplate spec restartPolicy": GONE}, {}),
    ("sweep/never-deleted", world.job, KEPT, {}),
    ("sweep/never-deleted", world.retained, {"spec deletionStrategy": GONE}, {}),
    (
        "sweep/ttl-long",
        world.job,
        {"spec ttlSecondsAfterFinished": 86400},
        {"spec ttlSecondsAfterFinished": 1800},
    ),
    ("sweep/retained", world.retained, {f"{RULE} 1": GONE}, {}),
    ("sweep/retained", world.retained, {f"{RULE} 0": GONE}, {}),
    (
        "sweep/stopped",
        world.retained,
        {},
        {"spec deletionStrategy": GONE, "spec shutdownAfterJobFinishes": True},
    ),
    ("sweep/deadline", world.job, {"spec activeDeadlineSeconds": GONE}, {}),
    (
        "sweep/deadline",
        world.job,
        {"spec activeDeadlineSeconds": GONE},
        {"spec activeDeadlineSeconds": GONE, QUEUE: "gpus"},
    ),
    ("sweep/pre-running", world.job, {"spec preRunningDeadlineSeconds": GONE}, {}),
    (
        "sweep/own-deadline",
        world.job,
        {"spec entrypoint": "hpsearch run a.yaml"},
        {"spec entrypoint": "python a.py"},
    ),
    (
        "sweep/own-deadline",
        world.job,
        {"spec activeDeadlineSeconds": 3601},
        {"spec activeDeadlineSeconds": 3900},
    ),
    (
        "sweep/start-timeout",
        world.job,
        {"spec entrypoint": "hpsearch run a.yaml"},
        {"spec entrypoint": "hpsearch run a.yaml --start-timeout 30m"},
    ),
    (
        "sweep/resume",
        world.job,
        {"spec entrypoint": "hpsearch run a.yaml --study a"},
        {"spec entrypoint": "hpsearch run a.yaml --study a --resume auto"},
    ),
    ("sweep/resume", world.job, {"spec entrypoint": "hpsearch run a.yaml --resume auto"}, {}),
    (
        "sweep/resume",
        world.ray_cron,
        {"spec jobTemplate entrypoint": "hpsearch run a.yaml --study a --resume auto"},
        {},
    ),
    (
        "sweep/storage",
        world.job,
        {f"{HEAD_POD} volumes 2": {"name": "studies", "emptyDir": {"sizeLimit": "1Gi"}}},
        {},
    ),
    ("sweep/storage", world.job, {f"{GROUP} template spec containers 0 volumeMounts 2": GONE}, {}),
    (
        "sweep/storage",
        world.job,
        {"spec entrypoint": "hpsearch run a.yaml --home /tmp/studies"},
        {},
    ),
    ("sweep/storage", world.job, {"spec entrypoint": "hpsearch run a.yaml --home s3://bucket/studies"}, {}),
    (
        "sweep/storage",
        world.job,
        {f"{GROUP} template spec containers 0 volumeMounts 2": GONE},
        {
            f"{GROUP} template spec containers 0 volumeMounts 2": GONE,
            "spec entrypoint": "hpsearch run a.yaml --storage s3://bucket/sweeps",
        },
    ),
    (
        "sweep/storage",
        world.job,
        {
            f"{HEAD_POD} volumes 2": {"name": "studies", "emptyDir": {"sizeLimit": "1Gi"}},
            "spec entrypoint": "hpsearch run a.yaml --storage s3://bucket/sweeps",
        },
        {"spec entrypoint": "hpsearch run a.yaml --storage /var/lib/hpsearch/studies/files"},
    ),
    (
        "sweep/storage",
        world.job,
        {"spec entrypoint": "hpsearch run a.yaml --storage /tmp/files"},
        {},
    ),
    (
        "sweep/retry-storage",
        world.job,
        {"spec entrypoint": "python a.py", f"{HEAD_POD} volumes": []},
        {"spec entrypoint": "python a.py", f"{HEAD_POD} volumes": [], "spec backoffLimit": 0},
    ),
    ("sweep/driver-signal", world.job, {f"{BOX} lifecycle": GONE}, {}),
    ("sweep/driver-signal", world.job, {f"{BOX} env 0 value": "3"}, {f"{BOX} env 0 value": "60"}),
    ("sweep/worker-signal", world.job, {f"{GROUP} template spec containers 0 lifecycle": GONE}, {}),
    ("sweep/suspend-by-hand", world.job, {"spec suspend": True}, {"spec suspend": True, QUEUE: "gpus"}),
    (
        "sweep/packages",
        world.job,
        {"spec runtimeEnvYAML": "pip: [torch]"},
        {"spec runtimeEnvYAML": "env_vars: {}"},
    ),
    ("sweep/job-id", world.job, {"spec jobId": "mine"}, {}),
    (
        "sweep/owner-name",
        world.job,
        {"metadata ownerReferences": [{"kind": "Job", "name": "auto-mpg"}]},
        {"metadata ownerReferences": [{"kind": "Job", "name": "auto-mp"}]},
    ),
    # -- secrets where dashboards show them
    (
        "secret/job",
        world.job,
        {"spec entrypoint": "python a.py --token abcdef123"},
        {"spec entrypoint": "python a.py --tokens 5"},
    ),
    (
        "secret/job",
        world.job,
        {"spec metadata mlflow_password": "hunter2x"},
        {"spec metadata space": "hunter2x"},
    ),
    (
        "secret/job",
        world.job,
        {"spec runtimeEnvYAML": "env_vars:\n  WANDB_API_KEY: abcdef123\n"},
        {"spec runtimeEnvYAML": "env_vars:\n  MODE: abcdef123\n"},
    ),
]


test_a_broken_rule_is_told_and_a_kept_one_is_not, test_each_rule_has_a_case = rule_tests(CASES, BOOKS)
