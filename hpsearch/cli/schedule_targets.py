"""What `schedule` makes for each target: the files, what should be known of them, how they are applied."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hpsearch.cli.schedule_words import Target
from hpsearch.errors import UsageError

if TYPE_CHECKING:
    from hpsearch.ship.making import Wishes
    from hpsearch.ship.schedule import File as Written
    from hpsearch.ship.schedule import Schedule
    from hpsearch.ship.slurm import Allocation
    from hpsearch.spec.model import Spec


@dataclass(frozen=True, slots=True)
class Rendered:
    """What is printed, what else should be known, and how it is applied."""

    files: Sequence[Written]
    notes: Sequence[str]
    apply: Callable[[], list[str]]


def rendered(
    target: Target,
    made: Schedule,
    spec: Spec,
    wishes: Wishes,
    nodes: Allocation,
    place: Path,
    *,
    user: bool,
) -> Rendered:
    """The files of one target, and what is said of them."""
    if target in (Target.CRONJOB, Target.RAYCRONJOB):
        return _kubernetes(target, made, spec, wishes)
    _be_local(made)
    match target:
        case Target.SYSTEMD:
            return _systemd(made, user=user)
        case Target.CRONTAB:
            return _crontab(made)
        case _:
            return _slurm(made, nodes, place)


def _kubernetes(target: Target, made: Schedule, spec: Spec, wishes: Wishes) -> Rendered:
    from hpsearch.ship import cron, render, schedule_apply, schedule_kubernetes
    from hpsearch.ship.schedule import File as Written

    if not wishes.image:
        raise UsageError("--image is missing", hint="the image of all pods, as NAME@sha256:DIGEST")
    if made.environment or made.options:
        raise UsageError(
            "--env-file, --local, --address and --webhook-env are for machines, not for Kubernetes",
            hint="there secrets come by --store-secret, --mlflow-secret and --webhook-secret",
        )
    notes: list[str] = []
    if target is Target.CRONJOB:
        period = cron.shortest_gap(made.cron, made.zone, datetime.now(UTC))
        objects = schedule_kubernetes.cron_job(made, spec, wishes, period)
    else:
        objects = schedule_kubernetes.ray_cron_job(made, spec, wishes)
        notes.append(schedule_kubernetes.WARNING)
    text = render.dump(objects)
    return Rendered([Written(f"{target}.yaml", text)], notes, lambda: schedule_apply.kubernetes(text))


def _systemd(made: Schedule, *, user: bool) -> Rendered:
    from hpsearch.ship import schedule_apply, schedule_systemd

    # Who asks for units of the machine may have had to become root for it.
    account = None if user else os.environ.get("SUDO_USER") or getpass.getuser()
    files = schedule_systemd.units(made, account=account)
    unit = schedule_systemd.unit_name(made)
    notes = []
    if user:
        notes.append("a user's timers run while the user is logged in: `loginctl enable-linger` keeps them")
    return Rendered(files, notes, lambda: schedule_apply.systemd(files, unit, user=user))


def _crontab(made: Schedule) -> Rendered:
    from hpsearch.ship import schedule_apply, schedule_crontab

    notes = [
        "CRON_TZ is cronie's: Debian's cron reads the fields in the machine's zone",
        "cron makes up for no time at which the machine was off, and tries nothing again: --as systemd does",
    ]
    return Rendered(
        [schedule_crontab.file(made)],
        notes,
        lambda: schedule_apply.crontab(lambda text: schedule_crontab.merged(text, made), made.zone),
    )


def _slurm(made: Schedule, nodes: Allocation, place: Path) -> Rendered:
    from hpsearch.ship import schedule_apply, schedule_slurm

    ray = str(Path(sys.executable).with_name("ray"))
    if "--local" in made.options or "--address" in made.options:
        raise UsageError(
            "--local and --address are not for Slurm, whose jobs start a Ray of their own",
            hint="leave them out",
        )
    files = schedule_slurm.files(made, nodes, ray, place)
    notes = [
        f"Slurm reads the fields in its controller's time zone, which has to be {made.zone.key}",
        f"all nodes have to see {_listed(made.home, made.directory, place)}",
    ]

    def apply() -> list[str]:
        (made.home / ".slurm").mkdir(mode=0o700, parents=True, exist_ok=True)  # sbatch makes no directory
        return schedule_apply.slurm(files, place, lambda text: schedule_slurm.merged(text, made, place))

    return Rendered(files, notes, apply)


def _listed(*places: Path) -> str:
    names = list(dict.fromkeys(map(str, places)))
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _be_local(made: Schedule) -> None:
    """Raise UsageError for what no line of a file can hold, or a file of secrets that is not there."""
    from hpsearch.ship.schedule import check

    check(made)
    if made.environment is None:
        return
    try:
        mode = made.environment.stat().st_mode
    except OSError as error:
        raise UsageError(
            f"--env-file {made.environment}: {error.strerror}", hint="name a file that is there"
        ) from error
    if mode & 0o077:
        raise UsageError(
            f"--env-file {made.environment} can be read by others (mode {mode & 0o777:o})",
            hint=f"chmod 600 {made.environment}",
        )
