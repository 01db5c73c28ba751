"""The pruning rules: each test is the definition of a rule, by numbers that can be checked by hand."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpsearch.spec.model import Goal, Objective, PrunerSpec, PruningRule, SearchSpace, Spec
from hpsearch.study.pruning import Hyperband, Pruner, make_pruner, rungs
from hpsearch.study.trial import Decision, Ending, Measurement, State, Trial

CURVES = Path(__file__).parents[2] / ".." / "shared" / "curves" / "lcbench_surrogate.npz"
MIN, MAX = Goal.MINIMIZE, Goal.MAXIMIZE


def spec(rule: PruningRule, goal: Goal = MIN, steps: tuple[int, int] = (1000, 100), **settings: Any) -> Spec:
    return Spec(
        source="x.yaml",
        text="",
        sha256="",
        dialect="hpsearch",
        module="trainer",
        args=(),
        space=SearchSpace(()),
        objectives=(Objective("val_rmse", goal),),
        max_steps=steps[0],
        measure_every=steps[1],
        pruner=PrunerSpec(rule, **settings),
    )


class Told:
    """A pruner with its trials: `measure` records and decides, as the search does."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.pruner: Pruner = make_pruner(spec)
        self.trials: dict[int, Trial] = {}
        self.log: list[tuple[int, Measurement | State]] = []

    def measure(self, number: int, step: int, value: float, metric: str = "val_rmse") -> Decision:
        trial = self.record(number, Measurement(step, {metric: value, "other": 0.0}))
        return self.pruner.decide(trial)

    def record(self, number: int, measurement: Measurement) -> Trial:
        trial = self.trials.setdefault(number, Trial(number, f"t{number}", {}, 0))
        trial.measurements.append(measurement)
        self.log.append((number, measurement))
        self.pruner.record(trial, measurement)
        return trial

    def end(self, number: int, state: State = State.COMPLETED) -> None:
        self.trials[number].ending = Ending(state, "so")
        self.log.append((number, state))
        self.pruner.ended(self.trials[number])

    def curve(self, number: int, *values: float, state: State = State.COMPLETED) -> None:
        """A trial measured at steps 100, 200, ... up to its end, whatever the rule says."""
        for index, value in enumerate(values, 1):
            self.measure(number, 100 * index, value)
        self.end(number, state)

    def folded_again(self) -> Told:
        """The same facts, trial by trial and without a single decision, in a fresh pruner."""
        again = Told(self.spec)
        for number in self.trials:
            for fact in (fact for n, fact in self.log if n == number):
                if isinstance(fact, State):
                    again.end(number, fact)
                else:
                    again.record(number, fact)
        return again


# -- median --------------------------------------------------------------------------------------------


def five_completed(told: Told, sign: float = 1.0) -> Told:
    # The running averages up to step 200 are 2, 3, 4, 5, 6; up to step 300 they are 3, 3, 3, 5, 6.
    for number, values in enumerate([(1, 3, 5), (2, 4, 3), (4, 4, 1), (5, 5, 5), (6, 6, 6)]):
        told.curve(number, *(sign * value for value in values))
    return told


@pytest.mark.parametrize(("goal", "sign"), [(MIN, 1.0), (MAX, -1.0)])
def test_median_prunes_a_best_that_is_worse_than_the_median_of_the_running_averages(
    goal: Goal, sign: float
) -> None:
    told = five_completed(Told(spec(PruningRule.MEDIAN, goal)), sign)
    assert not told.measure(9, 100, sign * 4).prune  # the averages up to step 100 are 1, 2, 4, 5, 6
    decision = told.measure(8, 200, sign * 4.5)
    assert decision.prune
    number = f"{sign * 4.5:g}"
    assert decision.reason == (
        f"val_rmse {number}, its best up to step 200, is worse than "
        f"the median {sign * 4:g} of 5 completed trials"
    )
    assert not told.measure(7, 200, sign * 4).prune  # as good as the median is not worse


