"""A schedule: which sweep, when, where it keeps its studies, and the command of one tick.

Pure: it makes texts. Who applies them is another matter.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from hpsearch.errors import UsageError
from hpsearch.ship import cron
from hpsearch.ship.choices import Overlap
from hpsearch.ship.cron import Cron
from hpsearch.ship.tick import moment_text

# Hours in which clocks are changed somewhere.
NIGHT = (1, 2, 3)
SHOWN = 3  # next times


@dataclass(frozen=True, slots=True)
class File:
    """A file of a schedule; `mode` is what its owner and others may do with it."""

    name: str
    text: str
    mode: int = 0o600


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a sweep runs and how; paths are absolute.

    `program`: the words that start hpsearch. `environment`: a file of NAME=VALUE lines, which keeps secrets
    out of what is written here. `delay`: seconds within which a tick may start later, by chance.
    `options`: words for `run` beside those that make it a tick.
    """

    name: str
    sweep: Path
    cron: Cron
    zone: ZoneInfo
    overlap: Overlap
    home: Path
    directory: Path
    program: tuple[str, ...]
    environment: Path | None = None
    delay: int = 60
    options: tuple[str, ...] = ()

    @property
    def due(self) -> str:
        """What `--scheduled-time` takes for the newest time that was due."""
        return f"{self.cron} {self.zone.key}"

    @property
    def status_file(self) -> Path:
        """Where a tick says how it is doing."""
        return self.home / f".{self.name}.status.json"

    @property
    def lock(self) -> Path:
        """What ticks of one schedule take turns with, where nothing else keeps them apart."""
        return self.home / f".{self.name}.lock"

    def command(self, scheduled_time: str, status_file: Path | None) -> list[str]:
        """The words of one tick: the same ones start it and go on with it."""
        status = () if status_file is None else ("--status-file", str(status_file))
        return [
            *self.program,
            "run",
            str(self.sweep),
            *("--schedule", self.name, "--scheduled-time", scheduled_time, "--resume", "auto"),
            *("--home", str(self.home)),
            *status,
            *self.options,
        ]


def check(schedule: Schedule) -> None:
    """Raise UsageError for what would break out of a line of a file."""
    words = [str(schedule.sweep), str(schedule.home), str(schedule.directory), *schedule.program]
    words += [*schedule.options, str(schedule.environment or "")]
    for word in words:
        if not word.isprintable():
            raise UsageError(
                f"{word!r} cannot stand in a schedule", hint="choose a path without control characters"
            )


def notes(schedule: Schedule, now: datetime) -> Iterator[str]:
    """What whoever sets up a schedule should know of its times, in words."""
    hours = [hour for hour in NIGHT if hour in schedule.cron.hour.values]
    changes = cron.clock_changes(schedule.zone, now)
    if hours and changes:
        yield (
            f"an hour from 01:00 to 03:59 may be skipped or come twice when the clocks change in "
            f"{schedule.zone.key}, next on {changes[0]}: choose another hour, or --tz UTC"
        )
    if set(schedule.cron.minute.values) <= {0, 30}:
        yield "minutes 0 and 30 are when everybody's jobs start: choose an odd one, such as 17"
    gap = cron.shortest_gap(schedule.cron, schedule.zone, now)
    steps = schedule.cron.minute.text.removeprefix("*/")
    if steps.isdigit() and steps != schedule.cron.minute.text and 60 % int(steps):
        yield f"60 is no multiple of {steps}: the last gap of each hour is shorter"
    if gap.total_seconds() < schedule.delay:
        yield f"ticks are {gap} apart, and may start {schedule.delay} s late: --delay is too long"


def next_times(schedule: Schedule, now: datetime) -> list[str]:
    """The next times, in its zone and in UTC."""
    found = itertools.islice(cron.times(schedule.cron, schedule.zone, now), SHOWN)
    return [f"{each.astimezone(schedule.zone):%a %Y-%m-%d %H:%M %Z} ({moment_text(each)})" for each in found]
