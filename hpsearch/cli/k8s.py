"""Commands about Kubernetes manifests: k8s render; k8s validate has a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli import options, shipping
from hpsearch.cli.options import File
from hpsearch.errors import UsageError

if TYPE_CHECKING:
    from hpsearch.ship.pods import Object

app = typer.Typer(name="k8s", help="Write and check Kubernetes manifests.", no_args_is_help=True)

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Write a file for each object there [stdout]."),
]


@app.command()
@options.spread
def render(
    *,
    file: File,
    image: shipping.Image,
    name: shipping.JobName = None,
    study: shipping.StudyName = None,
    namespace: shipping.Namespace = "hpsearch",
    platform: shipping.Platform,
    webhook_secret: shipping.WebhookSecret = None,
    tracking_uri: shipping.MlflowUri = None,
    deadline: shipping.JobDeadline = None,
    output: Output = None,
) -> None:
    """Write the RayJob of a sweep, its file and its disruption budget as YAML; nothing is applied."""
    from hpsearch.ship import making, render

    wishes = platform.wishes(
        image,
        name=name,
        study=study,
        namespace=namespace,
        webhook_secret=webhook_secret,
        tracking_uri=tracking_uri,
        deadline=deadline,
    )
    objects = render.render(making.job(shipping.valid(file), wishes))
    if output is None:
        options.write_out(render.dump(objects), "the manifests")
    else:
        _write(output, objects)


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
