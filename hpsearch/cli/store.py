"""Commands that look after a study's store: store check, store repair, store backup."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli import options
from hpsearch.cli.options import HOME, AsJson, Name, Place, StoreUrl, find, studies_of
from hpsearch.errors import StoreDamaged, UsageError
from hpsearch.redaction import redact
from hpsearch.show import answers, lines

if TYPE_CHECKING:
    from hpsearch.study.health import Health
    from hpsearch.study.repair import Repair

Target = Annotated[Path, typer.Argument(metavar="TARGET", help="The file to write; it must not exist.")]
# Of so many problems a person is told; --json has all.
SHOWN = 20

app = typer.Typer(name="store", help="Check, repair or back up a study's store.", no_args_is_help=True)


@app.command()
def check(study: Name, home: Place = HOME, store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Read everything in a study's store and tell every problem (exit code 74 if there is one)."""
    from hpsearch.study.health import examine

    with options.console(as_json) as console:
        directory = _directory(study, home, store)
        health = examine(directory)
        if as_json:
            console.json(_health(study, health))
        else:
            for problem in health.problems[:SHOWN]:
                console.told(f"{problem.kind}: {problem.message}")
            if health.whole:
                console.told(
                    f"{study}: whole, {lines.counted(health.rows, 'row')} proven up to lsn {health.lsn}"
                )
            if health.tail:
                console.told(
                    f"the log ends in {health.tail} bytes that were never committed: they do not count"
                )
        if not health.whole:
            raise StoreDamaged(
                f"the store of {study} has {lines.counted(len(health.problems), 'problem')}",
                hint="`hpsearch store repair` keeps what is proven; or restore a backup",
            )


@app.command()
def repair(study: Name, home: Place = HOME, store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Make a damaged store whole: what is proven is kept, what goes is named, the old files stay beside it.

    While a driver owns the study: exit code 73. What cannot be repaired: 74, and nothing was changed.
    """
    from hpsearch.study.repair import repair as mend

    with options.console(as_json) as console:
        done = mend(_directory(study, home, store))
        if as_json:
            console.json(_repair(study, done))
        else:
            for line in _lines(study, done):
                console.told(line)


@app.command()
def backup(
    study: Name, target: Target, home: Place = HOME, store: StoreUrl = None, as_json: AsJson = False
) -> None:
    """Copy a study's store into a file, also while it runs; the copy is read and proven.

    To go back to it, put it as study.db into an empty directory of that name.
    """
    from hpsearch.study.backup import backup as copy

    with options.console(as_json) as console:
        done = copy(_directory(study, home, store), target)
        if as_json:
            answer = {"study": study, "target": str(target), "lsn": done.lsn, "rows": done.rows}
            console.json(answer | {"bytes": done.size})
        else:
            console.told(f"{target}: {lines.counted(done.rows, 'row')} proven up to lsn {done.lsn}")


def _directory(study: str, home: Path, store: str | None) -> Path:
    """The directory of a study with a SQLite file. Raises UsageError."""
    if store:
        raise UsageError(
            f"the store of {study} is on a PostgreSQL server, which looks after its own files",
            hint="pg_dump makes backups; pg_amcheck looks for damage",
        )
    studies = studies_of(home, None)
    return studies.place(find(studies, study))


def _health(study: str, health: Health) -> answers.Json:
    """The object of `store check --json`."""
    return {
        "study": study,
        "whole": health.whole,
        "problems": [asdict(problem) for problem in health.problems],
        "lsn": health.lsn,
        "witness_lsn": health.witness_lsn,
        "rows": health.rows,
        "tail_bytes": health.tail,
    }


def _repair(study: str, done: Repair) -> answers.Json:
    """The object of `store repair --json`; `old_files` is null where nothing was wrong."""
    return {
        "study": study,
        "changed": done.kept is not None,
        "old_files": str(done.kept) if done.kept else None,
        "lsn": done.lsn,
        "lost": [asdict(each) for each in done.lost],
        "moved": list(done.moved),
        "notes": [redact(note) for note in done.notes],
    }


def _lines(study: str, done: Repair) -> list[str]:
    if done.kept is None:
        return [f"{study}: whole up to lsn {done.lsn}, nothing to repair"]
    told = []
    for each in done.lost:
        span = f"lsn {each.lsn}" if each.lsn == each.until else f"lsn {each.lsn} to {each.until}"
        told.append(f"lost: {span}: {each.what or 'no copy of it was found'}")
    told += [f"moved: {name} to {done.kept.name}/{name}" for name in done.moved]
    told += [redact(note) for note in done.notes]
    told.append(f"{study}: whole up to lsn {done.lsn}; the old files are in {done.kept}")
    return told
