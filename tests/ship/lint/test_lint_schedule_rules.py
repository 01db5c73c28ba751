"""Rules about schedules, and about secrets in objects: a manifest that breaks each, and one that does not."""

from __future__ import annotations

from typing import Any

import lint_world as world
from lint_cases import Case, rule_tests
from lint_world import GONE, Object

from hpsearch.ship.lint import cron_rules, launch_rules, secret_rules

BOOKS = (cron_rules.CRONS, launch_rules.LAUNCH, secret_rules.OBJECT_SECRETS)
JOB = "spec jobTemplate spec"
CRON_POD = f"{JOB} template spec"
LAUNCHER = f"{CRON_POD} containers 0"
WORDS = ["launch", "/etc/hpsearch/sweep.yaml", "--job-name", "$(JOB_NAME)", "--wait"]


def cron() -> list[Object]:
    return world.documents(world.CRONJOB)


def thing(kind: str, group: str = "v1", name: str = "other", **fields: Any) -> dict[str, Any]:
    """Another object, added by an edit `+`."""
    made = {"apiVersion": group, "kind": kind, "metadata": {"name": name, "namespace": "hpsearch"}}
    return {**made, **fields}


# rule, what it is about, edits that break it, edits that do not
CASES: list[Case] = [
    # -- schedules
    ("cron/schedule", cron, {"spec schedule": "17 25 * * *"}, {"spec schedule": "@daily"}),
    ("cron/schedule", cron, {"spec schedule": "CRON_TZ=Europe/Berlin 17 5 * * *"}, {}),
    ("cron/schedule", world.ray_cron, {"spec schedule": "often"}, {}),
    ("cron/time-zone", cron, {"spec timeZone": GONE}, {"spec timeZone": "Etc/UTC"}),
    ("cron/time-zone", cron, {"spec timeZone": "Europe/Atlantis"}, {}),
    (
        "cron/clock-change",
        cron,
        {"spec schedule": "17 2 * * *"},
        {"spec schedule": "17 2 * * *", "spec timeZone": "Etc/UTC"},
    ),
    ("cron/full-hour", cron, {"spec schedule": "0 5 * * *"}, {}),
    (
        "cron/starting-deadline",
        cron,
        {"spec startingDeadlineSeconds": GONE},
        {"spec startingDeadlineSeconds": 10},
    ),
    ("cron/starting-deadline", cron, {"spec startingDeadlineSeconds": 9}, {}),
    ("cron/concurrency", cron, {"spec concurrencyPolicy": GONE}, {"spec concurrencyPolicy": "Replace"}),
    ("cron/concurrency", cron, {"spec concurrencyPolicy": "Allow"}, {}),
    ("cron/history", cron, {"spec successfulJobsHistoryLimit": 0}, {"spec successfulJobsHistoryLimit": 1}),
    ("cron/ray-cron", world.ray_cron, {}, {"kind": "RayJob"}),
    ("cron/restart", cron, {f"{CRON_POD} restartPolicy": "OnFailure"}, {}),
    ("launch/name", cron, {"metadata name": "a" * 37}, {"metadata name": "a" * 36}),
    ("launch/wait", cron, {f"{LAUNCHER} args": WORDS[:-1]}, {f"{LAUNCHER} args": WORDS}),
    ("launch/job-name", cron, {f"{LAUNCHER} args": ["launch", "a.yaml", "--job-name", "nightly"]}, {}),
    ("launch/job-name", cron, {f"{LAUNCHER} env": []}, {}),
    ("launch/job-name", cron, {f"{LAUNCHER} env 0 valueFrom fieldRef fieldPath": "metadata.name"}, {}),
    (
        "launch/overlap",
        cron,
        {f"{LAUNCHER} args": [*WORDS, "--overlap", "replace"]},
        {f"{LAUNCHER} args": [*WORDS, "--overlap", "skip"]},
    ),
    (
        "launch/overlap",
        cron,
        {f"{LAUNCHER} args": [*WORDS, "--overlap=queue"]},
        {f"{LAUNCHER} args": [*WORDS, "--overlap=queue"], "spec startingDeadlineSeconds": 86400},
    ),
    ("launch/failure-policy", cron, {f"{JOB} podFailurePolicy": GONE}, {}),
    (
        "launch/failure-policy",
        cron,
        {f"{JOB} podFailurePolicy rules 0 onExitCodes values": [2, 3, 4, 74, 75]},
        {},
    ),
    (
        "launch/job-deadline",
        cron,
        {f"{JOB} activeDeadlineSeconds": 30000},
        {f"{JOB} activeDeadlineSeconds": 30001},
    ),
    (
        "launch/job-deadline",
        cron,
        {f"{LAUNCHER} args": [*WORDS, "--kueue", "gpus"]},
        {f"{JOB} activeDeadlineSeconds": GONE, f"{LAUNCHER} args": [*WORDS, "--kueue", "gpus"]},
    ),
    ("launch/retries", cron, {f"{JOB} backoffLimit": 0}, {}),
    # -- secrets
    (
        "secret/object",
        cron,
        {"metadata annotations": {"note": "password=hunter2x"}},
        {"metadata annotations": {"note": "password=$(PW)"}},
    ),
    (
        "secret/object",
        cron,
        {"+": thing("ConfigMap", data={"env": "WANDB_API_KEY=abcdef123"})},
        {"+": thing("ConfigMap", data={"env": "MODE=abcdef123"})},
    ),
    (
        "secret/in-file",
        cron,
        {"+": thing("Secret", stringData={"password": "hunter2x"})},
        {"+": thing("Secret", stringData={"password": "changeme"})},
    ),
    (
        "secret/in-file",
        cron,
        {"+": thing("Secret", data={"password": "aHVudGVyMng="})},
        {"+": thing("Secret")},
    ),
    (
        "secret/last-applied",
        cron,
        {"metadata annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        {},
    ),
]


test_a_broken_rule_is_told_and_a_kept_one_is_not, test_each_rule_has_a_case = rule_tests(CASES, BOOKS)
