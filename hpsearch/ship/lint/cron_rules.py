"""What a CronJob or RayCronJob must say so that each tick comes once, in time, and one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hpsearch.errors import UsageError
from hpsearch.ship import cron
from hpsearch.ship.lint.finding import Fault, Level, Path
from hpsearch.ship.lint.manifest import Manifest
from hpsearch.ship.lint.rulebook import Rulebook
from hpsearch.ship.lint.schema_errors import shown
from hpsearch.ship.lint.shape import dig, mapping, text, texts, whole

CRONS: Rulebook[Manifest, Fault] = Rulebook("cron", "Kubernetes, CronJob")
JOB: Path = ("spec", "jobTemplate", "spec")
POD: Path = (*JOB, "template", "spec")
# A CronJob's controller looks every ten seconds (seconds).
SHORTEST_WINDOW = 10
# Hours that a change of clocks may skip or repeat, in most places.
CHANGING = range(1, 4)
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
        # The parser is the command line's too, and speaks of its option.
        said = error.message.removeprefix("--cron").removeprefix(":").strip()
        yield Fault(("spec", "schedule"), said, remedy=error.hint)


@CRONS.rule(
    "time-zone",
    "timeZone is a name of the time zone database.",
    "write timeZone: Europe/Berlin, or Etc/UTC",
)
def timezone_of(manifest: Manifest) -> Iterator[Fault]:
    if not _is_cron(manifest):
        return
    given = dig(manifest.value, "spec", "timeZone")
    if given is None:
        yield Fault(("spec", "timeZone"), "no timeZone: the one of whatever machine runs the controller")
    elif not isinstance(given, str) or zone_of(given) is None:
        yield Fault(("spec", "timeZone"), f"{shown(given)} is no time zone")


def zone_of(name: str) -> ZoneInfo | None:
    """The zone of a name; None where there is none."""
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
    found, zone = parsed(manifest), zone_of(text(manifest.value, "spec", "timeZone"))
    if not _is_cron(manifest) or found is None or zone is None:
        return
    hours = _hours(found)
    if len(hours) < 24 and set(hours) & set(CHANGING) and cron.clock_changes(zone, SINCE):
        given = text(manifest.value, "spec", "schedule")
        said = f"{given} in {zone.key}: a change of clocks may skip or double a tick"
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
    f"startingDeadlineSeconds is set, and {SHORTEST_WINDOW} or more: without it 100 missed ticks stop the "
    f"CronJob for "
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
    "RayCronJob is alpha: its gate is off by default, and it has no concurrencyPolicy, no starting "
    "deadline, no "
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
