"""The command of a launcher's pod: launch.

Its answer, in the termination message too, is {"outcome", "exit_code", "reason", "message", "hint", "job",
"namespace", "rayjob", "study", "schedule", "scheduled_time", "image"}; what is not known is null.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpsearch.cli import options, shipping
from hpsearch.cli.interrupting import Stop
from hpsearch.cli.options import File
from hpsearch.errors import HpsearchError
from hpsearch.redaction import redact
from hpsearch.run.signals import heard_signals
from hpsearch.ship.choices import Overlap

if TYPE_CHECKING:
    from hpsearch.ship.kuberay import Outcome
    from hpsearch.ship.launch import Launcher, Wanted
    from hpsearch.ship.making import Wishes
    from hpsearch.show.console import Console

# What errors are called in the outcome, by their exit codes.
WORDS = {2: "refused", 69: "unreachable", 73: "busy", 75: "interrupted"}

OwnName = Annotated[
    str,
    typer.Option("--job-name", metavar="JOB", help="The Kubernetes Job whose pod this is (downward API)."),
]
Wait = Annotated[
    bool, typer.Option("--wait", help="Follow the RayJob, and leave with its sweep's exit code.")
]
WhatOfOthers = Annotated[
    Overlap,
    typer.Option(
        "--overlap", help="While an earlier RayJob of the schedule runs: skip, wait, or replace it."
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="TIME",
        parser=options.duration,
        help="From the Job's creation until nobody waits any more, such as 8h: exit code 4.",
    ),
]
Account = Annotated[
    Path,
    typer.Option(
        "--service-account",
        metavar="DIR",
        envvar="HPSEARCH_SERVICE_ACCOUNT",
        help="Where the pod's token, CA and namespace are mounted.",
    ),
]
LastWord = Annotated[
    Path,
    typer.Option(
        "--termination-log",
        metavar="FILE",
        envvar="HPSEARCH_TERMINATION_LOG",
        help="Gets the outcome, if it exists.",
    ),
]


@options.spread
def launch(
    *,
    file: File,
    job_name: OwnName,
    wait: Wait = False,
    overlap: WhatOfOthers = Overlap.SKIP,
    timeout: Timeout = None,
    sweep: shipping.SweepName = None,
    study: shipping.StudyName = None,
    platform: shipping.Platform,
    webhook_secret: shipping.WebhookSecret = None,
    tracking_uri: shipping.MlflowUri = None,
    deadline: shipping.JobDeadline = None,
    service_account: Account = Path("/var/run/secrets/kubernetes.io/serviceaccount"),
    termination_log: LastWord = Path("/dev/termination-log"),
) -> None:
    """Create the RayJob of a sweep from inside of a cluster, or find it created, and follow it to its end.

    For pods of a Job or CronJob: image, schedule and tick come from the pod's own Job, and the RayJob is
    named JOB-r. Started again, it goes on where it was. The outcome is one JSON object on stdout and in the
    termination message.

    Exit codes: 0 succeeded or skipped; 2 refused or invalid; 3 failed, stopped or deleted; 4 a deadline or
    --timeout; 69 the API server is silent; 73 an overlap outside of a schedule; 75 interrupted, which leaves
    the RayJob running, or no room in the quota for an hour; a failed driver's own code where that is one of
    these.
    """
    # Signals are heard from here on: the imports alone take a second.
    stop = Stop("a RayJob that was created goes on", "the Job's next pod goes on with it")
    with heard_signals(stop), options.console(True, patient=False) as console:
        from hpsearch.ship.launch import Wanted

        wishes = platform.wishes(
            None,
            study=study,
            webhook_secret=webhook_secret,
            tracking_uri=tracking_uri,
            deadline=deadline,
            git_sha=_revision(),
            sweep=sweep,
        )
        told = _Told(console, termination_log, job_name)
        try:
            with stop.armed():
                outcome = _launched(file, wishes, Wanted(wait, overlap, timeout), service_account, told)
        except HpsearchError as error:
            told.tell(_failed(error))
            raise
        told.tell(_ended(outcome))
    raise typer.Exit(outcome.code)


def _launched(file: Path, wishes: Wishes, wanted: Wanted, account: Path, told: _Told) -> Outcome:
    """Launch, and follow to the end if that is wanted."""
    from hpsearch.ship.access import Access
    from hpsearch.ship.api import Client
    from hpsearch.ship.launch import Launcher, job_of

    spec = shipping.valid(file)
    client = Client(Access.in_pod(os.environ, account))
    told.launcher = Launcher(client, lambda own: job_of(spec, wishes, own), wanted, told.console.note)
    return told.launcher.launch(told.job_name)


@dataclass(slots=True)
class _Told:
    """Tells the outcome, and what it was about as far as that was known."""

    console: Console
    log: Path
    job_name: str
    launcher: Launcher | None = None

    def tell(self, first: dict[str, Any]) -> None:
        """One JSON object, on stdout and in the termination message."""
        from hpsearch.ship import termination

        answer = first | _where(self.launcher, self.job_name)
        termination.leave(self.log, answer)
        self.console.json(answer)


def _revision() -> str | None:
    """The commit that the image was built from, if it says so."""
    said = os.environ.get("HPSEARCH_GIT_SHA", "")
    return said if re.fullmatch(r"[0-9a-f]{7,64}", said) else None


def _ended(outcome: Outcome) -> dict[str, Any]:
    """The first fields of the answer."""
    return {
        "outcome": outcome.word,
        "exit_code": outcome.code,
        "reason": outcome.reason,
        "message": outcome.message,
        "hint": "",
    }


def _failed(error: HpsearchError) -> dict[str, Any]:
    return {
        "outcome": WORDS.get(error.exit_code, "error"),
        "exit_code": error.exit_code,
        "reason": type(error).__name__,
        "message": redact(error.message),
        "hint": redact(error.hint),
    }


def _where(launcher: Launcher | None, job_name: str) -> dict[str, Any]:
    """What it was about, as far as that was known."""
    own, job = (launcher.own, launcher.job) if launcher else (None, None)
    schedule = job.schedule if job else None
    return {
        "job": job_name,
        "namespace": own.namespace if own else None,
        "rayjob": job.name if job else None,
        "study": job.study if job else None,
        "schedule": schedule.name if schedule else None,
        "scheduled_time": schedule.scheduled_time if schedule else None,
        "image": own.image if own else None,
    }
