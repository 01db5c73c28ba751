"""The words that commands share: arguments and options, and how a study is found by its name."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from hpsearch.errors import Interrupted, UsageError
from hpsearch.redaction import redact
from hpsearch.show import answers
from hpsearch.show.console import Console

if TYPE_CHECKING:
    from hpsearch.study.history import History
    from hpsearch.study.home import Home

HOME = Path("studies")


def duration(text: str) -> float:
    """Seconds from 90s, 30m, 8h or 1d. Raises UsageError."""
    from hpsearch.spec.quantities import seconds

    found = seconds(text)
    if not found or found == float("inf"):
        raise UsageError(f"{text!r} is no length of time", hint="write it like 90s, 30m, 8h or 1d")
    return found


File = Annotated[Path, typer.Argument(metavar="FILE", help="The search-space file.")]
Name = Annotated[str, typer.Argument(metavar="STUDY", help="The study's name, as `hpsearch list` shows it.")]
Place = Annotated[Path, typer.Option("--home", envvar="HPSEARCH_HOME", help="The directory of the studies.")]
# Other users of the machine see what is typed, so a password belongs in the variable.
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        envvar="HPSEARCH_STORE",
        help="The PostgreSQL database that has the stores [each study's own SQLite file].",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="PATH|URL",
        envvar="HPSEARCH_STORAGE",
        help="Where new studies' trials keep checkpoints and outputs, such as s3://bucket/sweeps [the home].",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and only that.")]
Local = Annotated[
    bool,
    typer.Option("--local", help="Run trials one at a time without Ray, modules in this process."),
]
Address = Annotated[str | None, typer.Option("--address", help="The Ray cluster to join.")]
Strict = Annotated[bool, typer.Option("--strict", help="Take every warning about the file for an error.")]
Deadline = Annotated[
    float | None,
    typer.Option(
        "--deadline",
        metavar="TIME",
        parser=duration,
        help="After which it ends in order with exit code 4, such as 8h [the file's studyTimeout].",
    ),
]
StartTimeout = Annotated[
    float | None,
    typer.Option(
        "--start-timeout",
        metavar="TIME",
        parser=duration,
        help="The same, if no trial has a place on the cluster until then [it waits where nodes may come].",
    ),
]
TrackingUri = Annotated[str | None, typer.Option("--tracking-uri", help="Where MLflow is.")]


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the fields of each dataclass among its parameters as options, in the parameter's place.

    Several commands share such options; each field is annotated as a parameter of a command is, and has a
    default. The command itself gets the dataclass.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if inspect.isclass(hint) and is_dataclass(hint)}
    shown: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if group := groups.get(parameter.name):
            kinds = get_type_hints(group, include_extras=True)
            shown += [_option(each.name, each.default, kinds[each.name]) for each in fields(group)]
        else:
            shown.append(_option(parameter.name, parameter.default, hints[parameter.name]))

    @wraps(command)
    def called(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{each.name: given.pop(each.name) for each in fields(group)})
        command(**given)

    called.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in shown}
    return called


def _option(name: str, default: object, annotation: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def write_out(text: str, what: str) -> None:
    """Print a text as it is: a pipe takes it to the byte. Raises Interrupted, naming `what` it was."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        raise Interrupted(f"{what} could not be written: {error.strerror or error}") from error


def console(as_json: bool, *, patient: bool = True) -> Console:
    """The console of a command; with `as_json` it prints one object and nothing else."""
    return Console(quiet=as_json, redact=redact, patient=patient)


def studies_of(home: Path, store: str | None) -> Home:
    """The studies of a home, and where their stores are."""
    from hpsearch.study.home import Home

    return Home(home, store or None)


def find(studies: Home, name: str) -> str:
    """The name of a study that is there. Raises UsageError that names the studies there are."""
    names = studies.names()
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, 1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    there = ", ".join(names[:20]) + ", ..." * (len(names) > 20)
    hint += f"there are: {there}" if names else studies.elsewhere
    raise UsageError(f"no study {name!r} in {studies.among}", hint=hint)


def look(studies: Home, name: str) -> tuple[History, bool]:
    """What the store of a study knows, and whether a driver owns it now."""
    owned = studies.is_owned(name)
    return studies.history(name), owned


def shown(history: History, owned: bool) -> answers.Json:
    """A study as `show --json` prints it."""
    return answers.show(history, owned=owned, tracking_uri=redact(history.tracking_uri))
