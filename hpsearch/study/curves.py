"""The rules that look ahead: where a trial's curve will end, by the completed trials or by its own slope.

Both are folds over what was recorded, as those of `pruning.py` are. Sources: Golovin et al. 2017, "Google
Vizier: A Service for Black-Box Optimization", section 3.2.1 (the performance curve stopping rule), and
Vertex AI, `decayCurveStoppingSpec` and `convexAutomatedStoppingSpec`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hpsearch.spec.model import Objective, Selection, Spec
from hpsearch.study.forecast import Points, extrapolate, predict
from hpsearch.study.front import broken
from hpsearch.study.trial import KEEP, Attempt, Decision, Measurement, State, Trial

UNLIKELY = 0.002  # a smaller probability to beat the best is too small: see docs/decisions/0007
FEWEST = 5  # completed trials before DECAY_CURVE predicts from them
NEWEST = 50  # completed trials that are learned from; of 64 on, BLAS waits for cores that trials use
POINTS = 64  # of a curve, beside its last


def finite(objective: Objective, measurement: Measurement) -> float | None:
    """The objective's value in a measurement, None where it is absent or not finite."""
    value = measurement.metrics.get(objective.metric, math.nan)
    return value if math.isfinite(value) else None


@dataclass(slots=True)
class Clock:
    """The seconds that a trial had been running at each of its measurements, asked for in their order.

    An earlier attempt counts from its start to its last measurement, the current one from its start to
    the measurement; an attempt that did not start before the measurement does not count.
    """

    attempt: int = 0  # the index of the current one
    earlier: int = 0  # milliseconds of those before it
    current: int = 0  # milliseconds of the current one up to its last measurement

    def read(self, attempts: Sequence[Attempt], time: int) -> float:
        """The seconds at a measurement of that time (milliseconds); they never decrease."""
        while self.attempt + 1 < len(attempts) and attempts[self.attempt + 1].started < time:
            self.earlier += self.current
            self.current = 0
            self.attempt += 1
        if attempts:
            self.current = max(self.current, time - attempts[self.attempt].started)
        return (self.earlier + self.current) / 1000


@dataclass(frozen=True, slots=True)
class Axis:
    """What curves are drawn over: steps, or the seconds of running."""

    seconds: bool = False

    def place(self, clock: Clock, trial: Trial, measurement: Measurement) -> float:
        """Where a measurement lies."""
        return clock.read(trial.attempts, measurement.time) if self.seconds else measurement.step

    def say(self, place: float) -> str:
        """A place in words."""
        return f"{place:.1f} s" if self.seconds else f"step {place:.0f}"


@dataclass(slots=True)
class Curve:
    """What a trial would have ended with at each place, as a cost: lower is better.

    Thinned evenly to at most POINTS and the last one. `best` and `worst` are those of all measurements.
    """

    clock: Clock = field(default_factory=Clock)
    current: bool = False  # whether the last measurement had a value
    measured: int = 0  # values
    place: float = -math.inf  # of the last value
    cost: float = math.nan
    best: float = math.inf
    worst: float = -math.inf
    _places: list[float] = field(default_factory=list)
    _costs: list[float] = field(default_factory=list)
    _stride: int = 1

    def add(self, place: float, cost: float, selection: Selection) -> None:
        """Append what was measured at a place, not before the last one."""
        self.best, self.worst = min(self.best, cost), max(self.worst, cost)
        self.place, self.cost = place, self.best if selection is Selection.BEST else cost
        if self.measured % self._stride == 0:
            self._places.append(self.place)
            self._costs.append(self.cost)
        self.measured += 1
        if len(self._places) > POINTS:
            del self._places[1::2], self._costs[1::2]
            self._stride *= 2

    def points(self) -> Points:
        """The places and the costs there, the last ones included."""
        thinned = (self.measured - 1) % self._stride != 0
        places = [*self._places, self.place] if thinned else self._places
        costs = [*self._costs, self.cost] if thinned else self._costs
        return np.array(places, dtype=float), np.array(costs, dtype=float)


