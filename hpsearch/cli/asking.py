"""Commands that answer questions: list, show, trials, best, schema, ui."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hpsearch.cli import options
from hpsearch.cli.options import HOME, AsJson, Name, Place, StoreUrl, find, look, shown, studies_of
from hpsearch.errors import NoSuccess, StoreDamaged, UsageError
from hpsearch.redaction import redact
from hpsearch.show import answers, lines, resources
from hpsearch.track.uri import default_uri

if TYPE_CHECKING:
    from hpsearch.study.history import History


def list_studies(home: Place = HOME, store: StoreUrl = None, as_json: AsJson = False) -> None:
    """List the studies of a home directory."""
    studies = studies_of(home, store)
    with options.console(as_json) as console:
        found: list[tuple[str, History | None, bool]] = []
        for name in studies.names():
            try:
                found.append((name, *look(studies, name)))
            except (StoreDamaged, UsageError) as error:
                # One study that is damaged, or of another version, must not hide the others.
                console.error(error)
                found.append((name, None, False))
        if as_json:
            given = [(name, shown(history, owned) if history else None) for name, history, owned in found]
            console.json(answers.studies(home, given))
        else:
            console.studies(found, studies.among)


def _seen(home: Path, store: str | None, name: str) -> tuple[History, bool]:
    studies = studies_of(home, store)
    return look(studies, find(studies, name))


def show(
    study: Name,
    home: Place = HOME,
    store: StoreUrl = None,
    resource: Annotated[
        Literal["cloudml", "vertex"] | None,
        typer.Option("--format", help="Print the services' resource instead: a Job, or a tuning job."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a study: its state, counts, best trial and places."""
    with options.console(as_json or resource is not None) as console:
        history, owned = _seen(home, store, study)
        if resource is not None:
            printed = resources.cloudml if resource == "cloudml" else resources.vertex
            console.json(printed(history, owned))
        elif as_json:
            console.json(shown(history, owned))
        else:
            console.shown(history, owned=owned, tracking_uri=redact(history.tracking_uri))


def trials(study: Name, home: Place = HOME, store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Show every trial with its state and reason."""
    with options.console(as_json) as console:
        history, owned = _seen(home, store, study)
        if as_json:
            console.json(answers.trials(history))
        else:
            console.trials(history, owned=owned)


def best(study: Name, home: Place = HOME, store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Show the best completed trial (none yet: exit code 3)."""
    with options.console(as_json) as console:
        history, _ = _seen(home, store, study)
        answer = answers.best(history)
        if as_json:
            console.json(answer)
        else:
            console.best(history)
        if answer["trial"] is None:
            raise NoSuccess(lines.nobody(history), hint=f"see `hpsearch trials {study}`")


def schema(
    dialect: Annotated[
        Literal["cloud_ml_engine", "vertex_ai", "hpsearch"] | None,
        typer.Argument(metavar="[DIALECT]", help="cloud_ml_engine, vertex_ai or hpsearch [any of them]."),
    ] = None,
) -> None:
    """Print the JSON schema of search-space files, for editors."""
    from hpsearch.spec.schema import schema as made

    with options.console(True) as console:
        console.json(made(dialect))


def ui(
    home: Place = HOME,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="The port on this machine.")] = 5000,
) -> None:
    """Serve MLflow's pages on the studies, to this machine only."""
    if not (home / "mlflow.db").is_file():
        raise UsageError(f"no MLflow database in {home}", hint="run a study first, or name its --home")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", default_uri(home)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    hosts = [f"{host}:{port}" for host in ("127.0.0.1", "localhost")]
    settings = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Nobody runs jobs from these pages, and their executors are eight processes.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(hosts),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{host}" for host in hosts),
    }
    os.execve(sys.executable, command, settings | os.environ)
