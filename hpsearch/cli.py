"""The typer door: each command wires the rooms together; heavy libraries load only where needed."""

from __future__ import annotations

import difflib
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hpsearch import faults
from hpsearch.errors import HpsearchError, NoSuccess, SpecError, StoreDamaged, UsageError
from hpsearch.redaction import redact
from hpsearch.run.contract import UMASK
from hpsearch.show import answers, lines, resources
from hpsearch.show.console import Console
from hpsearch.track.uri import default_uri

if TYPE_CHECKING:
    from hpsearch.study.history import History
    from hpsearch.sweep import Options, Result

HOME = Path("studies")
EXIT_BUG = 1

app = typer.Typer(
    name="hpsearch",
    help="Distributed hyperparameter search: a YAML becomes a pruned, tracked sweep of PyTorch trials.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The search-space file.")]
Name = Annotated[str, typer.Argument(metavar="STUDY", help="The study's name, as `hpsearch list` shows it.")]
Home = Annotated[Path, typer.Option("--home", envvar="HPSEARCH_HOME", help="The directory of the studies.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and only that.")]
Local = Annotated[
    bool,
    typer.Option("--local", help="Run trials one at a time without Ray, modules in this process."),
]
Address = Annotated[str | None, typer.Option("--address", help="The Ray cluster to join.")]
Strict = Annotated[bool, typer.Option("--strict", help="Take every warning about the file for an error.")]
TrackingUri = Annotated[str | None, typer.Option("--tracking-uri", help="Where MLflow is.")]


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


@app.command()
def check(file: File, strict: Strict = False, as_json: AsJson = False) -> None:
    """Say what a search-space file means, or every mistake in it."""
    from hpsearch.spec.reading import read

    with _console(as_json) as console:
        reading = read(file, strict=strict)
        if as_json:
            console.json(answers.check(reading))
        else:
            console.checked(reading)
        if reading.spec is None:
            raise SpecError(f"{file} is not valid: {lines.counted(len(reading.errors), 'error')}")


