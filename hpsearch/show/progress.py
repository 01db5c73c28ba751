"""How far a running study is, grown from committed facts alone; times are seconds on any one clock."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import le

from hpsearch.study.front import costs, front_of
from hpsearch.study.trial import Attempt, Ending, Entry, Measurement, State, Study, Trial


@dataclass(slots=True)
class Progress:
    """Counts, the best trials and the running ones.

    `front`: the best completed trial so far; with several objectives the whole Pareto front, the best of
    the first objective first, the earlier one of equals.
    `running`: by number the last step, and the last finite value of each objective by metric.
    """

    study: Study
    since: float
    ended: dict[State, int] = field(default_factory=lambda: dict.fromkeys(State, 0))
    ended_before: int = 0
    front: list[Trial] = field(default_factory=list)
    running: dict[int, tuple[int | None, dict[str, float]]] = field(default_factory=dict)
    # Of the front, by number: measurements are many, and those of an ended trial do not change.
    _costs: dict[int, tuple[float, ...]] = field(default_factory=dict)

    @classmethod
    def start(cls, study: Study, trials: Iterable[Trial], since: float) -> Progress:
        """The progress of a study that starts or goes on now, with the trials that it has already."""
        known = list(trials)
        progress = cls(study, since)
        for trial in known:
            if trial.ending:
                progress.ended[trial.state] += 1
        progress.ended_before = progress.done
        front = front_of(known, study)
        progress._costs = {one.number: found for one in front if (found := costs(one, study.spec))}
        progress._arrange(front)
        return progress

    def take(self, entry: Entry, trial: Trial) -> None:
        """Count one committed fact about a trial; `trial` holds its measurements already."""
        match entry.fact:
            case Attempt(resumed_from=step):
                self.running[trial.number] = (step, {})
            case Measurement(step=step, metrics=metrics):
                last = self.running.get(trial.number, (None, {}))[1]
                seen = {o.metric: metrics.get(o.metric, math.nan) for o in self.study.spec.objectives}
                finite = {metric: value for metric, value in seen.items() if math.isfinite(value)}
                self.running[trial.number] = (step, last | finite)
            case Ending(state=state):
                self.running.pop(trial.number, None)
                self.ended[state] += 1
                if state is State.COMPLETED:
                    self._lead(trial)

    def leads(self, trial: Trial) -> bool:
        """Whether a trial is on the front."""
        return trial.number in self._costs

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

    def _lead(self, trial: Trial) -> None:
        """Put a trial on the front if it belongs there; what was beaten once never comes back."""
        mine = costs(trial, self.study.spec)
        if mine is None or any(_beats(theirs, mine) for theirs in self._costs.values()):
            return
        self._costs = {number: one for number, one in self._costs.items() if not _beats(mine, one)}
        self._costs[trial.number] = mine
        self._arrange([one for one in (*self.front, trial) if self.leads(one)])

    def _arrange(self, front: list[Trial]) -> None:
        """Put the front in order; of equals in a single objective the earlier one is the best."""
        front = sorted(front, key=lambda one: (self._costs[one.number][0], one.number))
        self.front = front if len(self.study.spec.objectives) > 1 else front[:1]
        self._costs = {one.number: self._costs[one.number] for one in self.front}


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether costs are nowhere higher than others, and somewhere lower."""
    return one != other and all(map(le, one, other))