class Curves:
    """The curves of a study's running trials and of its newest completed ones, and how far these came."""

    def __init__(self, spec: Spec) -> None:
        self.objective = spec.objective
        self.axis = Axis(spec.pruner.use_elapsed)
        self.count = 0  # completed trials, also those whose curves were dropped
        self.best = math.inf  # the lowest final cost of a completed trial that is safe
        self.end = -math.inf  # the farthest place that a completed trial came to
        self._spec = spec
        self._running: dict[int, Curve] = {}
        self._completed: dict[int, Points] = {}

    def record(self, trial: Trial, measurement: Measurement) -> None:
        """Extend the trial's curve."""
        curve = self._running.setdefault(trial.number, Curve())
        place = self.axis.place(curve.clock, trial, measurement)
        value = finite(self.objective, measurement)
        curve.current = value is not None
        if value is not None:
            curve.add(place, self.objective.cost(value), self._spec.selection)

    def ended(self, trial: Trial) -> None:
        """Keep the curve of a completed trial; the newest are those with the highest numbers."""
        curve = self._running.pop(trial.number, None)
        if curve is None or not curve.measured or trial.state is not State.COMPLETED:
            return
        self._completed[trial.number] = curve.points()
        if len(self._completed) > NEWEST:
            del self._completed[min(self._completed)]
        self.count += 1
        if not broken(trial, self._spec):
            self.best = min(self.best, curve.cost)
        self.end = max(self.end, curve.place)

    def news(self, trial: Trial) -> Curve | None:
        """The trial's curve, None where its last measurement had no value."""
        curve = self._running.get(trial.number)
        return curve if curve and curve.current else None

    def completed(self) -> list[Points]:
        """The curves of the newest completed trials, in the order of their numbers."""
        return [self._completed[number] for number in sorted(self._completed)]

    def say(self, cost: float) -> str:
        """A cost in words: as the objective's value."""
        return f"{self.objective.cost(cost):.6g}"  # turned around twice, it is the value again

    def now(self, curve: Curve) -> str:
        """What was measured last, and where."""
        return f"{self.objective.metric} {self.say(curve.cost)} at {self.axis.say(curve.place)}"

    def goal(self) -> str:
        """What is to be beaten."""
        best = "the best safe one" if self._spec.constraints else "the best"
        return f"{self.say(self.best)}, {best} of {self.count} completed trials"


class DecayCurve:
    """Prunes a trial whose predicted end beats the best completed trial with a probability below UNLIKELY.

    A Gaussian process predicts it from the curves of the completed trials and this one's so far
    (`forecast.predict`). Only once FEWEST trials have completed, not before `min_steps`, and not where no
    completed trial came to.
    """

    def __init__(self, spec: Spec) -> None:
        self._curves = Curves(spec)
        self._rule = spec.pruner

    def record(self, trial: Trial, measurement: Measurement) -> None:
        """Extend the trial's curve."""
        self._curves.record(trial, measurement)

    def ended(self, trial: Trial) -> None:
        """Only completed trials are learned from."""
        self._curves.ended(trial)

    def decide(self, trial: Trial) -> Decision:
        """Predict the trial's end and compare it with the best."""
        known, curve = self._curves, self._curves.news(trial)
        if curve is None or known.count < FEWEST or known.best == math.inf:
            return KEEP
        if not self._rule.min_steps <= curve.place < known.end:
            return KEEP
        forecast = predict(curve.points(), known.completed(), known.best)
        if forecast is None or forecast.chance >= UNLIKELY:
            return KEEP
        chance = f"{100 * forecast.chance:.2g}" if forecast.chance >= 1e-4 else "less than 0.01"
        return Decision(
            True,
            f"{known.now(curve)} is predicted to end at {known.say(forecast.cost)} +- "
            f"{forecast.deviation:.2g}, with a probability of {chance} % to beat {known.goal()}",
        )


class Convex:
    """Prunes a trial whose slope does not take it to the best completed trial by the final step.

    A curve that bends as learning curves do gains ever less, so its slope overestimates where it will be at
    `final_step` (None: where the longest completed trial ended). Only once more than `min_measurements`
    trials have completed and this one has as many measurements, not up to `min_steps` (where neither is
    given, a tenth of the final step), and not while the curve is completely flat. What an autoregressive
    model expects is told in the reason, never recorded.
    """

    def __init__(self, spec: Spec) -> None:
        self._curves = Curves(spec)
        self._rule = spec.pruner

    def record(self, trial: Trial, measurement: Measurement) -> None:
        """Extend the trial's curve."""
        self._curves.record(trial, measurement)

    def ended(self, trial: Trial) -> None:
        """Only completed trials are compared with."""
        self._curves.ended(trial)

    def decide(self, trial: Trial) -> Decision:
        """Compare the overestimate at the final step with the best."""
        known, curve, few = self._curves, self._curves.news(trial), self._rule.min_measurements
        if curve is None or known.count <= few or curve.measured < few or curve.best == curve.worst:
            return KEEP
        end = self._rule.final_step or known.end
        first = self._rule.min_steps if self._rule.min_steps or self._rule.final_step else end / 10
        if not first < curve.place < end:
            return KEEP
        least, expected = extrapolate(curve.points(), curve.best, end)
        if not known.best < least < math.inf:
            return KEEP
        return Decision(
            True,
            f"{known.now(curve)} can by its slope be no better than {known.say(least)} at "
            f"{known.axis.say(end)} ({known.say(expected)} by autoregression), worse than {known.goal()}",
        )
