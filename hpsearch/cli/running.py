"""Commands that run studies, and end them: check, run, resume, stop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hpsearch.cli import options, ticks, watching_jobs
from hpsearch.cli.options import (
    HOME,
    Address,
    AsJson,
    Deadline,
    File,
    Local,
    Name,
    Place,
    StartTimeout,
    Storage,
    StoreUrl,
    Strict,
    TrackingUri,
    find,
    look,
    shown,
    studies_of,
)
from hpsearch.errors import SpecError, UsageError
from hpsearch.redaction import redact
from hpsearch.run.here import registered
from hpsearch.run.signals import heard_signals
from hpsearch.ship.choices import Target
from hpsearch.show import answers, lines
from hpsearch.show.console import Console
from hpsearch.track.uri import default_uri

if TYPE_CHECKING:
    from hpsearch.run.stopping import Stopped
    from hpsearch.study.home import Home
    from hpsearch.sweep import Options, Result

# How long a driver on this machine has for its end (seconds).
HERE = 30.0


def check(file: File, strict: Strict = False, as_json: AsJson = False) -> None:
    """Say what a search-space file means, or every mistake in it."""
    from hpsearch.spec.reading import read

    with options.console(as_json) as console:
        reading = read(file, strict=strict)
        if as_json:
            console.json(answers.check(reading))
        else:
            console.checked(reading)
        if reading.spec is None:
            raise SpecError(f"{file} is not valid: {lines.counted(len(reading.errors), 'error')}")


def run(
    file: File,
    study: Annotated[str | None, typer.Option("--study", help="The study's name [FILE's stem-N].")] = None,
    resume: Annotated[
        Literal["auto", "never", "must"], typer.Option("--resume", help="Where the study exists: go on?")
    ] = "never",
    fork: Annotated[
        str | None,
        typer.Option("--fork", metavar="NAME", help="A new study that knows --study's trials where true."),
    ] = None,
    home: Place = HOME,
    store: StoreUrl = None,
    storage: Storage = None,
    local: Local = False,
    address: Address = None,
    tracking_uri: TrackingUri = None,
    strict: Strict = False,
    deadline: Deadline = None,
    start_timeout: StartTimeout = None,
    tag: ticks.Tags = None,
    schedule: ticks.Schedule = None,
    scheduled_time: ticks.ScheduledTime = None,
    status_file: ticks.StatusPath = None,
    webhook_env: ticks.WebhookEnv = None,
    webhook_file: ticks.WebhookFile = None,
    as_json: AsJson = False,
) -> None:
    """Run the study that a file describes, to its end."""
    # Signals are heard from here on: the imports alone take seconds.
    with heard_signals(), registered(), options.console(as_json, patient=False) as console:
        from hpsearch import sweep

        batch = ticks.batch(file, tag, schedule, scheduled_time, status_file, webhook_env, webhook_file)
        wanted = sweep.Options(
            home,
            study or batch.study,
            resume,
            local,
            address,
            tracking_uri,
            strict,
            store or None,
            fork=fork,
            tags=batch.tags,
            deadline=deadline,
            start_timeout=start_timeout,
            storage=storage or None,
        )
        with ticks.Report(batch, fork or wanted.study, wanted.studies, console) as report:
            try:
                result = sweep.run(file, wanted, report)
            except SpecError as error:
                console.problems(str(file), error.problems)
                raise
            extra, said = report.answer(result)
            _say_end(console, wanted, result, as_json, extra)
            for line in said:
                console.told(line)
            code = sweep.EXIT_CODES[result.ending.outcome]
            report.ended(result, code, extra, said)
        raise typer.Exit(code)


def resume(
    study: Name,
    home: Place = HOME,
    store: StoreUrl = None,
    local: Local = False,
    address: Address = None,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a study where it stopped."""
    with heard_signals(), registered(), options.console(as_json, patient=False) as console:
        from hpsearch import sweep

        wanted = sweep.Options(home, study, "must", local, address, tracking_uri, store=store or None)
        find(studies_of(home, store), study)
        result = sweep.resume(study, wanted, console)
        _say_end(console, wanted, result, as_json)
        raise typer.Exit(sweep.EXIT_CODES[result.ending.outcome])