def test_median_looks_at_the_best_so_far_and_not_at_the_last_value() -> None:
    told = five_completed(Told(spec(PruningRule.MEDIAN)))
    assert not told.measure(9, 100, 2.5).prune
    assert not told.measure(9, 200, 50.0).prune
    assert not told.measure(9, 300, 50.0).prune  # the median of the averages up to step 300 is 3
    assert told.measure(8, 300, 3.5).prune


def test_median_waits_for_enough_completed_trials_and_counts_no_others() -> None:
    told = Told(spec(PruningRule.MEDIAN, min_trials=3))
    told.curve(0, 1.0)
    told.curve(1, 1.0)
    for number, state in enumerate([State.PRUNED, State.FAILED, State.INFEASIBLE], 2):
        told.curve(number, 1.0, state=state)
    assert not told.measure(8, 100, 9.0).prune
    told.curve(5, 2.0)
    assert told.measure(8, 200, 9.0).reason.endswith("the median 1 of 3 completed trials")


def test_median_passes_over_completed_trials_without_a_value_up_to_the_step() -> None:
    told = Told(spec(PruningRule.MEDIAN, min_trials=3))
    for number, (step, value) in enumerate([(100, 1.0), (300, 9.0), (300, 9.0)]):
        told.measure(number, step, value)
        told.end(number)
    assert told.measure(8, 100, 2.0).reason.endswith("the median 1 of 1 completed trials")
    assert not told.measure(8, 300, 2.0).prune
    assert not told.measure(9, 50, 99.0).prune  # nothing to compare with yet


def test_median_prunes_nothing_before_its_first_step() -> None:
    told = five_completed(Told(spec(PruningRule.MEDIAN, min_steps=200)))
    assert not told.measure(9, 100, 99.0).prune
    assert told.measure(9, 200, 99.0).prune


def test_median_takes_a_newly_completed_trial_into_account_at_once() -> None:
    told = Told(spec(PruningRule.MEDIAN, min_trials=1))
    told.curve(0, 5.0)
    assert not told.measure(8, 100, 4.0).prune
    told.curve(1, 1.0)
    assert told.measure(9, 100, 4.0).prune  # the median is now 3


def test_median_decides_quickly_among_ten_thousand_completed_trials() -> None:
    told = Told(spec(PruningRule.MEDIAN))
    trials = [Trial(number, "t", {}, 0) for number in range(10_000)]
    for trial in trials:
        for step in range(1, 21):
            told.pruner.record(trial, Measurement(step, {"val_rmse": trial.number / step}))
        trial.ending = Ending(State.COMPLETED, "so")
        told.pruner.ended(trial)
    taken = []
    for step in range(1, 21):
        started = time.perf_counter()
        told.measure(20_000, step, 0.0)
        taken.append(time.perf_counter() - started)
    assert statistics.median(taken) < 0.02  # about 2 ms; no step has been seen before


# -- asynchronous successive halving -------------------------------------------------------------------


def test_the_rungs_are_powers_of_eta_times_the_first_below_the_last_step() -> None:
    assert rungs(spec(PruningRule.ASHA, min_steps=50)) == (50, 150, 450)
    assert rungs(spec(PruningRule.ASHA, min_steps=250, reduction_factor=2)) == (250, 500)
    assert rungs(spec(PruningRule.ASHA)) == (100, 300, 900)  # the first measurement is the first rung
    assert rungs(spec(PruningRule.ASHA, min_steps=1000)) == ()
    with pytest.raises(ValueError, match="reduction factor of 1"):
        make_pruner(spec(PruningRule.ASHA, reduction_factor=1))


