"""The wiring of upkeep without trials: MLflow is told what it has not had yet, and who no longer runs."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hpsearch.errors import HpsearchError, ServiceUnavailable, StoreDamaged, StudyBusy, UsageError
from hpsearch.redaction import redact
from hpsearch.run.local import now
from hpsearch.run.signals import heard, heard_signals
from hpsearch.study.home import Home
from hpsearch.study.store import Store
from hpsearch.study.trial import Entry, Outcome, StudyEnding
from hpsearch.track import rows
from hpsearch.track.following import following
from hpsearch.track.patience import Abandoned, Patience
from hpsearch.track.runs import Run, Runs
from hpsearch.track.uri import local_database

# Between two times that the store is told how far MLflow was fed (seconds).
PULSE = 1.0
# How long one question to a tracking server may take until it counts as away (seconds).
QUESTION = 60.0
KILLED = "its driver was killed"


@dataclass(frozen=True, slots=True)
class Synced:
    """What a sync did: facts that MLflow was told, and those that wait; `set_aside` are rows it refused.

    `interrupted`: somebody stopped it.
    """

    study: str
    tracking_uri: str
    delivered: int
    undelivered: int
    set_aside: int
    problem: str | None
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What became of a study's runs that MLflow took for running.

    `closed` by the endings in the store, `interrupted` because nobody works on their trials, `live` because a
    driver does; `left` are still running in MLflow.
    """

    study: str
    tracking_uri: str
    closed: int = 0
    interrupted: int = 0
    live: int = 0
    left: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Census:
    """What reconcile did with each study.

    `foreign`: runs by the uid of studies that are not in this home, left alone. `unreadable`: studies whose
    store cannot be read, and why.
    """

    studies: tuple[Reconciled, ...]
    foreign: Mapping[str, int]
    unreadable: Mapping[str, HpsearchError]


@dataclass(frozen=True, slots=True)
class _Known:
    """What must be known of a study to judge its runs; `unfinished` are the uids of trials without an end."""

    name: str
    uid: str
    uri: str
    unfinished: frozenset[str]
    ended: bool

    def works_on(self, run: Run) -> bool:
        """Whether a resume would go on with what a run shows."""
        uid = run.tags.get(rows.TRIAL_UID)
        return uid in self.unfinished if uid else not self.ended


def sync(home: Home, name: str, tracking_uri: str | None = None) -> Synced:
    """Tell MLflow all that the store of a study has, without running a trial.

    A study whose driver was killed ends here as interrupted. Raises StudyBusy while a driver owns it.
    """
    store = home.open(name)
    try:
        ended = home.history(name).ending
        history = store.take(now(), tracking_uri)
        # Under the new epoch the study has ended as before; MLflow hears of it last.
        store.commit([Entry(None, ended or StudyEnding(Outcome.INTERRUPTED, KILLED, now()))])
        with following(store, history, interval=0.0) as outbox:
            with heard_signals(lambda reason: outbox.hasten(0)):
                outbox.close(math.inf, _keeping(store))
                stopped = heard()
            return Synced(
                study=name,
                tracking_uri=redact(history.tracking_uri),
                delivered=outbox.told,
                undelivered=store.lsn - outbox.offset,
                set_aside=outbox.set_aside,
                problem=stopped or outbox.problem,
                interrupted=bool(stopped),
            )
    finally:
        store.close()


def _keeping(store: Store) -> Callable[[], None]:
    """Something to be called often: now and then the store keeps how far MLflow was fed."""
    last = time.monotonic()

    def pulse() -> None:
        nonlocal last
        if time.monotonic() - last >= PULSE:
            store.commit(())
            last = time.monotonic()

    return pulse


def reconcile(home: Home, names: Sequence[str] = ()) -> Census:
    """Close every run that MLflow takes for running and that no live driver works on.

    Of all studies in a home, or of those named; runs of studies that are not in it are counted and no more.
    """
    unreadable: dict[str, HpsearchError] = {}
    known = list(_known(home, unreadable))
    told: list[Reconciled] = []
    foreign: Counter[str] = Counter()
    for uri in dict.fromkeys(each.uri for each in known):
        chosen = [each for each in known if each.uri == uri and (not names or each.name in names)]
        if not chosen or not _exists(uri):
            continue
        try:
            running = _running(uri)
            problems = {each.name: _close(home, each, running) for each in chosen if not heard()}
            still = {run.run_id for run in _running(uri)} if running else set()
        except HpsearchError as error:
            told += [Reconciled(each.name, redact(uri), problem=error.message) for each in chosen]
            continue
        told += [_told(home, each, running, still, problems.get(each.name)) for each in chosen]
        uids = {each.uid for each in known}
        foreign.update(uid for run in running if (uid := run.tags[rows.STUDY_UID]) not in uids)
    return Census(tuple(told), foreign, unreadable)


def _known(home: Home, unreadable: dict[str, HpsearchError]) -> Iterator[_Known]:
    for name in home.names():
        try:
            history = home.history(name)
        except (StoreDamaged, UsageError) as error:
            unreadable[name] = error
            continue
        unfinished = frozenset(trial.uid for trial in history.trials if trial.ending is None)
        yield _Known(name, history.study.uid, history.tracking_uri, unfinished, history.ending is not None)


def _exists(uri: str) -> bool:
    """False for an embedded database that was never made: nobody may run there."""
    database = local_database(uri)
    return database is None or database.exists()


def _running(uri: str) -> list[Run]:
    """The runs of any study that a server takes for running. Raises ServiceUnavailable."""
    runs, patience = Runs(uri, "", None), Patience(f"MLflow at {redact(uri)}")
    patience.close(QUESTION)
    try:
        patience.insist(runs.connect)
        return patience.insist(runs.running)
    except Abandoned:
        raise ServiceUnavailable(patience.problem or f"MLflow at {redact(uri)} does not answer") from None


def _close(home: Home, study: _Known, running: Sequence[Run]) -> str | None:
    """Tell MLflow how a study's runs ended, which closes them; what keeps it from that, if anything."""
    if not any(run.tags[rows.STUDY_UID] == study.uid for run in running):
        return None
    try:
        return sync(home, study.name).problem
    except StudyBusy:
        return None


def _told(
    home: Home, study: _Known, running: Sequence[Run], still: Collection[str], problem: str | None
) -> Reconciled:
    mine = [run for run in running if run.tags[rows.STUDY_UID] == study.uid]
    gone = [run for run in mine if run.run_id not in still]
    interrupted = sum(study.works_on(run) for run in gone)
    left = len(mine) - len(gone)
    owned = left > 0 and home.is_owned(study.name)
    return Reconciled(
        study=study.name,
        tracking_uri=redact(study.uri),
        closed=len(gone) - interrupted,
        interrupted=interrupted,
        live=left if owned else 0,
        left=0 if owned else left,
        problem=problem,
    )