@app.command()
def run(
    file: File,
    study: Annotated[str | None, typer.Option("--study", help="The study's name [FILE's stem-N].")] = None,
    resume: Annotated[
        Literal["auto", "never", "must"], typer.Option("--resume", help="Where the study exists: go on?")
    ] = "never",
    home: Home = HOME,
    local: Local = False,
    address: Address = None,
    tracking_uri: TrackingUri = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Run the study that a file describes, to its end."""
    from hpsearch import sweep

    options = sweep.Options(home, study, resume, local, address, tracking_uri, strict)
    with _console(as_json) as console:
        try:
            result = sweep.run(file, options, console)
        except SpecError as error:
            console.problems(str(file), error.problems)
            raise
        _end(console, options, result, as_json)


@app.command()
def resume(
    study: Name,
    home: Home = HOME,
    local: Local = False,
    address: Address = None,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a study where it stopped."""
    from hpsearch import sweep

    options = sweep.Options(home, study, "must", local, address, tracking_uri)
    with _console(as_json) as console:
        _find(home, study)
        _end(console, options, sweep.resume(study, options, console), as_json)


@app.command(name="list")
def list_studies(home: Home = HOME, as_json: AsJson = False) -> None:
    """List the studies of a home directory."""
    with _console(as_json) as console:
        found: list[tuple[str, History | None, bool]] = []
        for name in _names(home):
            try:
                found.append((name, *_read(home / name)))
            except (StoreDamaged, UsageError) as error:
                # One study that is damaged, or of another version, must not hide the others.
                console.error(error)
                found.append((name, None, False))
        if as_json:
            shown = [(name, _shown(history, owned) if history else None) for name, history, owned in found]
            console.json(answers.studies(home, shown))
        else:
            console.studies(found, str(home))


@app.command()
def show(
    study: Name,
    home: Home = HOME,
    resource: Annotated[
        Literal["cloudml", "vertex"] | None,
        typer.Option("--format", help="Print the services' resource instead: a Job, or a tuning job."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a study: its state, counts, best trial and places."""
    with _console(as_json or resource is not None) as console:
        history, owned = _read(_find(home, study))
        if resource is not None:
            printed = resources.cloudml if resource == "cloudml" else resources.vertex
            console.json(printed(history, owned))
        elif as_json:
            console.json(_shown(history, owned))
        else:
            console.shown(history, owned=owned, tracking_uri=redact(history.tracking_uri))


@app.command()
def trials(study: Name, home: Home = HOME, as_json: AsJson = False) -> None:
    """Show every trial with its state and reason."""
    with _console(as_json) as console:
        history, owned = _read(_find(home, study))
        if as_json:
            console.json(answers.trials(history))
        else:
            console.trials(history, owned=owned)


@app.command()
def best(study: Name, home: Home = HOME, as_json: AsJson = False) -> None:
    """Show the best completed trial (none yet: exit code 3)."""
    with _console(as_json) as console:
        history, _ = _read(_find(home, study))
        answer = answers.best(history)
        if as_json:
            console.json(answer)
        else:
            console.best(history)
        if answer["trial"] is None:
            raise NoSuccess(lines.nobody(history), hint=f"see `hpsearch trials {study}`")


@app.command()
def schema(
    dialect: Annotated[
        Literal["cloud_ml_engine", "vertex_ai", "hpsearch"] | None,
        typer.Argument(metavar="[DIALECT]", help="cloud_ml_engine, vertex_ai or hpsearch [any of them]."),
    ] = None,
) -> None:
    """Print the JSON schema of search-space files, for editors."""
    from hpsearch.spec.schema import schema as made

    with _console(True) as console:
        console.json(made(dialect))


@app.command()
def ui(
    home: Home = HOME,
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


def main() -> None:
    """Run a command; every error ends in one line and the exit code of its kind, never in a traceback."""
    # Also for what libraries write: Ray's token, MLflow's artifacts. Programs write as the user wants it.
    os.environ[UMASK] = f"{os.umask(0o077):03o}"
    try:
        faults.arm(os.environ)
        app(prog_name="hpsearch")
    except HpsearchError as error:
        Console(redact=redact).error(error)
        sys.exit(error.exit_code)
    except Exception as error:
        trace = "".join(traceback.format_exception(error))
        Console(redact=redact).bug(error, trace, _saved(trace))
        sys.exit(EXIT_BUG)


def _console(as_json: bool) -> Console:
    return Console(quiet=as_json, redact=redact)


def _end(console: Console, options: Options, result: Result, as_json: bool) -> None:
    """Say how a run ended, and leave with the exit code that means it."""
    from hpsearch.sweep import EXIT_CODES

    history = result.history
    uri = options.tracking_uri or history.tracking_uri
    if as_json:
        extra = {"undelivered": result.undelivered, "problem": result.problem and redact(result.problem)}
        console.json(_shown(history, False) | extra)
    else:
        commands = lines.commands(
            history.study.name,
            home=None if options.home == Path(os.environ.get("HPSEARCH_HOME") or HOME) else str(options.home),
            embedded=uri == default_uri(options.home),
            local=options.local,
            address=options.address,
            program=os.environ.get("HPSEARCH_PROGRAM", "hpsearch"),
        )
        console.summary(
            lines.Summary(history, result.ending, result.undelivered, result.problem, redact(uri), commands)
        )
    raise typer.Exit(EXIT_CODES[result.ending.outcome])


def _names(home: Path) -> list[str]:
    """The studies in a home directory, in order of their names."""
    return sorted(path.name for path in home.glob("*") if _is_study(path))


def _is_study(directory: Path) -> bool:
    from hpsearch.study.history import holds_study

    try:
        return holds_study(directory)
    except StoreDamaged:
        return True


def _find(home: Path, name: str) -> Path:
    """The directory of a study. Raises UsageError that names the studies there are."""
    names = _names(home)
    if name in names:
        return home / name
    near = difflib.get_close_matches(name, names, 1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    there = ", ".join(names[:20]) + ", ..." * (len(names) > 20)
    hint += f"there are: {there}" if names else "there are none; name the directory with --home"
    raise UsageError(f"no study {name!r} in {home}", hint=hint)


def _read(directory: Path) -> tuple[History, bool]:
    """What the store of a study knows, and whether a driver owns it now."""
    from hpsearch.study.history import StoreReader
    from hpsearch.study.store import is_owned

    owned = is_owned(directory)
    reader = StoreReader(directory)
    try:
        return reader.history(), owned
    finally:
        reader.close()


def _shown(history: History, owned: bool) -> answers.Json:
    return answers.show(history, owned=owned, tracking_uri=redact(history.tracking_uri))


def _saved(trace: str) -> str | None:
    """The file in which a traceback was saved, readable by its owner only; None if that cannot be."""
    try:
        descriptor, name = tempfile.mkstemp(prefix="hpsearch-bug-", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(redact(trace))
    except OSError:
        return None
    return name
