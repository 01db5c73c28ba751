"""How far a running study is, grown from committed facts alone; times are seconds on any one clock."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from hpsearch.spec.model import Params
from hpsearch.study.search import best_of
from hpsearch.study.trial import Attempt, Ending, Entry, Measurement, State, Study, Trial


@dataclass(frozen=True, slots=True)
class Best:
    """The best completed trial so far: its number, value, the value's step, and its params."""

    trial: int
    value: float
    step: int
    params: Params


@dataclass(slots=True)
class Progress:
    """Counts, the best trial and the running ones, as (last step, last finite value) by number."""

    study: Study
    since: float
    ended: dict[State, int] = field(default_factory=lambda: dict.fromkeys(State, 0))
    ended_before: int = 0
    best: Best | None = None
    running: dict[int, tuple[int | None, float | None]] = field(default_factory=dict)

    @classmethod
    def start(cls, study: Study, trials: Iterable[Trial], since: float) -> Progress:
        """The progress of a study that starts or goes on now, with the trials that it has already."""
        known = list(trials)
        progress = cls(study, since)
        for trial in known:
            if trial.ending:
                progress.ended[trial.state] += 1
        progress.ended_before = progress.done
        winner = best_of(known, study)
        if winner:
            progress.best = progress._scored(winner)
        return progress

    def take(self, entry: Entry, trial: Trial) -> None:
        """Count one committed fact about a trial; `trial` holds its measurements already."""
        match entry.fact:
            case Attempt(resumed_from=step):
                self.running[trial.number] = (step, None)
            case Measurement() as measurement:
                last = self.running.get(trial.number, (None, None))[1]
                seen = measurement.metrics.get(self.study.spec.objective.metric, math.nan)
                self.running[trial.number] = (measurement.step, seen if math.isfinite(seen) else last)
            case Ending(state=state):
                self.running.pop(trial.number, None)
                self.ended[state] += 1
                if state is State.COMPLETED:
                    self._compare(trial)

    @property
    def done(self) -> int:
        """How many trials have ended."""
        return sum(self.ended.values())

    def left(self, now: float) -> float | None:
        """The seconds left at the rate of this run so far; None until a trial of it has ended."""
        ended = self.done - self.ended_before
        if not ended:
            return None
        return (self.study.spec.max_trials - self.done) * (now - self.since) / ended

    def _compare(self, trial: Trial) -> None:
        candidate = self._scored(trial)
        objective = self.study.spec.objective
        if candidate and (self.best is None or objective.better(candidate.value, self.best.value)):
            self.best = candidate

    def _scored(self, trial: Trial) -> Best | None:
        outcome = trial.outcome(self.study.spec.objective, self.study.spec.selection)
        return Best(trial.number, outcome[1], outcome[0], trial.params) if outcome else None
