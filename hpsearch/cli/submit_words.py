"""The words of the commands about jobs elsewhere: submit, status, logs, stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpsearch.ship.choices import Target

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="FILE | -- WORDS...", help="The search-space file; as a submitter, its command."),
]
To = Annotated[
    Target | None,
    typer.Option(
        "--to",
        help="A running Ray by its dashboard, a RayJob by kubectl, a job by sbatch, or this machine.",
    ),
]
DashboardAddress = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="jobs: Ray's dashboard [the variable RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265].",
    ),
]
Insecure = Annotated[
    bool,
    typer.Option("--insecure", help="jobs: ask a Ray elsewhere without a token, in a closed network."),
]
Waiting = Annotated[
    bool,
    typer.Option(
        "--wait",
        help="Wait for its end, and leave with its driver's exit code; jobs, local: copy its log, too.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be submitted, and submit nothing.")]
AsSubmitter = Annotated[
    bool,
    typer.Option(
        "--as-submitter",
        help="As the pod that hands a RayJob's entrypoint to its Ray: 0 once that has ended, however.",
    ),
]
SubmissionId = Annotated[
    str | None, typer.Option("--submission-id", metavar="ID", help="As a submitter: the job's id.")
]
ClusterHome = Annotated[
    str | None,
    typer.Option(
        "--cluster-home",
        metavar="DIR",
        help="jobs: where the cluster keeps studies, seen by all its nodes [here: --home].",
    ),
]
WorkingDir = Annotated[
    Path | None,
    typer.Option(
        "--working-dir",
        metavar="DIR",
        help="jobs: send all that is there, hidden files left out [the trainer and what it imports].",
    ),
]
Context = Annotated[
    str | None, typer.Option("--context", metavar="NAME", help="kuberay: kubectl's context [the current].")
]
KubeNamespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="kuberay: where the RayJob is [the context's, else hpsearch]."),
]
Image = Annotated[
    str | None,
    typer.Option(
        "--image", metavar="NAME@DIGEST", envvar="HPSEARCH_IMAGE", help="kuberay: the image of all pods."
    ),
]
WebhookEnv = Annotated[
    str | None,
    typer.Option(
        "--webhook-env",
        metavar="VAR",
        help="Post the end to the address that a variable of the driver holds; jobs: one of the head's.",
    ),
]
EnvFile = Annotated[
    Path | None,
    typer.Option(
        "--env-file",
        metavar="FILE",
        help="slurm: lines NAME=VALUE for the driver, such as HPSEARCH_STORE, readable by you alone.",
    ),
]
JobMaybe = Annotated[str | None, typer.Argument(metavar="[NAME]", help="The job [all of them].")]
JobName = Annotated[str, typer.Argument(metavar="NAME", help="The job, as `submit` has named it.")]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Go on with what it prints, to its end, over dropped streams.")
]
