"""The pruning rules: when a trial is stopped because others, or its own past, are better.

Each rule is a fold over what was recorded (trial number, step, value) and decides at a trial's last
measurement. A measurement without a finite objective is passed over by every rule. The rules that predict
a trial's end are in `curves.py`, those that compare at rungs in `halving.py`.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Protocol

from hpsearch.spec.model import Objective, PrunerSpec, PruningRule, Spec
from hpsearch.study.curves import Axis, Clock, Convex, DecayCurve, finite
from hpsearch.study.halving import Halving, Hyperband, rungs
from hpsearch.study.trial import KEEP, Decision, Measurement, State, Trial


class Pruner(Protocol):
    """A rule: it is shown every measurement in order, then asked about the trial just measured."""

    def record(self, trial: Trial, measurement: Measurement) -> None:
        """Take note of a measurement; called alone when a study is folded again from its store."""

    def ended(self, trial: Trial) -> None:
        """Take note of a trial's ending."""

    def decide(self, trial: Trial) -> Decision:
        """Whether to prune the trial at the measurement recorded last for it."""


def make_pruner(spec: Spec) -> Pruner:
    """The rule that a Spec asks for; ValueError where rungs cannot be built."""
    rule = spec.pruner
    match rule.type:
        case PruningRule.MEDIAN:
            return Median(spec.objective, rule)
        case PruningRule.ASHA:
            return Halving(spec.objective, rungs(spec), rule.reduction_factor)
        case PruningRule.HYPERBAND:
            return Hyperband(spec)
        case PruningRule.PATIENCE:
            return Patience(spec.objective, rule)
        case PruningRule.THRESHOLD:
            return Threshold(spec.objective, rule)
        case PruningRule.DECAY_CURVE:
            return DecayCurve(spec)
        case PruningRule.CONVEX:
            return Convex(spec)
        case PruningRule.NONE:
            return Never()


class Never:
    """Prunes nothing."""

    def record(self, trial: Trial, measurement: Measurement) -> None:
        """Nothing to remember."""

    def ended(self, trial: Trial) -> None:
        """Nothing to remember."""

    def decide(self, trial: Trial) -> Decision:
        """Always to keep."""
        return KEEP


@dataclass(slots=True)
class _Averages:
    """One trial's finite values: their places, and sums[i] of the first i+1 of them."""

    clock: Clock = field(default_factory=Clock)
    places: list[float] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)
    best: float = math.nan
    current: bool = False  # whether the last measurement had a value

    def average(self, place: float) -> float | None:
        """The mean of the values up to a place, None where there is none."""
        count = bisect_right(self.places, place)
        return self.sums[count - 1] / count if count else None


class Median:
    """Prunes a trial whose best is strictly worse than the median of the completed trials' averages.

    At step s: the running average of every completed trial up to s (those without a value are skipped),
    their median, and this trial's best value up to s. Only once `min_trials` have completed, and not
    before `min_steps`. With `use_elapsed`, seconds of running take the place of steps. Source: Vertex AI,
    `medianAutomatedStoppingSpec`.
    """

    def __init__(self, objective: Objective, rule: PrunerSpec) -> None:
        self._objective = objective
        self._axis = Axis(rule.use_elapsed)
        self._min_place = rule.min_steps
        self._min_trials = max(rule.min_trials, 1)
        self._running: dict[int, _Averages] = {}
        self._completed: list[_Averages] = []
        self._medians: dict[float, tuple[float, int] | None] = {}

    def record(self, trial: Trial, measurement: Measurement) -> None:
        """Extend the trial's averages."""
        averages = self._running.setdefault(trial.number, _Averages())
        place = self._axis.place(averages.clock, trial, measurement)
        value = finite(self._objective, measurement)
        averages.current = value is not None
        if value is None:
            return
        averages.places.append(place)
        averages.sums.append(value + (averages.sums[-1] if averages.sums else 0.0))
        if math.isnan(averages.best) or self._objective.better(value, averages.best):
            averages.best = value

    def ended(self, trial: Trial) -> None:
        """Only completed trials are compared with."""
        averages = self._running.pop(trial.number, None)
        if averages and averages.places and trial.state is State.COMPLETED:
            self._completed.append(averages)
            self._medians.clear()

    def decide(self, trial: Trial) -> Decision:
        """Compare the trial's best with the median at its last measurement."""
        mine = self._running.get(trial.number)
        if mine is None or not mine.current or len(self._completed) < self._min_trials:
            return KEEP
        place = mine.places[-1]
        median = self._median(place) if place >= self._min_place else None
        if median is None or not self._objective.better(median[0], mine.best):
            return KEEP
        return Decision(
            True,
            f"{self._objective.metric} {mine.best:.6g}, its best up to {self._axis.say(place)}, is worse "
            f"than the median {median[0]:.6g} of {median[1]} completed trials",
        )

    def _median(self, place: float) -> tuple[float, int] | None:
        """The median of the averages up to a place and their number; by step kept until a trial completes."""
        if place in self._medians:
            return self._medians[place]
        averages = [average for c in self._completed if (average := c.average(place)) is not None]
        median = (statistics.median(averages), len(averages)) if averages else None
        if not self._axis.seconds:  # no two measurements lie at the same second
            self._medians[place] = median
        return median


