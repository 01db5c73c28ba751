"""The conversation of a study: trials are suggested, measured and finished, and every answer is true.

Pure: the sampler, the pruner and the journal come as arguments, so do time and paths. A fact is committed
to the journal before anybody is told of it: a suggestion before its launch, an ending before the sampler.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from hpsearch import faults
from hpsearch.spec.model import Objective
from hpsearch.study.front import best_of, what_counts
from hpsearch.study.launching import are_spent, launch_of, newest
from hpsearch.study.pruning import Pruner
from hpsearch.study.stopping import StoppingRule
from hpsearch.study.trial import (
    Attempt,
    Cause,
    Checkpoint,
    Ending,
    Entry,
    Known,
    Launch,
    Measurement,
    Outcome,
    Report,
    Resumption,
    State,
    Study,
    StudyEnding,
    Suggestion,
    Trial,
)

log = logging.getLogger(__name__)


class Sampler(Protocol):
    """Proposes params; told the truth about every trial. `restore` folds a whole history at once."""

    def ask(self, number: int) -> Suggestion | None: ...
    def measured(self, number: int, step: int, value: float) -> None: ...
    def ended(self, trial: Trial) -> None: ...
    def restore(self, history: Iterable[tuple[Trial, Mapping[str, object]]]) -> None: ...


class Journal(Protocol):
    """Makes facts durable: they are committed, all or none, when `commit` returns."""

    def commit(self, entries: Sequence[Entry]) -> None: ...


class Search:
    """One study's trials and what may happen next; all methods take `now`, milliseconds since the epoch."""

    def __init__(
        self,
        study: Study,
        sampler: Sampler,
        pruner: Pruner,
        journal: Journal,
        python_path: Sequence[str] = (),
    ) -> None:
        self.study = study
        self.trials: dict[int, Trial] = {}
        self.rejected = 0
        self.known = 0  # trials of an earlier study
        self.deadline: float | None = None  # of this life, beside the file's own (seconds)
        self.epoch = 0  # of the lease under which this life of the study runs
        self._sampler = sampler
        self._pruner = pruner
        self._journal = journal
        self.python_path = tuple(python_path)
        self._live: set[int] = set()
        self._waiting: list[int] = []
        self._ended: Counter[State] = Counter()
        self._ending: StudyEnding | None = None
        self._exhausted = False
        self._slots = study.spec.max_parallel_trials
        self._resources = study.spec.resources
        self._first = 0  # the number of this study's first trial: known ones count before it
        self._unheard = {each.metric for each in study.spec.objectives}  # never reported by any trial
        self._silent: Ending | None = None  # of a trial that ended well without reporting it
        self._stopping = StoppingRule(study)

    def limit(self, slots: int, gpus: float | None = None) -> None:
        """Run at most so many trials at once, each with fewer GPUs, where there is less than is asked for."""
        self._slots = slots
        if gpus is not None:
            self._resources = replace(self._resources, gpu=gpus)

    def restore(
        self,
        trials: Sequence[Trial],
        attributes: Mapping[int, Mapping[str, object]],
        known: Sequence[Known] = (),
        ending: StudyEnding | None = None,
        order: Sequence[int] = (),
    ) -> None:
        """Fold an earlier life of the study; its unfinished trials are launched again first.

        `order` are the trials that ended, as they did: no clock says that, they may have leapt.

        `ending` is how that life ended; a final one stays. `known` are trials of an earlier study: the
        sampler and the pruner learn from them, nobody else.
        """
        before = [(each.trial, each.attributes) for each in known]
        self._sampler.restore([*before, *((trial, attributes[trial.number]) for trial in trials)])
        self.known = len(known)
        for each in known:
            self._first = max(self._first, each.trial.number + 1)
            self._fold(each.trial)
        for recorded in trials:
            self.trials[recorded.number] = recorded
            self._fold(recorded)
            if recorded.ending:
                self._ended[recorded.state] += 1
                self._condense(recorded)
            else:
                self._waiting.append(recorded.number)
        places = {number: place for place, number in enumerate(order)}
        ended = sorted(
            (t for t in trials if t.ending),
            key=lambda t: (places.get(t.number, 0), t.ending.time if t.ending else 0, t.number),
        )
        for trial in ended:
            self._stopping.ended(trial)
        self._check_failures(ended[-1].ending.time if ended and ended[-1].ending else 0)
        if ending and ending.outcome in (Outcome.COMPLETED, Outcome.FAILED):
            self._ending = ending

    def _fold(self, recorded: Trial) -> None:
        """Show a recorded trial to the pruner; rules look at it as it was at each measurement."""
        seen = Trial(recorded.number, recorded.uid, recorded.params, recorded.created, recorded.attempts)
        for measurement in recorded.measurements:
            seen.measurements.append(measurement)
            self._pruner.record(seen, measurement)
        self._unheard -= {metric for metric in self._unheard if recorded.values(metric)}
        if recorded.ending:
            self._pruner.ended(recorded)

    # -- the three events ---------------------------------------------------------------------------

    def suggest(self, now: int) -> Launch | None:
        """The next launch, committed; None when nothing may start now (see `over`)."""
        self._stopping.check(now, len(self.trials))
        if self._ending or len(self._live) >= self._slots or self._mute:
            return None
        if self._waiting:
            waiting = self.trials[self._waiting.pop(0)]
            return self._launch(waiting, now, [], Cause.DRIVER, "the driver ended before the trial")
        if self._all_started:
            return None
        number = self._first + len(self.trials)
        with faults.point("sampler.ask"):
            suggestion = self._sampler.ask(number)
        if suggestion is None:
            self._exhausted = True
            return None
        trial = Trial(number, f"{self.study.uid}-{number}", suggestion.params, now)
        self.trials[number] = trial
        return self._launch(trial, now, [Entry(number, trial, attributes=suggestion.attributes)])

    def measure(self, number: int, attempt: int, reports: Iterable[Report], now: int) -> bool:
        """Take what an attempt reports; True while it should go on.

        Reports of an attempt that is not the current one change nothing. What a pruned trial reported
        after the step that decided it is dropped, so that timing does not change a study's table.
        """
        trial = self.trials[number]
        if trial.ending or number not in self._live or trial.attempts[-1].number != attempt:
            return False
        entries: list[Entry] = []
        fresh: list[Measurement] = []
        ending: Ending | None = None
        for report in reports:
            entries += [Entry(number, fact, attempt) for fact in self._besides(trial, report)]
            if report.measurement and (news := self._news(trial, report.measurement, now)):
                fresh.append(news)
                entries.append(Entry(number, news, attempt))
                ending = self._decide(trial, news, now)
            ending = ending or (self._settle(trial, report.ending, now) if report.ending else None)
            if ending:
                break
        ending = ending or self._stop_at_once(now)
        if ending:
            entries.append(Entry(number, ending, attempt))
        if entries:
            self._journal.commit(entries)
        self._tell(trial, fresh)
        if ending:
            self._end(trial, ending)
        return ending is None and self._ending is None

    def finish(self, number: int, ending: Ending) -> None:
        """End a trial from outside of its process; a trial that has ended stays as it is."""
        trial = self.trials[number]
        if trial.ending is None:
            self._journal.commit([Entry(number, ending)])
            self._end(trial, ending)

    def lost(
        self, number: int, attempt: int, reason: str, now: int, cause: Cause = Cause.CRASHED
    ) -> Launch | None:
        """An attempt's process is gone: the launch of the next attempt, or None and the trial failed."""
        trial = self.trials[number]
        if number not in self._live or trial.attempts[-1].number != attempt:
            return None
        most = self.study.spec.limits.max_attempts
        if are_spent(trial.attempts, cause, most):
            # What a killed driver adds is not counted, so that its kills do not change a study's table.
            tried = sum(each.cause is not Cause.DRIVER for each in trial.attempts)
            self.finish(number, Ending(State.FAILED, f"{reason}, in attempt {tried} of {tried}", now))
            return None
        if self._ending:
            return None
        self._live.discard(number)
        return self._launch(trial, now, [], cause, reason)

    # -- the study as a whole -----------------------------------------------------------------------

    def stop(self, outcome: Outcome, reason: str, now: int) -> None:
        """Launch nothing more and let every trial stop; the first reason counts."""
        self._ending = self._ending or StudyEnding(outcome, reason, now)

    def released(self, number: int) -> None:
        """A trial's slot is free again; an unfinished trial waits for the next life of the study."""
        self._live.discard(number)
        if self._mute and self._silent and not self._live:
            reason = f"no trial has reported the objective, so no further one starts: {self._silent.reason}"
            self.stop(Outcome.FAILED, reason, self._silent.time)

    @property
    def over(self) -> bool:
        """True when no launch can ever come again in this life of the study."""
        return self._ending is not None or self._all_ended

    def conclude(self, now: int) -> StudyEnding:
        """Commit and return how this life of the study ended; a stop after the last trial is none."""
        early = self._ending or StudyEnding(Outcome.INTERRUPTED, "the runner ended before the study", now)
        final = early.outcome is Outcome.FAILED or not self._all_ended
        ending = early if final else self._verdict(now)
        self._journal.commit([Entry(None, ending)])
        return ending

    def counts(self) -> dict[State, int]:
        """How many trials are in each state."""
        counts = {state: self._ended[state] for state in State}
        counts[State.RUNNING] = len(self.trials) - self._ended.total()
        return counts

    def best(self) -> Trial | None:
        """The completed trial with the best objective; the earlier one of equals."""
        return best_of(self.trials.values(), self.study)

    @property
    def _all_started(self) -> bool:
        full = len(self.trials) >= self.study.spec.max_trials
        return full or self._exhausted or bool(self._stopping.reason)

    @property
    def _all_ended(self) -> bool:
        return self._all_started and self._ended.total() == len(self.trials)

    @property
    def _mute(self) -> bool:
        """Whether a trial ended well without an objective, which nobody else has reported either."""
        return self._silent is not None and bool(self._unheard)

    # -- inside -------------------------------------------------------------------------------------

    def _launch(
        self,
        trial: Trial,
        now: int,
        entries: list[Entry],
        cause: Cause = Cause.FIRST,
        reason: str = "",
    ) -> Launch:
        checkpoint = newest(trial.checkpoints)
        resumed_from = checkpoint.step if checkpoint else None
        attempt = Attempt(len(trial.attempts) + 1, now, resumed_from, cause, reason)
        self._journal.commit([*entries, Entry(trial.number, attempt, attempt.number)])
        trial.attempts.append(attempt)
        self._live.add(trial.number)
        return launch_of(self.study, trial, self._resources, self.python_path)

    def _news(self, trial: Trial, given: Measurement, now: int) -> Measurement | None:
        """Add to a trial what is new: the first value of a metric at a step wins, and steps only grow.

        Programs report the metrics of one step one by one, so that later ones join it, at its time. A clock
        that is ahead of the driver's, a trainer's or another node's, is not believed.
        """
        last = trial.measurements[-1] if trial.measurements else None
        if last is None or given.step > last.step:
            given = replace(given, time=min(given.time, now))
            trial.measurements.append(given)
            return given
        fresh = {n: v for n, v in given.metrics.items() if given.step == last.step and n not in last.metrics}
        self.rejected += not fresh
        if not fresh:
            return None
        trial.measurements[-1] = replace(last, metrics={**last.metrics, **fresh})
        return replace(given, metrics=fresh, time=last.time)

    def _besides(self, trial: Trial, report: Report) -> Iterator[Resumption | Checkpoint]:
        """What a report says beside numbers: a note, where the attempt really went on from, a checkpoint."""
        if report.note:
            log.warning("trial %d: %s", trial.number, report.note)
        if report.resumed_from is not None:
            last, step = trial.attempts[-1], report.resumed_from
            trial.attempts[-1] = replace(last, resumed_from=step or None)
            yield Resumption(last.number, step, report.note)
        if report.checkpoint:
            trial.checkpoints.append(report.checkpoint)
            yield report.checkpoint

    def _decide(self, trial: Trial, measurement: Measurement, now: int) -> Ending | None:
        self._unheard -= {m for m in self._unheard if math.isfinite(measurement.metrics.get(m, math.nan))}
        self._pruner.record(trial, measurement)
        with faults.point("prune.decide"):
            decision = self._pruner.decide(trial)
        return Ending(State.PRUNED, decision.reason, now) if decision.prune else None

    def _stop_at_once(self, now: int) -> Ending | None:
        """What ends a running trial, also a silent one, where the study stops as soon as possible."""
        self._stopping.check(now, len(self.trials))
        if not self._stopping.at_once:
            return None
        return Ending(State.PRUNED, f"the study stops as soon as possible: {self._stopping.reason}", now)

    def _settle(self, trial: Trial, ending: Ending, now: int) -> Ending:
        """The ending that a trial claims, stamped; completed without a finite objective is no success."""
        if ending.state is State.COMPLETED:
            for objective in self.study.spec.objectives:
                if not trial.values(objective.metric):
                    reason = f"metric {objective.metric} was never reported as a finite number"
                    return Ending(State.FAILED, reason, now)
        return replace(ending, time=now)

    def _tell(self, trial: Trial, measurements: Iterable[Measurement]) -> None:
        for measurement in measurements:
            value = measurement.metrics.get(self._objective.metric, math.nan)
            if math.isfinite(value):
                self._sampler.measured(trial.number, measurement.step, value)

    def _end(self, trial: Trial, ending: Ending) -> None:
        trial.ending = ending
        self._ended[ending.state] += 1
        if ending.silent:
            self._silent = ending
        self._sampler.ended(trial)
        self._pruner.ended(trial)
        self._stopping.ended(trial)
        self._check_failures(ending.time)
        self._condense(trial)

    def _condense(self, trial: Trial) -> None:
        """All have been told of an ended trial's curve: the store remembers it, this process need not."""
        trial.measurements = what_counts(trial, self.study.spec)

    def _check_failures(self, now: int) -> None:
        """Stop at maxFailedTrials; where that is 0, when failing is clearly the rule.

        Source: the decisions on AI Platform's undocumented "the service decides".
        """
        counts, most = self.counts(), self.study.spec.limits.max_failed_trials
        failed = counts[State.FAILED]
        finished = sum(counts.values()) - counts[State.RUNNING]
        hopeless = (failed == finished == 3) or (finished >= 6 and failed * 2 > finished)
        if (most and failed >= most) or (not most and hopeless):
            last = next(t for t in reversed(self.trials.values()) if t.state is State.FAILED)
            reason = last.ending.reason if last.ending else ""
            limit = f"maxFailedTrials is {most}" if most else "failing is the rule"
            self.stop(
                Outcome.FAILED,
                f"{failed} of {finished} trials failed ({limit}); trial {last.number}: {reason}",
                now,
            )

    def _verdict(self, now: int) -> StudyEnding:
        counts = self.counts()
        completed = counts[State.COMPLETED]
        if completed:
            reason = f"{completed} of {len(self.trials)} trials completed"
            if self._exhausted:
                reason += "; every point of the search space has been tried"
            elif self._stopping.reason:
                reason += f"; stopped because {self._stopping.reason}"
            return StudyEnding(Outcome.COMPLETED, reason, now)
        seen = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
        return StudyEnding(Outcome.FAILED, f"no trial completed: {seen or 'no trial started'}", now)

    @property
    def _objective(self) -> Objective:
        return self.study.spec.objective
