"""What a CronJob that launches sweeps must say: its name, its overlap, which exit codes are tried again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hpsearch.ship import cron
from hpsearch.ship.job import LONGEST_CRONJOB
from hpsearch.ship.lint.cron_rules import JOB, POD, SINCE, launches, option, parsed, words, zone_of
from hpsearch.ship.lint.finding import Fault, Level
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import maps, sequence, text, whole

NOT_RETRIED = (2, 3, 4, 74)
RETRIED = (69, 73, 75)
_CODES = range(256)
LAUNCH: Rulebook[Manifest, Fault] = Rulebook("launch", "this project's rules for schedules")


@LAUNCH.rule(
    "name",
    f"The name of a CronJob that launches has at most {LONGEST_CRONJOB} characters: the RayJob's is 11 "
    f"longer.",
    "shorten it",
)
def name(manifest: Manifest) -> Iterator[Fault]:
    longest = LONGEST_CRONJOB if launches(manifest) else 52
    if manifest.kind == "CronJob" and len(manifest.name) > longest:
        yield Fault(
            ("metadata", "name"), f"the name has {len(manifest.name)} characters, and at most {longest} fit"
        )


@LAUNCH.rule(
    "wait",
    "The launcher waits for the sweep: otherwise concurrencyPolicy protects nothing.",
    "write hpsearch launch FILE --job-name $(JOB_NAME) --wait",
)
def wait(manifest: Manifest) -> Iterator[Fault]:
    if launches(manifest) and "--wait" not in words(manifest):
        yield Fault((*POD, "containers", 0), "hpsearch launch without --wait")


@LAUNCH.rule(
    "job-name",
    "The launcher is told its own Job's name, by the downward API.",
    "write --job-name $(JOB_NAME), and env JOB_NAME from metadata.labels['batch.kubernetes.io/job-name']",
    source="trap: RayJob named like the launcher's Job",
)
def job_name(manifest: Manifest) -> Iterator[Fault]:
    if not launches(manifest):
        return
    at, given = (*POD, "containers", 0), option(manifest, "--job-name")
    found = re.fullmatch(r"\$\((\w+)\)", given)
    if not found:
        yield Fault(at, f"--job-name {shown(given)} is the same for each tick")
        return
    for place, entry in maps(manifest.value, *at, "env"):
        if entry.get("name") == found[1]:
            source = text(entry, "valueFrom", "fieldRef", "fieldPath")
            if not re.fullmatch(r"metadata\.labels\['(batch\.kubernetes\.io/)?job-name'\]", source):
                yield Fault((*at, "env", place), f"{found[1]} is not the name of the pod's Job")
            return
    yield Fault((*at, "env"), f"no variable {found[1]}")


@LAUNCH.rule(
    "overlap",
    "--overlap and concurrencyPolicy say the same: skip and queue are Forbid, replace is Replace; a "
    "queued tick may "
    "start late, a skipped one may not.",
    "skip: Forbid and startingDeadlineSeconds 300; queue: Forbid and a window as long as the period; "
    "replace: Replace",
)
def overlap(manifest: Manifest) -> Iterator[Fault]:
    if not launches(manifest):
        return
    wanted, policy = (
        option(manifest, "--overlap") or "skip",
        text(manifest.value, "spec", "concurrencyPolicy"),
    )
    needed = "Replace" if wanted == "replace" else "Forbid"
    if policy and policy != needed:
        yield Fault(("spec", "concurrencyPolicy"), f"--overlap {wanted} with concurrencyPolicy {policy}")
    window, period = whole(manifest.value, "spec", "startingDeadlineSeconds"), _period(manifest)
    if window is None or period is None:
        return
    if wanted == "queue" and window < period * 0.9:
        said = f"--overlap queue: a waiting tick is dropped after {window} s, the period is {period:.0f} s"
        yield Fault(("spec", "startingDeadlineSeconds"), said)
    if wanted == "skip" and window >= period:
        said = f"--overlap skip: a tick may start {window} s late, and the period is {period:.0f} s"
        yield Fault(("spec", "startingDeadlineSeconds"), said)


def _period(manifest: Manifest) -> float | None:
    found, zone = parsed(manifest), zone_of(text(manifest.value, "spec", "timeZone"))
    if found is None or zone is None:
        return None
    return cron.shortest_gap(found, zone, SINCE, 100).total_seconds()


@LAUNCH.rule(
    "failure-policy",
    "The Job gives up on exit codes 2, 3, 4 and 74, tries again on 69, 73 and 75, and counts no eviction.",
    "set podFailurePolicy: FailJob onExitCodes In [2, 3, 4, 74]; Ignore onPodConditions "
    "DisruptionTarget, status True",
)
def failure_policy(manifest: Manifest) -> Iterator[Fault]:
    if not launches(manifest):
        return
    at = (*JOB, "podFailurePolicy")
    rules = [rule for _, rule in maps(manifest.value, *at, "rules")]
    failing = {code for rule in rules if rule.get("action") == "FailJob" for code in _codes_of(rule)}
    if missing := [code for code in NOT_RETRIED if code not in failing]:
        yield Fault(at, f"exit codes {', '.join(map(str, missing))} are tried again, in vain")
    if retried := sorted(failing & set(RETRIED)):
        yield Fault(at, f"exit codes {', '.join(map(str, retried))} mean: run it again, and are given up")
    if not any(_ignores_disruption(rule) for rule in rules):
        yield Fault(at, "an evicted launcher counts as a failed one", Level.WARNING)


def _codes_of(rule: dict[str, Any]) -> set[int]:
    values = {value for value in sequence(rule, "onExitCodes", "values") if isinstance(value, int)}
    return set(_CODES) - values - {0} if text(rule, "onExitCodes", "operator") == "NotIn" else values


def _ignores_disruption(rule: dict[str, Any]) -> bool:
    conditions = [each for _, each in maps(rule, "onPodConditions")]
    return rule.get("action") == "Ignore" and any(
        each.get("type") == "DisruptionTarget" and each.get("status") == "True" for each in conditions
    )


@LAUNCH.rule(
    "job-deadline",
    "The Job outlives all attempts of its RayJob: (backoffLimit + 1) x activeDeadlineSeconds and slack. "
    "Under Kueue it has no deadline at all: waiting in a queue takes as long as it takes.",
    "raise activeDeadlineSeconds of the Job, or remove it",
)
def job_deadline(manifest: Manifest) -> Iterator[Fault]:
    at = (*JOB, "activeDeadlineSeconds")
    given = whole(manifest.value, *at)
    if not launches(manifest) or given is None:
        return
    if option(manifest, "--kueue"):
        yield Fault(at, f"a deadline of {given} s for a job that waits in a queue")
        return
    deadline, retries = option(manifest, "--deadline"), option(manifest, "--retries")
    if deadline.isdigit():
        needed = (int(retries if retries.isdigit() else 2) + 1) * int(deadline)
        if given <= needed:
            yield Fault(at, f"the Job ends after {given} s, and its RayJob's attempts may take {needed} s")


@LAUNCH.rule(
    "retries",
    "The launcher's Job is tried again: an interrupted launcher attaches to its RayJob.",
    "set backoffLimit: 4",
    level=Level.WARNING,
)
def retries(manifest: Manifest) -> Iterator[Fault]:
    given = whole(manifest.value, *JOB, "backoffLimit")
    if launches(manifest) and given == 0:
        yield Fault((*JOB, "backoffLimit"), "a launcher that is evicted is not started again")