@dataclass(slots=True)
class _Patience:
    """One trial's best value, how many measurements ago it was, and the step of the last one."""

    best: float
    waited: int
    step: int
    current: bool = True  # whether the last measurement had a value


class Patience:
    """Prunes a trial that has not improved its best by more than `min_delta` for `patience` measurements.

    The best moves only by such improvements, so that many small ones add up (as in Keras'
    `EarlyStopping`). Not before `min_steps`.
    """

    def __init__(self, objective: Objective, rule: PrunerSpec) -> None:
        self._objective = objective
        self._rule = rule
        self._trials: dict[int, _Patience] = {}

    def record(self, trial: Trial, measurement: Measurement) -> None:
        """Count the measurement, or start again from an improvement."""
        value = finite(self._objective, measurement)
        cost, past = self._objective.cost, self._trials.get(trial.number)
        if past:
            past.current = value is not None
        if value is None:
            return
        if past is None or cost(past.best) - cost(value) > self._rule.min_delta:
            self._trials[trial.number] = _Patience(value, 0, measurement.step)
        else:
            past.waited += 1
            past.step = measurement.step

    def ended(self, trial: Trial) -> None:
        """Its past matters to nobody else."""
        self._trials.pop(trial.number, None)

    def decide(self, trial: Trial) -> Decision:
        """Prune where patience has run out."""
        past = self._trials.get(trial.number)
        if past is None or not past.current or past.waited < self._rule.patience:
            return KEEP
        if past.step < self._rule.min_steps:
            return KEEP
        return Decision(
            True,
            f"{self._objective.metric} has not improved on {past.best:.6g} by more than "
            f"{self._rule.min_delta:g} for {past.waited} measurements up to step {past.step}",
        )


class Threshold:
    """Prunes a trial whose value is below `lower` or above `upper`, not before `min_steps`."""

    def __init__(self, objective: Objective, rule: PrunerSpec) -> None:
        self._objective = objective
        self._rule = rule
        self._last: dict[int, Measurement] = {}

    def record(self, trial: Trial, measurement: Measurement) -> None:
        """Only the last measurement counts."""
        self._last[trial.number] = measurement

    def ended(self, trial: Trial) -> None:
        """Its past matters to nobody else."""
        self._last.pop(trial.number, None)

    def decide(self, trial: Trial) -> Decision:
        """Compare the last value with the two bounds."""
        last = self._last.get(trial.number)
        value = finite(self._objective, last) if last else None
        if last is None or value is None or last.step < self._rule.min_steps:
            return KEEP
        said = f"{self._objective.metric} {value:.6g} at step {last.step}"
        if self._rule.lower is not None and value < self._rule.lower:
            return Decision(True, f"{said} is below the lower bound {self._rule.lower:.6g}")
        if self._rule.upper is not None and value > self._rule.upper:
            return Decision(True, f"{said} is above the upper bound {self._rule.upper:.6g}")
        return KEEP
