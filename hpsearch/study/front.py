"""Which trials are best: the one that a study is asked for, and the front where objectives conflict."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter

from hpsearch.spec.model import Constraint, Spec
from hpsearch.study.trial import Measurement, State, Study, Trial


def best_of(trials: Iterable[Trial], study: Study) -> Trial | None:
    """The safe completed trial with the best first objective, on the front; the earlier one of equals.

    None if there is no such trial.
    """
    scored = [(found, trial.number, trial) for found, trial in _scored(trials, study.spec)]
    return min(scored)[2] if scored else None


def front_of(trials: Iterable[Trial], study: Study) -> list[Trial]:
    """The Pareto front of the safe completed trials, in order of their numbers.

    A trial is on it unless another is no worse in any objective and better in one; equals are on it together.
    """
    scored = _scored(trials, study.spec)
    # Sets of points are the bits of integers, so that 10,000 trials take a tenth of a second.
    bits = {found: 1 << place for place, found in enumerate({found for found, _ in scored})}
    no_worse = dict.fromkeys(bits, -1)
    for axis in range(len(study.spec.objectives)):
        so_far, cost = 0, itemgetter(axis)
        for _, group in groupby(sorted(bits, key=cost), cost):
            equals = list(group)
            so_far |= sum(bits[found] for found in equals)
            for found in equals:
                no_worse[found] &= so_far
    front = [trial for found, trial in scored if no_worse[found] == bits[found]]
    return sorted(front, key=lambda trial: trial.number)


def costs(trial: Trial, spec: Spec) -> tuple[float, ...] | None:
    """A trial's costs, one for each objective, lower being better; None unless it is completed and safe.

    Trials are compared by them first objective first; of equals the one with the lower number is better.
    """
    outcomes = trial.outcomes(spec) if trial.state is State.COMPLETED else None
    if outcomes is None or broken(trial, spec):
        return None
    return tuple(objective.cost(value) for objective, value in zip(spec.objectives, outcomes, strict=True))


def broken(trial: Trial, spec: Spec) -> list[Constraint]:
    """The constraints that a trial does not keep at its end; one that was never measured is not kept."""
    last = {each: trial.values(each.objective.metric)[-1:] for each in spec.constraints}
    return [each for each, found in last.items() if not found or each.violation(found[0][1]) > 0]


def what_counts(trial: Trial, spec: Spec) -> list[Measurement]:
    """Of an ended trial's measurements those by which it is compared, and the last one, in order of steps.

    A study of many trials need not hold more of those that have ended: the store does.
    """
    judged = {each.metric for each in spec.objectives} | {each.objective.metric for each in spec.constraints}
    steps = {trial.step}
    for objective in spec.objectives:
        if found := trial.outcome(objective, spec.selection):
            steps.add(found[0])
    for constraint in spec.constraints:
        steps |= {step for step, _ in trial.values(constraint.objective.metric)[-1:]}
    return [
        Measurement(m.step, {name: value for name, value in m.metrics.items() if name in judged}, m.time)
        for m in trial.measurements
        if m.step in steps
    ]


def _scored(trials: Iterable[Trial], spec: Spec) -> list[tuple[tuple[float, ...], Trial]]:
    return [(found, trial) for trial in trials if (found := costs(trial, spec))]
