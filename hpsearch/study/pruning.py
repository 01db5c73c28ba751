"""The pruning rules: when a trial is stopped because others, or its own past, are better.

Each rule is a fold over what was recorded (trial number, step, value) and decides at a trial's last
measurement. A measurement without a finite objective is passed over by every rule. The rules that predict
a trial's end are in `curves.py`.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hpsearch.spec.model import Objective, PrunerSpec, PruningRule, Spec
from hpsearch.study.curves import Axis, Clock, Convex, DecayCurve, finite
from hpsearch.study.trial import KEEP, Decision, Measurement, State, Trial

_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


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


def rungs(spec: Spec, limit: int | None = None) -> tuple[int, ...]:
    """The steps min_steps * eta^k below max_steps; without min_steps the first measurement is a rung."""
    first = spec.pruner.min_steps or spec.measure_every
    eta = spec.pruner.reduction_factor
    if first < 1 or eta < 2:
        raise ValueError(f"no rungs from step {first} by a reduction factor of {eta}")
    steps = []
    while first < (spec.max_steps if limit is None else limit):
        steps.append(first)
        first *= eta
    return tuple(steps)


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


class Halving:
    """Prunes a trial that is not among the best of those that reached the same rung before it.

    Asynchronous successive halving (Li et al. 2020, "A System for Massively Parallel Hyperparameter
    Tuning"), the variant that stops instead of pausing. A trial is judged once at each rung, at its first
    measurement at or beyond it, and stays among the best max(1, n // eta) of the n values seen there so
    far, itself included; ties stay. So of the first eta - 1 only the best so far stays (as in Optuna's
    `SuccessiveHalvingPruner`).
    """

    def __init__(self, objective: Objective, rungs: Sequence[int], eta: int, name: str = "") -> None:
        self._objective = objective
        self._rungs = rungs
        self._eta = eta
        self._name = name
        self._seen: list[list[tuple[float, float]]] = [[] for _ in rungs]  # (cost, value), best first
        self._reached: dict[int, int] = {}  # how many rungs a trial has reached
        self._arrival: dict[int, tuple[range, Measurement]] = {}  # rungs reached by the last measurement

    def record(self, trial: Trial, measurement: Measurement) -> None:
        """Note the value at every rung that the trial reaches by it."""
        before = reached = self._reached.get(trial.number, 0)
        value = finite(self._objective, measurement)
        if value is not None:
            reached = max(before, bisect_right(self._rungs, measurement.step))
            for rung in range(before, reached):
                insort(self._seen[rung], (self._objective.cost(value), value))
            self._reached[trial.number] = reached
        self._arrival[trial.number] = (range(before, reached), measurement)

    def ended(self, trial: Trial) -> None:
        """What it left at the rungs stays."""
        self._reached.pop(trial.number, None)
        self._arrival.pop(trial.number, None)

    def decide(self, trial: Trial) -> Decision:
        """Judge the trial at the rungs which its last measurement reached, the lowest first."""
        newly, measurement = self._arrival.get(trial.number, (range(0), None))
        for rung in newly:
            assert measurement is not None
            seen, value = self._seen[rung], measurement.metrics[self._objective.metric]
            places = max(1, len(seen) // self._eta)
            needed = seen[places - 1][1]
            if self._objective.better(needed, value):
                return Decision(
                    True,
                    f"{self._objective.metric} {value:.6g} at step {measurement.step} "
                    f"(rung {self._rungs[rung]}{self._name}) is not among the best {places} of {len(seen)}: "
                    f"{needed:.6g} is needed",
                )
        return KEEP


class Hyperband:
    """Successive halving in brackets, of which bracket b has its first rung at min_steps * eta^b.

    Hedges against curves that cross: the last bracket hardly prunes (Li et al. 2018, "Hyperband", with
    the brackets' proportions as in Algorithm 1: eta^s / (s + 1) with s = last - b).
    """

    def __init__(self, spec: Spec) -> None:
        steps = rungs(spec)
        # A bracket that would start at max_steps itself exists, too: it never prunes.
        count = len(rungs(spec, limit=spec.max_steps + 1))
        eta = spec.pruner.reduction_factor
        self._brackets = [
            Halving(spec.objective, steps[b:], eta, f" of bracket {b}") for b in range(max(count, 1))
        ]
        last = len(self._brackets) - 1
        self._weights = [eta ** (last - b) / (last - b + 1) for b in range(last + 1)]

    def record(self, trial: Trial, measurement: Measurement) -> None:
        """Note it in the trial's bracket."""
        self._brackets[self.bracket(trial.number)].record(trial, measurement)

    def ended(self, trial: Trial) -> None:
        """Note it in the trial's bracket."""
        self._brackets[self.bracket(trial.number)].ended(trial)

    def decide(self, trial: Trial) -> Decision:
        """Compare within the trial's bracket."""
        return self._brackets[self.bracket(trial.number)].decide(trial)

    def bracket(self, number: int) -> int:
        """A trial's bracket: the multiples of the golden ratio mix the brackets evenly from the start."""
        rest = (number * _GOLDEN_RATIO) % 1.0 * sum(self._weights)
        for bracket, weight in enumerate(self._weights):
            rest -= weight
            if rest < 0:
                return bracket
        return len(self._weights) - 1


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
