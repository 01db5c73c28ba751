"""The words of the command `schedule`: when, by what, and with what resources a sweep runs by itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.ship.choices import Overlap

if TYPE_CHECKING:
    from hpsearch.ship.slurm import Allocation


class Target(StrEnum):
    """What keeps the time."""

    CRONJOB = "cronjob"
    RAYCRONJOB = "raycronjob"
    SYSTEMD = "systemd"
    CRONTAB = "crontab"
    SLURM = "slurm"


Expression = Annotated[
    str, typer.Option("--cron", metavar="EXPR", help='When: five fields, such as "17 2 * * *", or @daily.')
]
Zone = Annotated[str, typer.Option("--tz", metavar="ZONE", help="The time zone of EXPR: Europe/Berlin, UTC.")]
As = Annotated[Target | None, typer.Option("--as", help="What keeps the time.")]
Overlaps = Annotated[
    Overlap,
    typer.Option("--overlap", help="While a tick runs the next is left out, waits, or ends the one before."),
]
ScheduleName = Annotated[
    str | None, typer.Option("--name", help="The schedule's name, which begins its studies' [FILE's stem].")
]
Apply = Annotated[bool, typer.Option("--apply", help="Apply what is printed; may be repeated.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="DIR", help="Write the files there [stdout].")
]
Due = Annotated[
    bool, typer.Option("--due", help="Print the newest time that was due, for scripts, and nothing else.")
]
Environment = Annotated[
    Path | None,
    typer.Option(
        "--env-file",
        metavar="FILE",
        help="Lines NAME=VALUE that a tick starts with: secrets such as HPSEARCH_STORE (not on Kubernetes).",
    ),
]
Delay = Annotated[
    int, typer.Option("--delay", metavar="SECONDS", min=0, help="systemd: a tick starts up to so much later.")
]
System = Annotated[bool, typer.Option("--system", help="systemd: units of the machine [of the user].")]
WebhookEnv = Annotated[
    str | None, typer.Option("--webhook-env", metavar="VAR", help="Post each tick's end there; see `run`.")
]
SweepImage = Annotated[
    str | None,
    typer.Option(
        "--image", metavar="NAME@DIGEST", envvar="HPSEARCH_IMAGE", help="Kubernetes: the image of all pods."
    ),
]
Nodes = Annotated[int, typer.Option("--nodes", min=1, help="Slurm: nodes of the job.")]
Cpus = Annotated[int, typer.Option("--cpus", min=1, help="Slurm: CPUs of each node.")]
Gpus = Annotated[int, typer.Option("--gpus", min=0, help="Slurm: GPUs of each node.")]
Memory = Annotated[str, typer.Option("--memory", help="Slurm: memory of each node.")]
TimeLimit = Annotated[
    str, typer.Option("--time-limit", metavar="TIME", help="Slurm: of one run; requeued, it goes on.")
]
Partition = Annotated[str | None, typer.Option("--partition", help="Slurm: the partition.")]
Account = Annotated[str | None, typer.Option("--account", help="Slurm: the account.")]
Sbatch = Annotated[
    list[str] | None,
    typer.Option("--sbatch", metavar="--KEY=VALUE", help="Slurm: another directive; may be repeated."),
]


@dataclass(frozen=True, slots=True)
class Machines:
    """The options of what a Slurm job gets, for `options.spread`."""

    nodes: Nodes = 1
    cpus: Cpus = 4
    gpus: Gpus = 0
    memory: Memory = "16G"
    time_limit: TimeLimit = "1-00:00:00"
    partition: Partition = None
    account: Account = None
    sbatch: Sbatch = None

    def allocation(self) -> Allocation:
        """What is asked of Slurm."""
        from hpsearch.ship.slurm import Allocation

        return Allocation(
            self.nodes,
            self.cpus,
            self.gpus,
            self.memory,
            self.time_limit,
            self.partition,
            self.account,
            tuple(self.sbatch or ()),
        )
