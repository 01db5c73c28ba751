"""A schedule as a block of a crontab, between two marks; all other lines stay as they are.

The zone is cronie's CRON_TZ. Debian's cron knows none: there the fields are read in the machine's zone.
"""

from __future__ import annotations

import shlex

from hpsearch.errors import UsageError
from hpsearch.ship.choices import Overlap
from hpsearch.ship.marks import begin, end, replaced
from hpsearch.ship.schedule import File, Schedule

# How long a replaced tick may take to stop (seconds).
FAREWELL = 60
TICK = "$tick"
# Debian's cron takes no longer command (characters).
LONGEST = 990


def block(schedule: Schedule) -> str:
    """The lines of a schedule with their marks."""
    lines = [
        begin(schedule.name),
        f"# {schedule.cron} in {schedule.zone.key}, overlap {schedule.overlap}: {_SAID[schedule.overlap]}.",
        "# CRON_TZ counts for all lines below it: keep this block last. Debian's cron does not know it.",
        f"CRON_TZ={schedule.zone.key}",
        f"{schedule.cron} {_line(schedule)}",
        end(schedule.name),
    ]
    return "\n".join(lines) + "\n"


def file(schedule: Schedule) -> File:
    """The block as a file."""
    return File(f"hpsearch-{schedule.name}.crontab", block(schedule))


def merged(crontab: str, schedule: Schedule) -> str:
    """A crontab with the block of this schedule at its end, in place of an older one.

    Raises UsageError where only one of the two marks is left.
    """
    return replaced(crontab, schedule.name, block(schedule))


_SAID = {
    Overlap.SKIP: "a tick is left out while the one before runs",
    Overlap.QUEUE: "a tick waits for the one before",
    Overlap.REPLACE: "a tick stops the one before, which can be resumed by its name",
}


def _line(schedule: Schedule) -> str:
    """What cron runs; cron starts it in its minute, which therefore is the tick's time.

    The lock is held by flock itself: no process that a driver left behind keeps it.
    """

    def quoted(words: list[str]) -> str:
        return " ".join(_quoted(word, str(schedule.home)) for word in words)

    log = quoted([str(schedule.home / f".{schedule.name}.log")])
    how = "flock -n -o -E 0" if schedule.overlap is Overlap.SKIP else "flock -o"
    steps = ["umask 077", f"cd {shlex.quote(str(schedule.directory))}"]
    if schedule.environment:
        steps.append(f"set -a && . {shlex.quote(str(schedule.environment))} && set +a")
    steps += [f"home={shlex.quote(str(schedule.home))}", 'mkdir -p "$home"']
    steps.append("tick=$(date -u +%Y-%m-%dT%H:%M:00Z)")
    if schedule.overlap is Overlap.REPLACE:
        stop = [*schedule.program, "stop", "--schedule", schedule.name, "--home", str(schedule.home)]
        steps.append(f"{quoted([*stop, '--within', str(FAREWELL)])} >>{log} 2>&1")
    command = quoted([str(schedule.lock), *schedule.command(TICK, schedule.status_file)])
    steps.append(f"{how} {command} >>{log} 2>&1")
    # To cron a percent sign is the end of the line.
    line = " && ".join(steps).replace("%", r"\%")
    if len(line) > LONGEST:
        raise UsageError(
            f"the line of the crontab has {len(line)} characters, and cron takes {LONGEST}",
            hint="use shorter paths, or --as systemd",
        )
    return line


def _quoted(word: str, home: str) -> str:
    """A word for the shell; the home stands in a variable, because cron takes no long lines."""
    if word == TICK:
        return f'"{TICK}"'
    if word == home or word.startswith(home + "/"):
        rest = word[len(home) :]
        return '"$home"' + (shlex.quote(rest) if rest else "")
    return shlex.quote(word)
