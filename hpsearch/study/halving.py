"""The rules that compare at rungs: asynchronous successive halving, and Hyperband's brackets of it."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Sequence

from hpsearch.spec.model import Objective, Spec
from hpsearch.study.curves import finite
from hpsearch.study.trial import KEEP, Decision, Measurement, Trial

_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


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
