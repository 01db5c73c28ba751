"""The wiring of a study: file to Spec, store, search, runner and outbox; every decision is made elsewhere."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from hpsearch import faults, revising
from hpsearch.errors import HpsearchError, Interrupted, SpecError, UsageError
from hpsearch.run.contract import find_command, shared_directory
from hpsearch.run.local import now
from hpsearch.run.signals import heard, heard_signals
from hpsearch.spec.model import Problem, Spec
from hpsearch.spec.reading import read
from hpsearch.study import storage
from hpsearch.study.birth import check_name, git_sha, versions
from hpsearch.study.history import History
from hpsearch.study.home import Home
from hpsearch.study.journal import Journal, Waiting
from hpsearch.study.pruning import make_pruner
from hpsearch.study.retention import Retention
from hpsearch.study.sampling import OptunaSampler
from hpsearch.study.search import Search
from hpsearch.study.store import Store
from hpsearch.study.trial import Entry, Outcome, Study, StudyEnding
from hpsearch.track.following import following
from hpsearch.track.probe import require
from hpsearch.track.uri import default_uri
from hpsearch.train.form import find

EXIT_CODES: Mapping[Outcome, int] = {
    Outcome.COMPLETED: 0,
    Outcome.FAILED: 3,
    Outcome.DEADLINE: 4,
    Outcome.INTERRUPTED: 75,
}
# How long the end of a study waits for MLflow to take what is left (seconds); the store keeps the rest.
DELIVERY = 60.0
# The same where the study was interrupted and somebody waits for the process to go.
INTERRUPTED_DELIVERY = 10.0
# The same from a signal on, its trials' last checkpoints and Ray's end included.
SIGNALLED_DELIVERY = 17.0
# Where Ray unpacks the files of jobs.
PACKAGES = "working_dir_files"
# Between two flushes to MLflow (seconds); each costs a request per running trial.
FLUSH = 2.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """How to run a study, beside what its file says; `resume` is auto, never or must.

    `strict`: warnings about the file are errors. `store`: the address of a database, else files in `home`.
    `fork`: the name of a new study, which knows the trials of `study` that are true for it.
    `tags`: what the runs of a new study say beside. `deadline`: after which this driver ends, and
    `start_timeout`: until a first trial has a place on a cluster (seconds); None: for ever. `storage`: the
    path or URL below which a new study's trials keep their files, None: its own directory.
    """

    home: Path
    study: str | None = None
    resume: str = "never"
    local: bool = False
    address: str | None = None
    tracking_uri: str | None = None
    strict: bool = False
    store: str | None = field(default=None, repr=False)
    fork: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    deadline: float | None = None
    start_timeout: float | None = None
    storage: str | None = None

    @property
    def studies(self) -> Home:
        """The studies there are, and where their stores are."""
        return Home(self.home, self.store)


@dataclass(frozen=True, slots=True)
class Result:
    """What a run left behind: the store's content, how it ended, and what MLflow has not taken yet.

    `set_aside`: rows that MLflow refused for good.
    """

    history: History
    ending: StudyEnding
    undelivered: int
    problem: str | None
    set_aside: int = 0


class Watcher(Protocol):
    """Somebody who looks on; called on the driver's main thread."""

    def warned(self, file: str, warnings: Sequence[Problem]) -> None: ...
    def started(self, study: Study, search: Search, tracking_uri: str, resumed: bool) -> None: ...
    def committed(self, entries: Sequence[Entry]) -> None: ...
    def stopped(self) -> None: ...


