"""What a CronJob or RayCronJob must say so that each tick comes once, in time, and one at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hpsearch.errors import UsageError
from hpsearch.ship import cron
from hpsearch.ship.job import LONGEST_CRONJOB
from hpsearch.ship.lint.finding import Fault, Level, Path
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import dig, mapping, maps, sequence, text, texts, whole

CRONS: Rulebook[Manifest] = Rulebook("cron", "Kubernetes, CronJob")
JOB: Path = ("spec", "jobTemplate", "spec")
POD: Path = (*JOB, "template", "spec")
# A CronJob's controller looks every ten seconds (seconds).
SHORTEST_WINDOW = 10
# Hours that a change of clocks may skip or repeat, in most places.
CHANGING = range(1, 4)
NOT_RETRIED = (2, 3, 4, 74)
_CODES = range(256)
# From when on clocks are looked at: findings shall not depend on the day.
SINCE = datetime(2026, 1, 1, tzinfo=UTC)


def _is_cron(manifest: Manifest) -> bool:
    return manifest.kind in ("CronJob", "RayCronJob")


def words(manifest: Manifest) -> list[str]:
    """What the pod of a CronJob runs, words of its image's entrypoint left out."""
    container = mapping(manifest.value, *POD, "containers", 0)
    found = [*texts(container, "command"), *texts(container, "args")]
    return found[1:] if found[:1] == ["hpsearch"] else found


def launches(manifest: Manifest) -> bool:
    """Whether its ticks are sweeps of ours."""
    return manifest.kind == "CronJob" and words(manifest)[:1] == ["launch"]