@options.spread
def stop(
    *,
    study: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="A study, as `hpsearch list` shows it, or a job, as `submit` named it."
        ),
    ] = None,
    here: Annotated[
        bool, typer.Option("--here", help="Stop all that you run on this machine; none is no error.")
    ] = False,
    schedule: Annotated[
        str | None,
        typer.Option("--schedule", metavar="NAME", help="Stop the tick of a schedule; none is no error."),
    ] = None,
    where: watching_jobs.Where,
    store: StoreUrl = None,
    within: Annotated[
        float | None,
        typer.Option(
            "--within", metavar="SECONDS", min=0.0, help="How long to wait for its end [30; elsewhere 300]."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask whoever runs a study on this machine to stop it in order; `resume` goes on from there.

    Or end a job that was submitted elsewhere: a Ray job or Slurm's is stopped, a RayJob deleted with its
    cluster. What a job has committed stays, and the same `submit` goes on with its study.
    """
    if (study is not None) + (schedule is not None) + here != 1:
        raise UsageError(
            "stop takes the name of a study, a --schedule, or --here for all",
            hint="`hpsearch list` names the studies",
        )
    studies, limit = studies_of(where.home, store), HERE if within is None else within
    with options.console(as_json) as console:
        if study is None:
            if where.target not in (None, Target.LOCAL):
                raise UsageError(f"which job of {where.target}?", hint="`hpsearch status` lists them")
            _stop_all(console, schedule, studies, limit, as_json)
        elif (record := where.to_stop(study, studies)) and record.target is not Target.LOCAL:
            limit = watching_jobs.WITHIN if within is None else within
            watching_jobs.tell_stopped(console, watching_jobs.stopped(where, record, limit), as_json)
        else:
            _stop(console, studies, record.study if record else study, limit, as_json)


def _stop(console: Console, studies: Home, study: str, within: float, as_json: bool) -> None:
    from hpsearch.run import stopping

    name = find(studies, study)
    stopped = stopping.stop(studies, name, within)
    if as_json:
        console.json(shown(*look(studies, name)) | {"stopped": _told(stopped)})
    else:
        console.told(f"study {name}: process {stopped.pid} stopped after {stopped.seconds:.1f} s")


def _stop_all(console: Console, schedule: str | None, studies: Home, within: float, as_json: bool) -> None:
    """Stop the ticks of a schedule, or all that run here; that there is none is what was wanted."""
    from hpsearch.run import here, stopping
    from hpsearch.ship.earlier import running

    if schedule is None:
        stopped = here.stop(within)
    else:
        stopped = [stopping.stop(studies, name, within) for name in running(studies, schedule)]
    if as_json:
        console.json({"stopped": [_told(each) for each in stopped]})
    for each in stopped:
        console.told(f"process {each.pid} stopped after {each.seconds:.1f} s")
    if not stopped:
        console.told("no study runs here")


def _told(stopped: Stopped) -> answers.Json:
    return {"pid": stopped.pid, "host": stopped.host, "seconds": round(stopped.seconds, 3)}


def _say_end(
    console: Console,
    wanted: Options,
    result: Result,
    as_json: bool,
    more: answers.Json | None = None,
) -> None:
    """Say how a run ended; `more` stands beside the object of `show`."""
    history = result.history
    uri = wanted.tracking_uri or history.tracking_uri
    if as_json:
        extra = {
            "undelivered": result.undelivered,
            "set_aside": result.set_aside,
            "problem": result.problem and redact(result.problem),
        }
        console.json(shown(history, False) | extra | (more or {}))
    else:
        commands = lines.commands(
            history.study.name,
            home=None if wanted.home == Path(os.environ.get("HPSEARCH_HOME") or HOME) else str(wanted.home),
            store=None if wanted.store == (os.environ.get("HPSEARCH_STORE") or None) else wanted.store,
            embedded=uri == default_uri(wanted.home),
            local=wanted.local,
            address=wanted.address,
            program=os.environ.get("HPSEARCH_PROGRAM", "hpsearch"),
        )
        problem, aside = result.problem, result.set_aside
        console.summary(
            lines.Summary(history, result.ending, result.undelivered, problem, redact(uri), commands, aside)
        )