@pytest.mark.parametrize(("goal", "sign"), [(MIN, 1.0), (MAX, -1.0)])
def test_asha_keeps_the_best_third_of_those_that_reached_the_rung_so_far(goal: Goal, sign: float) -> None:
    told = Told(spec(PruningRule.ASHA, goal))
    kept = [not told.measure(n, 100, sign * v).prune for n, v in enumerate([5, 6, 4, 4.5, 3, 3.5, 7, 3.4])]
    #        n // 3, at least 1:                                            1  1  1  1    1  2    2  2
    assert kept == [True, False, True, False, True, True, False, True]
    decision = told.measure(8, 100, sign * 5.21)
    assert decision.prune
    assert decision.reason == (
        f"val_rmse {sign * 5.21:g} at step 100 (rung 100) is not among the best 3 of 9: "
        f"{sign * 3.5:g} is needed"
    )


def test_asha_keeps_ties() -> None:
    told = Told(spec(PruningRule.ASHA))
    assert not any(told.measure(number, 100, 2.0).prune for number in range(7))


def test_asha_judges_a_trial_once_at_each_rung_at_the_first_measurement_at_or_beyond_it() -> None:
    told = Told(spec(PruningRule.ASHA, min_steps=150))  # rungs 150 and 450
    assert not told.measure(0, 200, 3.0).prune
    assert not told.measure(1, 100, 9.0).prune  # no rung yet
    assert not told.measure(1, 160, 2.0).prune  # better than what 0 had at its first beyond 150
    assert not told.measure(1, 300, 9.0).prune  # judged already
    assert not told.measure(0, 450, 3.0).prune
    assert told.measure(1, 500, 4.0).reason.startswith("val_rmse 4 at step 500 (rung 450) is not")


def test_asha_judges_a_measurement_that_passes_several_rungs_at_all_of_them() -> None:
    told = Told(spec(PruningRule.ASHA))  # rungs 100, 300, 900
    told.measure(0, 100, 1.0)
    assert not told.measure(1, 50, 2.0).prune
    assert told.measure(1, 400, 2.0).reason.endswith("(rung 100) is not among the best 1 of 2: 1 is needed")
    assert told.measure(0, 300, 2.5).reason.endswith("(rung 300) is not among the best 1 of 2: 2 is needed")


def test_asha_does_not_depend_on_the_order_in_which_a_rung_was_reached() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    for order in (range(5), reversed(range(5))):
        told = Told(spec(PruningRule.ASHA))
        for number in order:
            told.measure(number, 100, values[number])
        assert not told.measure(5, 100, 2.0).prune  # 2 of 6 stay, and it ties with the second
        assert told.measure(6, 100, 2.5).prune


# -- hyperband -----------------------------------------------------------------------------------------


def test_a_hyperband_bracket_starts_at_a_later_rung_and_compares_within_itself() -> None:
    told = Told(spec(PruningRule.HYPERBAND, steps=(900, 100)))  # brackets from 100, from 300, and none
    pruner = told.pruner
    assert isinstance(pruner, Hyperband)
    members = {b: [n for n in range(60) if pruner.bracket(n) == b] for b in range(3)}
    for number in members[0][:2] + members[2][:2]:
        told.measure(number, 100, 1.0)
    early, middle, late = (members[b][2] for b in range(3))
    assert told.measure(early, 100, 2.0).reason == (
        "val_rmse 2 at step 100 (rung 100 of bracket 0) is not among the best 1 of 3: 1 is needed"
    )
    assert not told.measure(middle, 100, 2.0).prune
    assert not told.measure(middle, 300, 2.0).prune  # the first of its bracket
    assert told.measure(members[1][3], 300, 3.0).reason.endswith(
        "(rung 300 of bracket 1) is not among the best 1 of 2: 2 is needed"
    )
    assert not any(told.measure(late, step, 99.0).prune for step in (100, 300, 900))


def test_hyperband_mixes_its_brackets_in_their_proportions_from_the_start() -> None:
    pruner = make_pruner(spec(PruningRule.HYPERBAND, steps=(900, 100)))
    assert isinstance(pruner, Hyperband)
    # 9 / 3, 3 / 2 and 1 / 1 of 5.5 are 54.5 %, 27.3 % and 18.2 %.
    for many in (22, 110, 1100):
        found = Counter(pruner.bracket(number) for number in range(many))
        assert [found[b] for b in range(3)] == pytest.approx([many * w / 5.5 for w in (3, 1.5, 1)], abs=2)


