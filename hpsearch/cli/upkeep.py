"""Commands that look after MLflow without running trials: sync, reconcile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli import options
from hpsearch.cli.options import HOME, AsJson, Name, Place, StoreUrl, TrackingUri, find, studies_of
from hpsearch.errors import Interrupted, ServiceUnavailable
from hpsearch.show import answers, lines

if TYPE_CHECKING:
    from hpsearch.upkeep import Census, Synced

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[STUDY]...", help="The studies' names [all of the home].")
]


def sync(
    study: Name,
    home: Place = HOME,
    store: StoreUrl = None,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Tell MLflow what it has not had of a study yet, without running trials.

    While MLflow cannot be reached: exit code 69; while a driver owns the study: 73.
    """
    from hpsearch import upkeep

    studies = studies_of(home, store)
    with options.console(as_json) as console:
        synced = upkeep.sync(studies, find(studies, study), tracking_uri)
        if as_json:
            console.json(_synced(synced))
        else:
            console.told(
                f"{synced.study}: {lines.counted(synced.delivered, 'fact')} told to MLflow at "
                f"{synced.tracking_uri}, {synced.undelivered} left"
                + (f"; it refused {lines.counted(synced.set_aside, 'row')}" if synced.set_aside else "")
            )
        if synced.interrupted:
            raise Interrupted(f"{synced.problem}; what is left waits in the store", hint="sync again")
        if synced.undelivered:
            raise ServiceUnavailable(
                synced.problem or f"MLflow at {synced.tracking_uri} did not take everything",
                hint="what is left waits in the store: sync again when MLflow is back",
            )


def reconcile(
    study: Names = None, home: Place = HOME, store: StoreUrl = None, as_json: AsJson = False
) -> None:
    """Close the runs in MLflow that say RUNNING and that no driver works on any more.

    A resume opens those of unfinished trials again. Runs of studies that are not in this home are left alone.
    """
    from hpsearch import upkeep

    studies = studies_of(home, store)
    with options.console(as_json) as console:
        census = upkeep.reconcile(studies, [find(studies, name) for name in study or ()])
        for error in census.unreadable.values():
            console.error(error)
        if as_json:
            console.json(_census(census) | {"home": str(home.absolute())})
        else:
            for line in _lines(census):
                console.told(line)
        for each in census.studies:
            if each.problem:
                raise ServiceUnavailable(
                    f"{each.study}: {each.problem}", hint="reconcile again when MLflow is back"
                )


def _synced(synced: Synced) -> answers.Json:
    """The object of `sync --json`; the counts are facts, `set_aside` rows that MLflow refused."""
    return {
        "study": synced.study,
        "delivered": synced.delivered,
        "undelivered": synced.undelivered,
        "set_aside": synced.set_aside,
        "problem": synced.problem,
        "tracking_uri": synced.tracking_uri,
    }


def _census(census: Census) -> answers.Json:
    """The object of `reconcile --json`; the counts are runs that MLflow took for running.

    `closed`: as their trials ended; `interrupted`: nobody works on them until a resume; `live`: a driver
    does; `left`: still running in MLflow; `foreign`: of studies that are not in this home.
    """
    counts = ("closed", "interrupted", "live", "left")
    studies = [{name: getattr(each, name) for name in each.__slots__} for each in census.studies]
    return {
        **{name: sum(each[name] for each in studies) for name in counts},
        "foreign": sum(census.foreign.values()),
        "studies": studies,
        "foreign_studies": [{"uid": uid, "running": count} for uid, count in census.foreign.items()],
        "unreadable": sorted(census.unreadable),
    }


def _lines(census: Census) -> list[str]:
    told = [
        f"{each.study}: {each.closed} closed as their trials ended, {each.interrupted} as interrupted"
        + (f", {each.live} of a live driver" if each.live else "")
        + (f", {each.left} still running" if each.left else "")
        for each in census.studies
    ]
    told += [
        f"left alone: {lines.counted(count, 'running run')} of study uid {uid}, which is not in this home"
        for uid, count in census.foreign.items()
    ]
    return told or ["no study has runs in MLflow"]
