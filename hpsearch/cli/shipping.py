"""The words of commands that ship a sweep to a cluster: what is asked for beside its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpsearch.cli import options
from hpsearch.errors import SpecError
from hpsearch.ship.choices import Profile, Submitter

if TYPE_CHECKING:
    from hpsearch.ship.making import Wishes
    from hpsearch.spec.model import Spec

Image = Annotated[
    str,
    typer.Option("--image", metavar="NAME@DIGEST", envvar="HPSEARCH_IMAGE", help="The image of all pods."),
]
JobName = Annotated[str | None, typer.Option("--name", help="The RayJob's name [the file's stem].")]
SweepName = Annotated[
    str | None,
    typer.Option("--sweep", metavar="NAME", help="The sweep's name, for its runs' tags [the file's stem]."),
]
StudyName = Annotated[
    str | None, typer.Option("--study", help="The study's name, the same for each attempt [the job's].")
]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Where the objects are made.")]
AfterTheEnd = Annotated[
    Profile,
    typer.Option("--profile", help="The cluster goes with the job, or a failed one stays half an hour."),
]
Kueue = Annotated[
    str | None, typer.Option("--kueue", metavar="QUEUE", help="The Kueue queue that admits the job.")
]
KueuePriority = Annotated[
    str | None, typer.Option("--kueue-priority", metavar="CLASS", help="Its Kueue priority class.")
]
Submits = Annotated[
    Submitter,
    typer.Option("--submitter", help="A pod hands the job to Ray, or the operator does: then without logs."),
]
Groups = Annotated[
    list[str] | None,
    typer.Option(
        "--group",
        metavar="NAME:KEY=VALUE,...",
        help="Workers of a kind, such as spot:cpus=4,memory=8Gi,gpus=1,min=0,max=4,spot; also storage=, "
        "priority=, node.LABEL=, taint.KEY=; may be repeated [made to measure for the file].",
    ),
]
HeadCpus = Annotated[float, typer.Option("--head-cpus", help="CPUs of the head, where the driver runs.")]
HeadMemory = Annotated[str, typer.Option("--head-memory", help="Memory of the head; less than 8Gi is risky.")]
Volume = Annotated[str, typer.Option("--claim", help="The claim that keeps the studies; all pods mount it.")]
StoreSecret = Annotated[
    str | None,
    typer.Option(
        "--store-secret",
        metavar="NAME[:KEY]",
        help="The Secret that has the store's PostgreSQL address, under url [a SQLite file on the claim].",
    ),
]
WebhookSecret = Annotated[
    str | None,
    typer.Option(
        "--webhook-secret", metavar="NAME[:KEY]", help="The Secret that has the webhook's address, under url."
    ),
]
MlflowSecret = Annotated[
    str | None,
    typer.Option("--mlflow-secret", metavar="NAME", help="The Secret with MLflow's username and password."),
]
StorageSecret = Annotated[
    str | None,
    typer.Option(
        "--storage-secret",
        metavar="NAME",
        help="The Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3:// [the pods' identity].",
    ),
]
MlflowUri = Annotated[
    str | None,
    typer.Option("--tracking-uri", help="Where MLflow is [the file's, else http://mlflow:5000]."),
]
JobDeadline = Annotated[
    float | None,
    typer.Option(
        "--deadline",
        metavar="TIME",
        parser=options.duration,
        help="After which the driver ends in order, such as 8h [the file's studyTimeout, else 24h].",
    ),
]
Retries = Annotated[int, typer.Option("--retries", min=0, max=100, help="New clusters after a failure.")]


@dataclass(frozen=True, slots=True)
class Platform:
    """The options of how a sweep runs on Kubernetes, for `options.spread`."""

    profile: AfterTheEnd = Profile.SHUTDOWN
    submitter: Submits = Submitter.JOB
    kueue: Kueue = None
    kueue_priority: KueuePriority = None
    group: Groups = None
    head_cpus: HeadCpus = 2.0
    head_memory: HeadMemory = "8Gi"
    claim: Volume = "hpsearch-studies"
    store_secret: StoreSecret = None
    mlflow_secret: MlflowSecret = None
    storage: options.Storage = None
    storage_secret: StorageSecret = None
    retries: Retries = 2

    def wishes(self, image: str | None, **more: Any) -> Wishes:
        """What is asked for, with what only one command asks."""
        from hpsearch.ship.making import Wishes

        return Wishes(
            image=image or "",
            profile=self.profile,
            submitter=self.submitter,
            queue=self.kueue,
            queue_priority=self.kueue_priority,
            groups=tuple(self.group or ()),
            head_cpus=self.head_cpus,
            head_memory=self.head_memory,
            claim=self.claim,
            store_secret=self.store_secret,
            mlflow_secret=self.mlflow_secret,
            storage=self.storage or None,
            storage_secret=self.storage_secret,
            retries=self.retries,
            **more,
        )


def valid(file: Path) -> Spec:
    """The Spec of a sweep's file; its problems go to stderr. Raises SpecError, UsageError."""
    from hpsearch.spec.reading import read

    reading = read(file)
    if reading.spec is None:
        with options.console(False) as told:
            told.problems(str(file), reading.errors)
        count = len(reading.errors)
        raise SpecError(f"{file} is not valid: {count} error{'s' * (count != 1)}")
    return reading.spec
