"""A schedule for Slurm: the job of one tick, a script that submits it, a block of the scrontab that calls it.

Slurm's own cron reads the fields in the controller's time zone; each tick is a job of its own, which keeps
its tick when it is requeued.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from hpsearch.ship import slurm
from hpsearch.ship.choices import Overlap
from hpsearch.ship.marks import begin, end, replaced
from hpsearch.ship.schedule import File, Schedule

# Of the job that only submits another one.
SUBMITTING = "00:10:00"


def files(schedule: Schedule, allocation: slurm.Allocation, ray: str, place: Path) -> list[File]:
    """The files of a schedule; `place` is the directory in which they will lie, which all nodes share."""
    name = f"hpsearch-{schedule.name}"
    job = slurm.Script(
        name=name,
        # The script itself says where Ray and the status file are.
        command=tuple(schedule.command("$tick", None)),
        ray=ray,
        directory=schedule.directory,
        state=schedule.home / ".slurm",
        allocation=allocation,
        environment=schedule.environment,
        argument="tick",
    )
    return [
        File(f"{name}.sbatch", slurm.script(job), 0o700),
        File(f"{name}.sh", _submitting(schedule, name, place / f"{name}.sbatch"), 0o700),
        File(f"{name}.scrontab", block(schedule, place), 0o600),
    ]


def block(schedule: Schedule, place: Path) -> str:
    """The lines of the scrontab with their marks."""
    name = f"hpsearch-{schedule.name}"
    lines = [
        begin(schedule.name),
        f"# Slurm reads the fields in its controller's time zone, which has to be {schedule.zone.key}.",
        f"#SCRON --job-name={name}-cron",
        f"#SCRON --time={SUBMITTING}",
        f"#SCRON --output={schedule.home / '.slurm'}/%x.log",
        "#SCRON --open-mode=append",
        f"{schedule.cron} {shlex.quote(str(place / f'{name}.sh'))}",
        end(schedule.name),
    ]
    return "\n".join(lines) + "\n"


def merged(scrontab: str, schedule: Schedule, place: Path) -> str:
    """A scrontab with the block of this schedule, all other lines as they are. Raises UsageError."""
    return replaced(scrontab, schedule.name, block(schedule, place))


def _submitting(schedule: Schedule, name: str, job: Path) -> str:
    """What Slurm's cron runs: the tick gets its time now, however long its job waits for nodes."""
    due = [*schedule.program, "schedule", str(schedule.sweep), "--cron", str(schedule.cron)]
    due += ["--tz", schedule.zone.key, "--due"]
    lines = [
        "#!/bin/sh",
        f"# Made by `hpsearch schedule`: {schedule.cron} in {schedule.zone.key}, overlap {schedule.overlap}.",
        "set -eu",
        f"tick=$({shlex.join(due)})",
    ]
    if schedule.overlap is Overlap.SKIP:
        lines += [
            f'running=$(squeue --noheader --user="$(id -un)" --name={name} --format=%A)',
            'if [ -n "$running" ]; then',
            f'  echo "{name}: $tick is left out, job $running runs or waits"',
            "  exit 0",
            "fi",
        ]
    if schedule.overlap is Overlap.REPLACE:
        # Their studies stay, and `hpsearch resume` goes on with them.
        lines.append(f'scancel --user="$(id -un)" --name={name}')
    # Jobs of one name and user that are singletons run one after another.
    lines.append(f'exec sbatch --dependency=singleton {shlex.quote(str(job))} "$tick"')
    return "\n".join(lines) + "\n"