def test_hyperband_has_brackets_while_they_can_start_before_the_end() -> None:
    for last, brackets in ((99, 1), (100, 1), (299, 1), (300, 2), (899, 2), (900, 3), (1000, 3)):
        pruner = make_pruner(spec(PruningRule.HYPERBAND, steps=(last, 100)))
        assert isinstance(pruner, Hyperband)
        assert {pruner.bracket(number) for number in range(100)} == set(range(brackets))


# -- patience and threshold ----------------------------------------------------------------------------


@pytest.mark.parametrize(("goal", "sign"), [(MIN, 1.0), (MAX, -1.0)])
def test_patience_runs_out_after_so_many_measurements_without_enough_improvement(
    goal: Goal, sign: float
) -> None:
    told = Told(spec(PruningRule.PATIENCE, goal, patience=3, min_delta=0.5))
    values = [5.0, 4.0, 3.75, 3.5, 3.25, 4.0, 4.0, 3.0, 2.9]
    #              best  1     2    best  1    2    3
    pruned = [told.measure(0, s, sign * v).prune for s, v in enumerate(values, 1)]
    assert pruned == [False] * 7 + [True] * 2
    assert told.measure(0, 10, sign * 3.0).reason == (
        f"val_rmse has not improved on {sign * 3.25:g} by more than 0.5 for 5 measurements up to step 10"
    )


def test_patience_lets_no_trial_go_before_its_first_step() -> None:
    told = Told(spec(PruningRule.PATIENCE, patience=1, min_steps=4))
    assert [told.measure(0, step, 1.0).prune for step in range(1, 6)] == [False] * 3 + [True] * 2


@pytest.mark.parametrize("goal", [MIN, MAX])
def test_threshold_prunes_what_is_outside_of_its_bounds_whichever_way_is_better(goal: Goal) -> None:
    told = Told(spec(PruningRule.THRESHOLD, goal, lower=-1.0, upper=2.0, min_steps=10))
    assert not told.measure(0, 9, 99.0).prune
    assert not told.measure(0, 10, -1.0).prune
    assert not told.measure(0, 11, 2.0).prune
    assert told.measure(0, 12, 2.5).reason == "val_rmse 2.5 at step 12 is above the upper bound 2"
    assert told.measure(1, 12, -1.5).reason == "val_rmse -1.5 at step 12 is below the lower bound -1"


def test_threshold_may_have_one_bound_only() -> None:
    assert not Told(spec(PruningRule.THRESHOLD, upper=0.0)).measure(0, 1, -1e9).prune
    assert not Told(spec(PruningRule.THRESHOLD, lower=0.0)).measure(0, 1, 1e9).prune


# -- all of them ---------------------------------------------------------------------------------------

RULES: dict[PruningRule, Callable[[], Spec]] = {
    PruningRule.MEDIAN: lambda: spec(PruningRule.MEDIAN, min_trials=2),
    PruningRule.ASHA: lambda: spec(PruningRule.ASHA),
    PruningRule.HYPERBAND: lambda: spec(PruningRule.HYPERBAND),
    PruningRule.PATIENCE: lambda: spec(PruningRule.PATIENCE, patience=2),
    PruningRule.THRESHOLD: lambda: spec(PruningRule.THRESHOLD, lower=0.2, upper=0.9),
    PruningRule.NONE: lambda: spec(PruningRule.NONE),
}


