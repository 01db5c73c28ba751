"""The typer door: each command wires the rooms together; heavy libraries load only where needed."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from typing import Annotated, NoReturn

import typer

from hpsearch import faults
from hpsearch.cli import (
    asking,
    k8s,
    k8s_validate,
    launching,
    running,
    scheduling,
    store,
    submitting,
    upkeep,
    watching_jobs,
)
from hpsearch.errors import HpsearchError, Interrupted
from hpsearch.redaction import redact
from hpsearch.run.contract import UMASK
from hpsearch.show.console import Console

EXIT_BUG = 1

app = typer.Typer(
    name="hpsearch",
    help="Distributed hyperparameter search: a YAML becomes a pruned, tracked sweep of PyTorch trials.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hpsearch {version('hpsearch')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Distributed hyperparameter search: a YAML becomes a pruned, tracked sweep of PyTorch trials."""


app.command()(running.check)
app.command()(running.run)
app.command()(running.resume)
app.command()(running.stop)
app.command(name="list")(asking.list_studies)
app.command()(asking.show)
app.command()(asking.trials)
app.command()(asking.best)
app.command()(asking.schema)
app.command()(asking.ui)
app.command()(upkeep.sync)
app.command()(upkeep.reconcile)
app.command()(submitting.submit)
app.command()(watching_jobs.status)
app.command()(watching_jobs.logs)
app.command()(launching.launch)
app.command()(scheduling.schedule)
app.add_typer(store.app)
k8s.app.command()(k8s_validate.validate)
app.add_typer(k8s.app)


def main() -> None:
    """Run a command; every error ends in one line and the exit code of its kind, never in a traceback."""
    # Also for what libraries write: Ray's token, MLflow's artifacts. Programs write as the user wants it.
    os.environ[UMASK] = f"{os.umask(0o077):03o}"
    _open_standard_streams()
    try:
        faults.arm(os.environ)
        app(prog_name="hpsearch")
    except HpsearchError as error:
        _told(error)
    except MemoryError:
        _told(Interrupted("out of memory", hint="nothing committed is lost: free some, then resume"))
    except Exception as error:
        trace = "".join(traceback.format_exception(error))
        with Console(redact=redact, patient=False) as console:
            console.bug(error, trace, _saved(trace))
        sys.exit(EXIT_BUG)


def _told(error: HpsearchError) -> NoReturn:
    with Console(redact=redact, patient=False) as console:
        console.error(error)
    sys.exit(error.exit_code)


def _open_standard_streams() -> None:
    """Give what the shell closed to nobody: else the next file to be opened would get what is printed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number


def _saved(trace: str) -> str | None:
    """The file in which a traceback was saved, readable by its owner only; None if that cannot be."""
    try:
        descriptor, name = tempfile.mkstemp(prefix="hpsearch-bug-", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(redact(trace))
    except OSError:
        return None
    return name