def run(file: Path, options: Options, watcher: Watcher) -> Result:
    """Run the study that a file describes to its end.

    Raises SpecError (invalid file), UsageError (the study exists, no trainer), and what `resume` raises.
    """
    if options.resume not in ("auto", "never", "must"):
        raise UsageError(f"--resume {options.resume!r} is none of auto, never, must")
    spec = _valid_spec(file, options, watcher)
    wanted = options.fork or options.study
    if wanted is not None:
        check_name(wanted)
        if options.resume != "never" and options.studies.holds(wanted):
            return _go_on(spec, wanted, options, watcher)
    if options.resume == "must":
        raise UsageError(
            f"no study {wanted!r} in {options.home} to resume" if wanted else "--resume must needs --study",
            hint="`hpsearch list` names the studies here",
        )
    if options.fork and not options.study:
        raise UsageError("--fork needs --study", hint="name the study to start from with --study")
    _check_trainer(spec, _python_path(spec, str(Path.cwd())))
    name = wanted or options.studies.free_name(file.stem)
    check_name(name)
    # Absolute, so that a resume from elsewhere finds the trainer beside the file.
    spec = replace(spec, source=str(file.absolute()))
    uid = uuid.uuid4().hex
    study = Study(
        name=name,
        uid=uid,
        created=now(),
        spec=spec,
        directory=(options.home / name).absolute(),
        git_sha=git_sha(file.absolute().parent),
        versions=versions(),
        started_in=str(Path.cwd()),
        tags=options.tags,
        storage=storage.folder_of(storage.parse(options.storage), name, uid) if options.storage else "",
    )
    if study.storage:
        storage.require(study.storage)
    uri = options.tracking_uri or spec.tracking.uri or default_uri(options.home)
    if spec.tracking.strict:
        require(uri)
    known = revising.known(spec, options.studies, options.study if options.fork else None)
    _be_wanted()
    return _drive(options.studies.create(study, uri, known), options, watcher, resumed=False)


def _go_on(spec: Spec, name: str, options: Options, watcher: Watcher) -> Result:
    """Resume the study of a file; an edited one counts from now on, or is refused with what it changes."""
    stored = options.studies.history(name).study.spec
    if stored.sha256 == spec.sha256:
        return resume(name, options, watcher)
    edited = replace(spec, source=str(Path(spec.source).absolute()))
    revising.accepted(name, stored, edited)
    if options.tracking_uri is None and edited.tracking.uri != stored.tracking.uri:
        options = replace(options, tracking_uri=edited.tracking.uri or default_uri(options.home))
    _be_wanted()
    return _drive(options.studies.open(name), options, watcher, resumed=True, edited=edited)


def resume(name: str, options: Options, watcher: Watcher) -> Result:
    """Go on with a study: what ended is kept, the rest continues from checkpoints or starts again.

    Raises UsageError (no such study), StudyBusy, StoreDamaged, ServiceUnavailable, Interrupted.
    """
    _be_wanted()
    return _drive(options.studies.open(name), options, watcher, resumed=True)


def _be_wanted() -> None:
    """Raise Interrupted if a signal came before there is anything to stop in order."""
    if reason := heard():
        raise Interrupted(f"{reason} before the study was opened", hint="the same command starts again")


def _drive(
    store: Store, options: Options, watcher: Watcher, *, resumed: bool, edited: Spec | None = None
) -> Result:
    try:
        history = store.take(now(), options.tracking_uri)
        history, verdict = revising.revised(history, edited)
        study = history.study
        if resumed:
            _check_places(study, options, history.tracking_uri)
        with following(store, history, interval=FLUSH) as outbox:
            path = _python_path(study.spec, study.started_in)
            revisions = revising.Revisions(history, path)
            waiting = Waiting(unwanted=heard)
            journal = Journal(store, watcher.committed, lambda: revisions.due(now()), waiting)
            search = Search(study, OptunaSampler(study.spec), make_pruner(study.spec), journal, path)
            search.epoch, search.deadline = history.epoch, options.deadline
            search.restore(
                history.trials, history.attributes, history.known, history.last_ending, history.ended
            )
            journal.retention = Retention(study, search.trials)

            def stop(reason: str) -> None:
                search.stop(Outcome.INTERRUPTED, reason, now())
                outbox.hasten(SIGNALLED_DELIVERY)

            with heard_signals(stop):
                try:
                    watcher.started(study, search, history.tracking_uri, resumed)
                    if edited:
                        journal.commit([Entry(None, revisions.edited(verdict, now()))])
                    ending = _run_to_end(search, options)
                    journal.retention.finish()
                    final = ending.outcome in (Outcome.COMPLETED, Outcome.FAILED)
                    delivered = outbox.close(DELIVERY if final else INTERRUPTED_DELIVERY)
                finally:
                    watcher.stopped()
            problem = outbox.problem
    finally:
        store.close()
    left = 0 if delivered else store.lsn - outbox.offset
    return Result(options.studies.history(store.directory.name), ending, left, problem, outbox.set_aside)