def test_without_a_rule_nothing_is_pruned() -> None:
    told = five_completed(Told(spec(PruningRule.NONE)))
    assert told.measure(9, 100, 1e300) == Decision(False)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_decides_nothing_and_changes_nothing(
    rule: PruningRule, value: float
) -> None:
    plain, disturbed = Told(RULES[rule]()), Told(RULES[rule]())
    for told in (plain, disturbed):
        told.curve(0, 0.5, 0.4, 0.3)
        told.curve(1, 0.6, 0.5, 0.4)
    assert not disturbed.measure(2, 50, value).prune
    assert not disturbed.measure(3, 100, value).prune
    assert not disturbed.measure(3, 150, 0.0, metric="unknown").prune
    for number, step, seen in [(2, 100, 0.55), (2, 200, 0.6), (4, 100, 0.45), (2, 300, 0.95), (2, 400, 0.97)]:
        assert disturbed.measure(number, step, seen) == plain.measure(number, step, seen)
        assert not disturbed.measure(number, step + 50, value).prune


def random_events(told: Told, seed: int, many: int) -> Iterator[tuple[int, Decision]]:
    """Three trials at a time with random curves, ended when pruned, after 1,000 steps, or by chance."""
    draws = np.random.default_rng(seed)
    for _ in range(many):
        running = [n for n, t in told.trials.items() if t.ending is None]
        number = int(draws.choice(running)) if len(running) == 3 else len(told.trials)
        step = ((told.trials[number].step or 0) if number in told.trials else 0) + 100
        decision = told.measure(number, step, round(float(draws.uniform(0, 1)), 2))
        yield number, decision
        if decision.prune or step == 1000 or draws.uniform() < 0.05:
            done = State.COMPLETED if step == 1000 else State.FAILED
            told.end(number, State.PRUNED if decision.prune else done)


@pytest.mark.parametrize("rule", RULES)
def test_a_pruner_folded_again_from_the_facts_decides_as_the_one_that_lived_through_them(
    rule: PruningRule,
) -> None:
    lived = Told(RULES[rule]())
    pruned = sum(decision.prune for _, decision in random_events(lived, seed=1, many=150))
    assert bool(pruned) == (rule is not PruningRule.NONE)
    again = lived.folded_again()
    assert again.trials == lived.trials
    assert list(random_events(again, 2, 100)) == list(random_events(lived, 2, 100))


# -- real curves ---------------------------------------------------------------------------------------


def replay(rule: PruningRule, accuracy: np.ndarray[Any, Any], **settings: Any) -> tuple[float, int]:
    """The share of all training that was used, and the rank of the best completed of 100 settings."""
    told = Told(spec(rule, MAX, steps=(50, 5), **settings))
    used, completed = 0, []
    for number, curve in enumerate(accuracy):
        for step in range(5, 55, 5):
            used += 5
            decision = told.measure(number, step, float(curve[step]))
            if decision.prune:
                told.end(number, State.PRUNED)
                break
        else:
            told.end(number)
            completed.append(curve[50])
    rank = 1 + int((accuracy[:, 50] > max(completed)).sum())
    return used / (50 * len(accuracy)), rank


@pytest.mark.parametrize(
    ("rule", "settings", "share"),
    [
        # Measured with Optuna's pruners on these curves: 0.249, 0.220, 0.280 and 0.456 of all training.
        (PruningRule.ASHA, {"reduction_factor": 3}, (0.18, 0.32)),
        (PruningRule.ASHA, {"reduction_factor": 4}, (0.15, 0.29)),
        (PruningRule.MEDIAN, {}, (0.20, 0.45)),
        (PruningRule.HYPERBAND, {}, (0.30, 0.55)),
    ],
)
def test_on_real_curves_a_rule_saves_most_of_the_training_and_keeps_one_of_the_best(
    rule: PruningRule, settings: dict[str, Any], share: tuple[float, float]
) -> None:
    assert CURVES.exists(), f"the learning curves are absent: {CURVES}"
    accuracy = np.load(CURVES)["val_accuracy"]
    results = []
    for seed in range(3):
        chosen = np.random.default_rng(seed).permutation(accuracy.shape[1])[:100]
        results += [replay(rule, task[chosen], **settings) for task in accuracy]
    assert share[0] < np.mean([used for used, _ in results]) < share[1]
    ranks = [rank for _, rank in results]
    assert np.mean(ranks) <= 1.5 and max(ranks) <= 4
