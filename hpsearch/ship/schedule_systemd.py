"""A schedule as systemd units: a timer, and a service that runs one tick and never twice at once.

`skip` is what systemd does by itself: a timer that elapses while its service runs does nothing. For `queue`
and `replace` the timer starts a dispatcher, and each tick is an instance named by its time.
"""

from __future__ import annotations

import re

from hpsearch.errors import UsageError
from hpsearch.ship.choices import Overlap
from hpsearch.ship.cron import Cron, Part, ranges
from hpsearch.ship.schedule import File, Schedule

DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
# Temporary failures, which the same command goes on after; all others are an end.
AGAIN = (69, 73, 75)
# How often a tick is tried and how soon (seconds); a longer outage is for the next tick.
TRIES, RETRY = 5, 60
# A driver leaves within 22 s of the signal; what is left behind then is killed.
STOP = 60
INSTANCE = "%i"
_UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def calendar(cron: Cron, zone: str) -> list[str]:
    """The OnCalendar expressions that together mean the same; two, where cron means either kind of day.

    A time that is in both is one for a timer, too.
    """
    clock = f"{_numbers(cron.hour)}:{_numbers(cron.minute)}:00 {zone}"
    months = _numbers(cron.month)
    weekdays = "" if cron.weekday.any else f"{_weekdays(cron.weekday)} "
    dates = f"*-{months}-{_numbers(cron.day)} {clock}"
    if cron.either:
        return [dates, f"{weekdays}*-{months}-* {clock}"]
    return [f"{weekdays}{dates}"]


def units(schedule: Schedule, *, account: str | None) -> list[File]:
    """The files of a schedule; `account`: whose ticks units of the machine run, None for units of a user.

    Raises UsageError for a name that no unit can have.
    """
    if not _UNIT.fullmatch(schedule.name):
        raise UsageError(
            f"no unit can be called {schedule.name!r}", hint="begin with a letter or digit: --name NAME"
        )
    unit = unit_name(schedule)
    timer = File(f"{unit}.timer", _timer(schedule), 0o644)
    if schedule.overlap is Overlap.SKIP:
        return [timer, File(f"{unit}.service", _service(schedule, schedule.due, [], account), 0o644)]
    tick = _service(schedule, INSTANCE, _turns(schedule), account)
    return [
        timer,
        File(f"{unit}.service", _dispatcher(schedule, unit, user=account is None), 0o644),
        File(f"{unit}@.service", tick, 0o644),
    ]


def unit_name(schedule: Schedule) -> str:
    """What the units of a schedule are called, without their kind."""
    return f"hpsearch-{schedule.name}"


def _timer(schedule: Schedule) -> str:
    lines = [
        *_about(f"When the sweep {schedule.sweep.name} runs", schedule),
        "",
        "[Timer]",
        *(f"OnCalendar={each}" for each in calendar(schedule.cron, schedule.zone.key)),
        "# A time at which the machine was off is made up for, once.",
        "Persistent=true",
        "# Not all at the same second; the moment that the tick stands for is the scheduled one.",
        f"RandomizedDelaySec={schedule.delay}",
        "AccuracySec=1s",
        f"Unit={unit_name(schedule)}.service",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    return "\n".join(lines) + "\n"


def _service(schedule: Schedule, scheduled_time: str, before: list[str], account: str | None) -> str:
    """What runs one tick."""
    command = schedule.command(scheduled_time, schedule.status_file)
    lines = [
        *_about(f"The sweep {schedule.sweep.name}, one tick", schedule),
        "After=network-online.target",
        "Wants=network-online.target",
        f"StartLimitIntervalSec={TRIES * RETRY * 4}",
        f"StartLimitBurst={TRIES}",
        "",
        "[Service]",
        "# One run at a time, and it counts as started when it has ended.",
        "Type=oneshot",
        f"WorkingDirectory={_escaped(str(schedule.directory))}",
        # What a trainer does is nothing for root.
        *([f"User={account}"] if account else []),
        "UMask=0077",
        *([f"EnvironmentFile={_escaped(str(schedule.environment))}"] if schedule.environment else []),
        "Environment=PYTHONUNBUFFERED=1",
        f"ExecStart={_words([*before, *command], instance=scheduled_time == INSTANCE)}",
        "# What was interrupted goes on in the same study; what has failed is not tried again.",
        "Restart=on-failure",
        f"RestartSec={RETRY}",
        "RestartPreventExitStatus=1 2 3 4 74 130",
        "# SIGTERM goes to the driver, which stops its trials in order; what it leaves behind is killed.",
        "KillMode=mixed",
        f"TimeoutStopSec={STOP}",
        "TimeoutStartSec=infinity",
    ]
    return "\n".join(lines) + "\n"


def _turns(schedule: Schedule) -> list[str]:
    """Instances take turns; the driver itself holds the lock, so that signals reach it."""
    return ["/usr/bin/flock", "--no-fork", str(schedule.lock)]


def _dispatcher(schedule: Schedule, unit: str, *, user: bool) -> str:
    """What the timer starts: it names the tick by its time, and starts that."""
    systemctl = "systemctl --user" if user else "systemctl"
    due = [*schedule.program, "schedule", str(schedule.sweep)]
    due += ["--cron", str(schedule.cron), "--tz", schedule.zone.key, "--due"]
    script = 'tick=$("$@") || exit; '
    said = "it waits for the one before"
    if schedule.overlap is Overlap.REPLACE:
        # Its study stays, and `hpsearch resume` goes on with it.
        script += f'{systemctl} stop "{unit}@*.service"; '
        said = "it ends the one before"
    script += f'exec {systemctl} start --no-block "{unit}@$tick.service"'
    lines = [
        *_about(f"Starts a tick of the sweep {schedule.sweep.name}; {said}", schedule),
        "",
        "[Service]",
        "Type=oneshot",
        f"WorkingDirectory={_escaped(str(schedule.directory))}",
        f"ExecStart={_words(['/bin/sh', '-c', script, 'dispatch', *due], instance=False)}",
    ]
    return "\n".join(lines) + "\n"


def _about(what: str, schedule: Schedule) -> list[str]:
    return [
        f"# Made by `hpsearch schedule`: {schedule.cron} in {schedule.zone.key}, overlap {schedule.overlap}.",
        "[Unit]",
        f"Description={_escaped(what)}",
    ]


def _words(words: list[str], *, instance: bool) -> str:
    """A command line as systemd reads it: nothing in it acts, but a word that is the instance's own name."""
    return " ".join(word if instance and word == INSTANCE else _word(word) for word in words)


def _word(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    if text and re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", text):
        return escaped
    return '"' + escaped.replace('"', '\\"') + '"'


def _escaped(text: str) -> str:
    """A value of a setting that is no command line."""
    return text.replace("%", "%%")


def _numbers(part: Part) -> str:
    if part.any:
        return "*"
    return ranges(part.values, "..")


def _weekdays(part: Part) -> str:
    """Sunday ends systemd's weeks, and begins cron's."""
    order = sorted(part.values, key=lambda day: (day - 1) % 7)
    runs: list[list[int]] = []
    for day in order:
        if runs and (day - 1) % 7 == (runs[-1][-1] - 1) % 7 + 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ",".join(
        f"{DAYS[run[0]]}..{DAYS[run[-1]]}" if len(run) > 2 else ",".join(DAYS[day] for day in run)
        for run in runs
    )
