"""Commands about Kubernetes manifests: k8s render; k8s validate has a file of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli import shipping
from hpsearch.cli.options import File
from hpsearch.errors import Interrupted, UsageError
from hpsearch.ship.choices import Profile, Submitter

if TYPE_CHECKING:
    from hpsearch.ship.pods import Object

app = typer.Typer(name="k8s", help="Write and check Kubernetes manifests.", no_args_is_help=True)

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Write a file for each object there [stdout]."),
]


@app.command()
def render(
    file: File,
    image: shipping.Image,
    name: shipping.JobName = None,
    study: shipping.StudyName = None,
    namespace: shipping.Namespace = "hpsearch",
    profile: shipping.AfterTheEnd = Profile.SHUTDOWN,
    submitter: shipping.Submits = Submitter.JOB,
    kueue: shipping.Kueue = None,
    kueue_priority: shipping.KueuePriority = None,
    group: shipping.Groups = None,
    head_cpus: shipping.HeadCpus = 2.0,
    head_memory: shipping.HeadMemory = "8Gi",
    claim: shipping.Volume = "hpsearch-studies",
    store_secret: shipping.StoreSecret = None,
    webhook_secret: shipping.WebhookSecret = None,
    mlflow_secret: shipping.MlflowSecret = None,
    tracking_uri: shipping.MlflowUri = None,
    deadline: shipping.JobDeadline = None,
    retries: shipping.Retries = 2,
    output: Output = None,
) -> None:
    """Write the RayJob of a sweep, its file and its disruption budget as YAML; nothing is applied."""
    from hpsearch.ship import making, render

    wishes = making.Wishes(
        image=image,
        name=name,
        study=study,
        namespace=namespace,
        profile=profile,
        submitter=submitter,
        queue=kueue,
        queue_priority=kueue_priority,
        groups=tuple(group or ()),
        head_cpus=head_cpus,
        head_memory=head_memory,
        claim=claim,
        store_secret=store_secret,
        webhook_secret=webhook_secret,
        mlflow_secret=mlflow_secret,
        tracking_uri=tracking_uri,
        deadline=deadline,
        retries=retries,
    )
    objects = render.render(making.job(shipping.valid(file), wishes))
    if output is None:
        _print(render.dump(objects))
    else:
        _write(output, objects)


def _print(text: str) -> None:
    """The text as it is: a pipe takes YAML, to the byte."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        raise Interrupted(f"the manifests could not be written: {error.strerror or error}") from error


def _write(directory: Path, objects: list[Object]) -> None:
    """A file for each object by its kind, and a kustomization that names them."""
    from hpsearch.ship import render

    files = {f"{each['kind'].lower()}.yaml": render.dump([each]) for each in objects}
    files["kustomization.yaml"] = render.kustomization(list(files))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (directory / name).write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(
            f"cannot write {error.filename or directory}: {error.strerror or error}",
            hint="name another directory with --output",
        ) from error