def option(manifest: Manifest, name: str) -> str:
    """The value of an option in its words, empty if there is none."""
    given = words(manifest)
    for place, word in enumerate(given):
        if word == name and place + 1 < len(given):
            return given[place + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return ""


def parsed(manifest: Manifest) -> cron.Cron | None:
    """Its schedule; None where it cannot be read."""
    try:
        return cron.parse(text(manifest.value, "spec", "schedule"))
    except UsageError:
        return None


@CRONS.rule(
    "schedule",
    "The schedule is five fields that every cron reads alike, without a time zone in it.",
    'write MINUTE HOUR DAY MONTH WEEKDAY, such as "17 2 * * *", and the zone as timeZone',
    source="KubeRay 1.7.0, ValidateRayCronJobSpec; Kubernetes, CronJob",
)
def schedule(manifest: Manifest) -> Iterator[Fault]:
    if not _is_cron(manifest):
        return
    given = text(manifest.value, "spec", "schedule")
    if "TZ" in given:
        yield Fault(("spec", "schedule"), f"a time zone in the schedule {shown(given)}")
        return
    try:
        cron.parse(given)
    except UsageError as error:
        yield Fault(("spec", "schedule"), error.message, remedy=error.hint)


@CRONS.rule(
    "time-zone",
    "timeZone is a name of the time zone database.",
    "write timeZone: Europe/Berlin, or Etc/UTC",
)
def time_zone(manifest: Manifest) -> Iterator[Fault]:
    if not _is_cron(manifest):
        return
    given = dig(manifest.value, "spec", "timeZone")
    if given is None:
        yield Fault(("spec", "timeZone"), "no timeZone: the one of whatever machine runs the controller")
    elif not isinstance(given, str) or _zone(given) is None:
        yield Fault(("spec", "timeZone"), f"{shown(given)} is no time zone")


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name and name != "Local" else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


@CRONS.rule(
    "clock-change",
    "No tick falls into hours that a change of clocks skips or repeats.",
    "use an hour from 4 to 23, or timeZone: Etc/UTC",
    level=Level.WARNING,
)
def clock_change(manifest: Manifest) -> Iterator[Fault]:
    found, zone = parsed(manifest), _zone(text(manifest.value, "spec", "timeZone"))
    if not _is_cron(manifest) or found is None or zone is None:
        return
    hours = _hours(found)
    if len(hours) < 24 and set(hours) & set(CHANGING) and cron.clock_changes(zone, SINCE):
        said = f"{text(manifest.value, 'spec', 'schedule')} in {zone.key}: a change of clocks may skip or double a tick"
        yield Fault(("spec", "schedule"), said)


def _hours(found: cron.Cron) -> tuple[int, ...]:
    return found.hour.values


@CRONS.rule(
    "full-hour",
    "Ticks start at an odd minute, not when everybody's do.",
    "use a minute such as 17",
    level=Level.NOTE,
)
def full_hour(manifest: Manifest) -> Iterator[Fault]:
    found = parsed(manifest)
    if _is_cron(manifest) and found is not None and found.minute.values == (0,):
        yield Fault(("spec", "schedule"), "each tick starts at a full hour")


@CRONS.rule(
    "starting-deadline",
    f"startingDeadlineSeconds is set, and {SHORTEST_WINDOW} or more: without it 100 missed ticks stop the CronJob for "
    "good, and a shorter one starts nothing.",
    "set startingDeadlineSeconds: 300",
)
def starting_deadline(manifest: Manifest) -> Iterator[Fault]:
    if manifest.kind != "CronJob":
        return
    given = whole(manifest.value, "spec", "startingDeadlineSeconds")
    if given is None:
        yield Fault(("spec", "startingDeadlineSeconds"), "no startingDeadlineSeconds")
    elif given < SHORTEST_WINDOW:
        yield Fault(
            ("spec", "startingDeadlineSeconds"), f"{given} s is shorter than the controller's own period"
        )


@CRONS.rule(
    "concurrency",
    "Two ticks never run at once.",
    "set concurrencyPolicy: Forbid, or Replace",
)
def concurrency(manifest: Manifest) -> Iterator[Fault]:
    if manifest.kind != "CronJob":
        return
    given = text(manifest.value, "spec", "concurrencyPolicy")
    if given not in ("Forbid", "Replace"):
        said = f"concurrencyPolicy {given or 'Allow (the default)'}"
        yield Fault(("spec", "concurrencyPolicy"), said)


@CRONS.rule(
    "history",
    "Some ended Jobs stay, and no more than ten: their RayJobs go with them.",
    "set successfulJobsHistoryLimit: 3 and failedJobsHistoryLimit: 3",
    level=Level.WARNING,
)
def history(manifest: Manifest) -> Iterator[Fault]:
    if manifest.kind != "CronJob":
        return
    for name, default in (("successfulJobsHistoryLimit", 3), ("failedJobsHistoryLimit", 1)):
        given = whole(manifest.value, "spec", name)
        kept = default if given is None else given
        if not 1 <= kept <= 10:
            yield Fault(("spec", name), f"{kept} ended Jobs stay")


@CRONS.rule(
    "ray-cron",
    "RayCronJob is alpha: its gate is off by default, and it has no concurrencyPolicy, no starting deadline, no "
    "history; after a downtime it makes up all missed ticks.",
    "use a CronJob that runs hpsearch launch: hpsearch schedule --as cronjob",
    level=Level.WARNING,
    source="KubeRay 1.7.0, feature gate RayCronJob",
)
def ray_cron(manifest: Manifest) -> Iterator[Fault]:
    if manifest.kind == "RayCronJob" and manifest.is_ray:
        yield Fault(("kind",), "a default installation of KubeRay ignores RayCronJobs")


@CRONS.rule(
    "restart",
    "A Job's pod is not restarted in place: its exit code is what the Job is to see.",
    "set restartPolicy: Never",
)
def restart(manifest: Manifest) -> Iterator[Fault]:
    if manifest.kind != "CronJob":
        return
    given = text(manifest.value, *POD, "restartPolicy")
    if given not in ("Never", "OnFailure"):
        yield Fault(
            (*POD, "restartPolicy"), f"restartPolicy {given or 'Always (the default)'} of a Job's pod"
        )
    elif given == "OnFailure" and dig(manifest.value, *JOB, "podFailurePolicy") is not None:
        yield Fault((*POD, "restartPolicy"), "podFailurePolicy needs restartPolicy: Never")
    elif given == "OnFailure" and launches(manifest):
        yield Fault((*POD, "restartPolicy"), "a launcher that is restarted in place hides its exit code")


LAUNCH: Rulebook[Manifest] = Rulebook("launch", "this project's rules for schedules")


@LAUNCH.rule(
    "name",
    f"The name of a CronJob that launches has at most {LONGEST_CRONJOB} characters: the RayJob's is 11 longer.",
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
    "--overlap and concurrencyPolicy say the same: skip and queue are Forbid, replace is Replace; a queued tick may "
    "start late, a skipped one may not.",
    "skip: Forbid and startingDeadlineSeconds 300; queue: Forbid and a window as long as the period; replace: Replace",
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
        said = f"--overlap queue: a tick that waits is dropped after {window} s, and the period is {period:.0f} s"
        yield Fault(("spec", "startingDeadlineSeconds"), said)
    if wanted == "skip" and window >= period:
        said = f"--overlap skip: a tick may start {window} s late, and the period is {period:.0f} s"
        yield Fault(("spec", "startingDeadlineSeconds"), said)


def _period(manifest: Manifest) -> float | None:
    found, zone = parsed(manifest), _zone(text(manifest.value, "spec", "timeZone"))
    if found is None or zone is None:
        return None
    return cron.shortest_gap(found, zone, SINCE).total_seconds()


@LAUNCH.rule(
    "failure-policy",
    "The Job gives up on exit codes 2, 3, 4 and 74, tries again on 69, 73 and 75, and counts no eviction.",
    "set podFailurePolicy: FailJob onExitCodes In [2, 3, 4, 74]; Ignore onPodConditions DisruptionTarget, status True",
)
def failure_policy(manifest: Manifest) -> Iterator[Fault]:
    if not launches(manifest):
        return
    at = (*JOB, "podFailurePolicy")
    rules = [rule for _, rule in maps(manifest.value, *at, "rules")]
    failing = {code for rule in rules if rule.get("action") == "FailJob" for code in _codes(rule)}
    if missing := [code for code in NOT_RETRIED if code not in failing]:
        yield Fault(at, f"exit codes {', '.join(map(str, missing))} are tried again, in vain")
    if retried := sorted(failing & {69, 73, 75}):
        yield Fault(at, f"exit codes {', '.join(map(str, retried))} mean: run it again, and are given up")
    if not any(_ignores_disruption(rule) for rule in rules):
        yield Fault(at, "an evicted launcher counts as a failed one", Level.WARNING)


def _codes(rule: dict[str, Any]) -> set[int]:
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
