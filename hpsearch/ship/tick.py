"""A tick of a schedule: one moment, one study, and the tags by which MLflow's users find it.

The name follows from the schedule and the moment alone, so that whoever starts a tick again goes on with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from hpsearch.errors import UsageError
from hpsearch.redaction import redact
from hpsearch.ship import cron

SCHEDULE, SCHEDULED_TIME, SWEEP = "schedule", "scheduled_time", "sweep"
# The moment and a dash take 17 characters of the hundred that a study's name has.
LONGEST_NAME = 80
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# What hpsearch says itself of a study, a trial or its ending.
OWN = {
    *("study", "state", "reason", "trial", "attempts", "resumed_from", "step", "seed", "sampler", "pruner"),
    *("previous", "versions", "spec_sha256", "space_sha256", "best_trial", "best_params", "best_run_id"),
}


@dataclass(frozen=True, slots=True)
class Tick:
    """Which schedule, and the moment in UTC that this tick stands for."""

    schedule: str
    time: datetime

    @property
    def study(self) -> str:
        """The name of its study: nightly-20261125T011700Z."""
        return f"{self.schedule}-{self.time:%Y%m%dT%H%M%SZ}"

    @property
    def tags(self) -> dict[str, str]:
        """What its runs say."""
        return {SCHEDULE: self.schedule, SCHEDULED_TIME: moment_text(self.time)}


def moment_text(time: datetime) -> str:
    """A moment as RFC 3339 text in UTC, which also sorts: 2026-11-25T01:17:00Z."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def tick(schedule: str | None, scheduled_time: str | None, now: datetime) -> Tick | None:
    """The tick that two options mean, None where there is neither.

    The time is RFC 3339 text, or `CRON ZONE`: the newest moment at which that was due. Raises UsageError.
    """
    if schedule is None and scheduled_time is None:
        return None
    if schedule is None or scheduled_time is None:
        missing = "--schedule" if schedule is None else "--scheduled-time"
        raise UsageError(
            f"a tick has a schedule and a time, and {missing} is missing",
            hint="give both, or neither for a study that belongs to no schedule",
        )
    return Tick(schedule_name(schedule), _moment(scheduled_time, now))


def schedule_name(text: str, longest: int = LONGEST_NAME) -> str:
    """The name of a schedule, which begins those of its studies. Raises UsageError."""
    if len(text) > longest or not _NAME.fullmatch(text):
        raise UsageError(
            f"schedule name {text!r} is not usable",
            hint=f"use letters, digits, '_', '-' and '.', at most {longest}",
        )
    return text


def time_zone(name: str) -> ZoneInfo:
    """A time zone of the tz database. Raises UsageError."""
    try:
        # Of what is called so, each machine has its own idea.
        if name.lower() not in ("local", "localtime", "factory"):
            return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        pass
    raise UsageError(
        f"there is no time zone {name!r}",
        hint="write one of the tz database, such as Europe/Berlin or UTC",
    )


def given_tags(texts: Iterable[str]) -> dict[str, str]:
    """Tags from KEY=VALUE, without secrets. Raises UsageError for what hpsearch says itself."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            raise UsageError(f"--tag {text!r} is not KEY=VALUE", hint="such as --tag team=vision")
        if key in OWN or key in (SCHEDULE, SCHEDULED_TIME) or key.startswith(("mlflow.", "hpsearch.")):
            raise UsageError(f"--tag {key}: hpsearch says that itself", hint="choose another key")
        found[key] = redact(text)[len(key) + 1 :]
    return found


def _moment(text: str, now: datetime) -> datetime:
    words = text.split()
    if len(words) in (2, 6):
        return cron.due(cron.parse(" ".join(words[:-1])), time_zone(words[-1]), now)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise UsageError(
            f"--scheduled-time {text!r} is no moment",
            hint='write one such as 2026-11-25T01:17:00Z, or when it is due: "17 2 * * * Europe/Berlin"',
        )
    return moment.astimezone(UTC)