def _check_places(study: Study, options: Options, tracking_uri: str) -> None:
    """Raise what an old study's services do that it cannot go on without; say where its files stay."""
    if study.spec.tracking.strict:
        require(tracking_uri)
    if (
        options.storage
        and storage.folder_of(storage.parse(options.storage), study.name, study.uid) != study.storage
    ):
        log.warning(
            "study %s keeps the files of its trials in %s, where it began; %s is for new studies",
            *(study.name, study.storage or study.directory, options.storage),
        )
    if study.storage:
        storage.require(study.storage, new=False)


def _run_to_end(search: Search, options: Options) -> StudyEnding:
    """Run what is left of a study; also what prevents that becomes its ending, before it is raised."""
    try:
        if not search.over:
            study = search.study
            _check_trainer(study.spec, _python_path(study.spec, study.started_in))
            _execute(search, options)
    except HpsearchError as error:
        search.stop(Outcome.INTERRUPTED, error.message, now())
        # The store itself may be what failed; then the first error is the one to hear.
        with suppress(HpsearchError):
            search.conclude(now())
        raise
    with faults.point("cleanup.begin"):
        return search.conclude(now())


def _execute(search: Search, options: Options) -> None:
    """Run with the runner that was asked for; Ray is imported only where it is used."""
    if options.local:
        from hpsearch.run import local

        local.run(search)
    else:
        from hpsearch.run import cluster

        cluster.run(search, address=options.address, start_timeout=options.start_timeout)


def _valid_spec(file: Path, options: Options, watcher: Watcher) -> Spec:
    reading = read(file, strict=options.strict)
    if reading.spec is None:
        raise SpecError(
            f"{file} is not valid: {len(reading.errors)} error{'s' * (len(reading.errors) != 1)}",
            problems=reading.errors,
        )
    watcher.warned(str(file), reading.warnings)
    return reading.spec


def _python_path(spec: Spec, started_in: str) -> tuple[str, ...]:
    """Where trainers are looked for before the installed packages, the first being where programs start.

    That is the directory of the study's start, or this one if it is gone; then that of the file. A driver
    that Ray has unpacked a job's files for has them here: those of an earlier job may lie about still.
    """
    here = Path.cwd()
    start = started_in if Path(started_in).is_dir() and PACKAGES not in here.parts else str(here)
    return tuple(dict.fromkeys((start, str(Path(spec.source).absolute().parent))))


def _check_trainer(spec: Spec, python_path: Sequence[str]) -> None:
    """Raise UsageError if what a trial runs cannot be found; nothing is imported here."""
    if spec.program.command:
        there = shared_directory(spec.program, python_path)
        if find_command(spec.program, there, os.environ) is None:
            raise UsageError(
                f"command {spec.program.command[0]!r} cannot be found", hint="install it, or give its path"
            )
    elif not spec.module:
        raise UsageError(
            f"{spec.source} names no pythonModule and no command: nothing to run",
            hint="name one in the file, or in its hpsearch: block",
        )
    elif find(spec.module, python_path) is None:
        raise UsageError(f"pythonModule {spec.module!r} cannot be found", hint=_where(python_path))


def _where(python_path: Sequence[str]) -> str:
    return f"it is looked for in {', '.join(python_path)} and among the installed packages"
