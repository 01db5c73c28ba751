"""Delivering news: the parent run of a study, a child run per trial, each with as few requests as can be."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import TypeVar

from hpsearch.redaction import redact
from hpsearch.study.trial import Outcome, Study, StudyEnding, Trial
from hpsearch.track import rows
from hpsearch.track.ledger import Best, News, TrialNews
from hpsearch.track.patience import Patience
from hpsearch.track.rows import Point, Row
from hpsearch.track.runs import ROWS_PER_REQUEST, Run, Runs
from hpsearch.track.verdict import Refused

Answer = TypeVar("Answer")
_log = logging.getLogger(__name__)


class Forgotten(Exception):
    """MLflow does not know the study any more: another database, or an older one."""


class Fate(Enum):
    """What became of a run that refused something."""

    THERE = auto()
    DELETED = auto()
    RESTORED = auto()


class Delivery:
    """The runs of one study; `set_aside` counts the rows that MLflow refused for good."""

    def __init__(self, study: Study, runs: Runs, patience: Patience) -> None:
        self.parent = Run("")
        self.set_aside = 0
        self._study = study
        self._runs = runs
        self._patience = patience
        self._common = rows.study_tags(study)
        self._children: dict[str, Run] = {}
        # Runs whose first request got no answer: it may still be carried out, later and a second time.
        self._doubtful: set[str] = set()

    def open(self, parent_run_id: str | None) -> bool:
        """Find the runs of this study or make its parent; False if MLflow had never heard of it."""
        insist = self._patience.insist
        self._children, self._doubtful = {}, set()
        insist(self._runs.connect)
        insist(lambda: self._runs.open_experiment(rows.experiment_tags(self._study.spec), parent_run_id))
        parent = self._adopt(insist(lambda: self._runs.find(rows.STUDY_UID, self._study.uid)))
        self.parent = parent or insist(self._maker(rows.STUDY_UID, self._study.uid, self._make_parent))
        return parent is not None

    def keep_spec(self) -> None:
        """Store the Spec's text with the parent; an artifact store in trouble is noted and no more."""
        name = rows.artifact_name(self._study.spec.source)
        try:
            self._runs.keep_text(self.parent.run_id, redact(self._study.spec.text), name)
        except Exception as error:  # its own thread: nobody else would hear of it
            _log.warning("the text of the study's file was not stored in MLflow: %s", error)

    def mend(self, news: News) -> None:
        """Close the runs of trials whose end was delivered once, and which MLflow takes for running."""
        for told in news.trials.values():
            run = self._children.get(told.uid)
            if run and run.active and run.status == "RUNNING" and told.trial and told.trial.ending:
                self._tell_trial(run, told)

    def tell(self, news: News) -> None:
        """Deliver news; raises Abandoned when the time to close is over, Forgotten if all is to be told."""
        for number, told in news.trials.items():
            run = self._child(number, told)
            if run is not None:
                self._tell_trial(run, told)
        self._tell_study(news)

    # Runs -------------------------------------------------------------------------------------------

    def _adopt(self, found: Sequence[Run]) -> Run | None:
        """Take over the runs that are there; where a lost reply left two, the one that holds more."""
        parent: Run | None = None
        for run in found:
            uid = run.tags.get(rows.TRIAL_UID)
            if rows.is_parent(run.tags):
                first = parent = parent or run
            elif uid is None:
                continue
            else:
                first = self._children.setdefault(uid, run)
                if run.status != "RUNNING" and not run.interrupted:
                    run.forget()
            if first is not run and run.active:
                self._drop(run)
        return parent

    def _maker(self, tag: str, uid: str, make: Callable[[], Run]) -> Callable[[], Run]:
        """A request that may be asked again: from the second time on it looks before it makes."""
        asked = False

        def request() -> Run:
            nonlocal asked
            if asked:
                self._doubtful.add(uid)
                found = [run for run in self._runs.find(tag, uid) if self._is(run, tag)]
                if found:
                    return found[0]
            asked = True
            return make()

        return request

    @staticmethod
    def _is(run: Run, tag: str) -> bool:
        """True if a run found by a tag is the one meant: the study's uid stands on its children too."""
        return tag == rows.TRIAL_UID or rows.is_parent(run.tags)

    def _make_parent(self) -> Run:
        tags = {**self._common, rows.NOTE: rows.description(self._study)}
        return self._runs.create(self._study.name, self._study.created, tags)

    def _child(self, number: int, told: TrialNews) -> Run | None:
        """The run of a trial, made if the trial is new; None where a user removed it or MLflow refused it."""
        run = self._children.get(told.uid)
        if run is None and told.suggested and told.trial is not None:
            run = self._made(told.trial) or Run("", active=False)
            self._children[told.uid] = run
        return run if run is not None and run.active else None

    def _made(self, trial: Trial) -> Run | None:
        tags = self._common | rows.birth_tags(trial, self.parent.run_id) | rows.trial_tags(trial)
        name = f"{self._study.name}/{trial.number:04d}"
        make = self._maker(rows.TRIAL_UID, trial.uid, lambda: self._runs.create(name, trial.created, tags))
        try:
            return self._patience.ask(make)
        except Refused:
            # The experiment may have been deleted while we ran.
            self._restore()
            return self._try(f"trial {trial.number}", make)

    def _restore(self) -> None:
        """Have the experiment back that a user deleted, and with it the runs that went with it."""
        tags = rows.experiment_tags(self._study.spec)
        if self._try("the experiment", lambda: self._runs.open_experiment(tags, self.parent.run_id)):
            _log.warning("the experiment was deleted in MLflow; it is restored")

    def _settle(self, uid: str, tag: str, keep: Run) -> None:
        """Remove the second run that a request without an answer may have made."""
        if uid not in self._doubtful:
            return
        for run in self._try(f"the runs of {uid}", lambda: self._runs.find(tag, uid)) or []:
            if run.active and run.run_id != keep.run_id and self._is(run, tag):
                self._drop(run)
        self._doubtful.discard(uid)

    def _drop(self, run: Run) -> None:
        _log.info("run %s is a double, made by a request whose answer was lost; deleted", run.run_id)
        self._try(f"run {run.run_id}", lambda: self._runs.delete(run.run_id))

    # News -------------------------------------------------------------------------------------------

    def _tell_trial(self, run: Run, told: TrialNews) -> None:
        trial = told.trial
        batch = rows.param_rows(trial.params) if trial and told.suggested else []
        tags = rows.trial_tags(trial) if trial else {}
        back = run.interrupted
        if back and trial and not trial.ending:
            self._reopen(run)
            tags |= rows.reopened_tags()
        tags = run.unheard(tags)
        self._log(run, [*batch, *rows.tag_rows(tags), *told.points])
        run.tags.update(tags)
        if trial is None or trial.ending is None:
            return
        self._end(run, rows.STATUS[trial.ending.state], trial.ending.time, again=back)
        self._settle(trial.uid, rows.TRIAL_UID, run)
        run.forget()

    def _tell_study(self, news: News) -> None:
        parent, ending, best = self.parent, news.ending, news.best
        # Also where no ending was ever written, and somebody else closed the run of a killed driver.
        resumed = not ending and (news.resumed or (parent.interrupted and bool(news.trials)))
        tags: dict[str, str] = {}
        if best and (news.points or ending):
            child = self._children.get(best.uid)
            tags |= rows.best_tags(best.number, best.params, child.run_id if child else None)
        batch: list[Row] = list(news.points)
        if ending:
            tags |= rows.tags_of({"state": ending.outcome.value, "reason": ending.reason})
            batch += self._result(ending, best)
        elif resumed:
            tags |= {"state": "running", "reason": "resumed"}
        tags = parent.unheard(tags)
        self._log(parent, [*batch, *rows.tag_rows(tags)])
        parent.tags.update(tags)
        if ending:
            self._end(parent, rows.STUDY_STATUS[ending.outcome], ending.time, again=True)
            self._settle(self._study.uid, rows.STUDY_UID, parent)
            self._interrupt(news.unfinished, ending)
        elif resumed and parent.active and parent.status != "RUNNING":
            self._reopen(parent)

    def _interrupt(self, unfinished: Sequence[str], ending: StudyEnding) -> None:
        """Nobody works on these trials until a resume: their runs do not say that they run."""
        for uid in unfinished:
            run = self._children.get(uid)
            if run is not None and run.status == "RUNNING":
                tags = rows.interrupted_tags(ending.reason)
                self._log(run, rows.tag_rows(tags))
                run.tags.update(tags)
                self._end(run, "KILLED", ending.time, again=False)

    def _reopen(self, run: Run) -> None:
        self._try(f"run {run.run_id}", lambda: self._runs.reopen(run.run_id))
        run.status = "RUNNING"

    def _result(self, ending: StudyEnding, best: Best | None) -> list[Row]:
        """At a final ending, the best trial's objective and params: both can be written only once.

        At an interrupted one they may be another trial's later, at the same step.
        """
        if best is None or ending.outcome not in (Outcome.COMPLETED, Outcome.FAILED):
            return []
        name = rows.clean_name(self._study.spec.objective.metric)
        result: list[Row] = [Point(name, best.value, best.time, best.step)]
        params = rows.param_rows(best.params)
        texts = {param.name: param.text for param in params}
        if self.parent.params.items() <= texts.items():
            self.parent.params = texts
            result += params
        return result

    # Requests ---------------------------------------------------------------------------------------

    def _log(self, run: Run, batch: Sequence[Row]) -> None:
        sound = [row for row in batch if not isinstance(row, Point) or row.sound]
        for row in batch:
            if isinstance(row, Point) and not row.sound:
                self._refuse(f"{row}", "a number beyond 64 bits")
        for start in range(0, len(sound), ROWS_PER_REQUEST):
            self._log_some(run, sound[start : start + ROWS_PER_REQUEST])

    def _log_some(self, run: Run, some: Sequence[Row]) -> None:
        """Write rows in one request; halve a refused batch until the bad rows stand alone."""
        if not run.active:
            return
        try:
            self._patience.ask(lambda: self._runs.log(run.run_id, some))
            return
        except Refused as refusal:
            fate = self._fate(run, refusal)
            if fate is Fate.DELETED:
                return
            if fate is Fate.THERE and len(some) == 1:
                self._refuse(f"{some[0]} of run {run.run_id}", refusal.message)
                return
        parts = [some] if fate is Fate.RESTORED else [some[: len(some) // 2], some[len(some) // 2 :]]
        for part in parts:
            self._log_some(run, part)

    def _end(self, run: Run, status: str, time: int, *, again: bool) -> None:
        """Set a final status; `again` even if MLflow has it already, for the new time."""
        if not run.active or (run.status == status and not again):
            return
        try:
            self._patience.ask(lambda: self._runs.end(run.run_id, status, time))
            run.status = status
        except Refused as refusal:
            match self._fate(run, refusal):
                case Fate.RESTORED:
                    self._end(run, status, time, again=True)
                case Fate.THERE:
                    self._refuse(f"the status of run {run.run_id}", refusal.message)

    def _fate(self, run: Run, refusal: Refused) -> Fate:
        """Whether a user deleted the run, or its whole experiment, which is restored; raises Forgotten."""
        if not refusal.missing and not self._is_gone(run):
            return Fate.THERE
        self._restore()
        if not self._is_gone(run):
            return Fate.RESTORED
        if refusal.missing and self._patience.ask(lambda: self._runs.is_missing(self.parent.run_id)):
            raise Forgotten
        run.active = False
        _log.warning("run %s was deleted in MLflow; it is told nothing more", run.run_id)
        return Fate.DELETED

    def _is_gone(self, run: Run) -> bool:
        return self._patience.ask(lambda: self._runs.is_gone(run.run_id))

    def _try(self, subject: str, request: Callable[[], Answer]) -> Answer | None:
        try:
            return self._patience.ask(request)
        except Refused as refusal:
            self._refuse(subject, refusal.message)
            return None

    def _refuse(self, subject: str, message: str) -> None:
        self.set_aside += 1
        level = logging.WARNING if self.set_aside == 1 else logging.DEBUG
        _log.log(level, "MLflow refused %s, set aside: %s", subject, message)
