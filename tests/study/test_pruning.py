"""The pruning rules: each test is the definition of a rule, by numbers that can be checked by hand."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from told import MAX, MIN, Told, lcbench, replay, spec

from hpsearch.spec.model import Goal, PruningRule, Spec
from hpsearch.study.halving import Hyperband, rungs
from hpsearch.study.pruning import make_pruner
from hpsearch.study.trial import Decision, Ending, Measurement, State, Trial

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


@pytest.mark.parametrize(("goal", "sign"), [(MIN, 1.0), (MAX, -1.0)])
def test_median_by_seconds_compares_trials_that_have_been_running_for_as_long(
    goal: Goal, sign: float
) -> None:
    told = Told(spec(PruningRule.MEDIAN, goal, use_elapsed=True, min_trials=3, min_steps=10))
    for number, value in enumerate([1.0, 2.0, 3.0]):  # in 20 s to step 100, in another 20 s to step 200
        told.attempt(number, 1000)
        told.measure(number, 100, sign * value, seconds=1020)
        told.measure(number, 200, sign * (value - 1), seconds=1040)
        told.end(number)
    told.attempt(7, 5000)
    assert not told.measure(7, 800, sign * 99, seconds=5009.9).prune  # not before 10 s
    assert not told.measure(7, 810, sign * 99, seconds=5019.9).prune  # no trial had a value by then
    assert not told.measure(7, 820, sign * 2, seconds=5020).prune  # the averages up to 20 s are 1, 2, 3
    told.attempt(8, 6000)
    decision = told.measure(8, 10, sign * 1.75, seconds=6040.04)  # those up to 40 s are 0.5, 1.5, 2.5
    assert decision.reason == (
        f"val_rmse {sign * 1.75:g}, its best up to 40.0 s, is worse than "
        f"the median {sign * 1.5:g} of 3 completed trials"
    )


def test_median_by_seconds_counts_the_attempts_of_a_trial_and_not_what_lies_between_them() -> None:
    told = Told(spec(PruningRule.MEDIAN, use_elapsed=True, min_trials=1))
    told.measure(0, 100, 1.0, seconds=10)
    told.end(0)
    told.attempt(1, 100)
    assert not told.measure(1, 100, 9.0, seconds=106).prune
    told.attempt(1, 900)  # 6 s so far
    assert not told.measure(1, 200, 9.0, seconds=903.9).prune
    assert told.measure(1, 300, 9.0, seconds=904).prune


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
        started = time.process_time()
        told.measure(20_000, step, 0.0)
        taken.append(time.process_time() - started)
    assert statistics.median(taken) < 0.02  # about 2 ms of a processor; no step has been seen before


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

RULES: dict[str, Callable[[], Spec]] = {
    "median": lambda: spec(PruningRule.MEDIAN, min_trials=2),
    "median by seconds": lambda: spec(PruningRule.MEDIAN, min_trials=2, use_elapsed=True),
    "asha": lambda: spec(PruningRule.ASHA),
    "hyperband": lambda: spec(PruningRule.HYPERBAND),
    "patience": lambda: spec(PruningRule.PATIENCE, patience=2),
    "threshold": lambda: spec(PruningRule.THRESHOLD, lower=0.2, upper=0.9),
    "decay curve": lambda: spec(PruningRule.DECAY_CURVE),
    "decay curve by seconds": lambda: spec(PruningRule.DECAY_CURVE, use_elapsed=True),
    "convex": lambda: spec(PruningRule.CONVEX, min_measurements=3),
    "convex by seconds": lambda: spec(PruningRule.CONVEX, min_measurements=3, use_elapsed=True),
    "none": lambda: spec(PruningRule.NONE),
}


def test_without_a_rule_nothing_is_pruned() -> None:
    told = five_completed(Told(spec(PruningRule.NONE)))
    assert told.measure(9, 100, 1e300) == Decision(False)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_decides_nothing_and_changes_nothing(rule: str, value: float) -> None:
    plain, disturbed = Told(RULES[rule]()), Told(RULES[rule]())
    for told in (plain, disturbed):
        for number in range(8):
            told.curve(number, *(level + number / 10 for level in (0.5, 0.4, 0.3)))
    assert not disturbed.measure(12, 50, value).prune
    assert not disturbed.measure(13, 100, value).prune
    assert not disturbed.measure(13, 150, 0.0, metric="unknown").prune
    for number, step, seen in [
        (12, 100, 0.55),
        (12, 200, 0.6),
        (14, 100, 0.45),
        (12, 210, 2.6),
        (12, 220, 2.7),
    ]:
        assert disturbed.measure(number, step, seen) == plain.measure(number, step, seen)
        assert not disturbed.measure(number, step + 5, value).prune


@pytest.mark.parametrize("rule", RULES)
def test_other_metrics_of_a_step_are_no_progress_and_no_reason_to_prune(rule: str) -> None:
    """A program that reports its tags one by one makes several measurements of a step."""
    told, alone = Told(RULES[rule]()), Told(RULES[rule]())
    for each in (told, alone):
        for number in range(8):
            each.curve(number, *(level + number / 50 for level in (0.5, 0.4, 0.3, 0.2)))
    pruned = 0
    for number in range(10, 13):
        for step, value in enumerate([5.0, 5.0, 4.99, 4.99, 4.99, 4.99], 1):
            assert not told.measure(number, 60 * step, 0.1, metric="accuracy").prune
            decision = told.measure(number, 60 * step, value)
            assert decision == alone.measure(number, 60 * step, value)
            assert not told.measure(number, 60 * step, 0.1, metric="loss").prune
            pruned += decision.prune
    assert bool(pruned) == (rule != "none")


def random_events(told: Told, seed: int, many: int) -> Iterator[tuple[int, Decision]]:
    """Three trials at a time with random curves, ended when pruned, after 1,000 steps, or by chance.

    A second a step; now and then a trial waits for its next attempt.
    """
    draws = np.random.default_rng(seed)
    for _ in range(many):
        running = [n for n, t in told.trials.items() if t.ending is None]
        number = int(draws.choice(running)) if len(running) == 3 else len(told.trials)
        level = np.random.default_rng(number).uniform(0, 1)
        trial = told.trial(number)
        step = (trial.step or 0) + 100
        now = 100 * len(told.log)
        if not trial.attempts or draws.uniform() < 0.1:
            told.attempt(number, now - 50)
        value = round(float(level + 20 / step + draws.uniform(0, 0.1)), 3)
        decision = told.measure(number, step, value, seconds=now)
        yield number, decision
        if decision.prune or step == 1000 or draws.uniform() < 0.03:
            done = State.COMPLETED if step == 1000 else State.FAILED
            told.end(number, State.PRUNED if decision.prune else done)


@pytest.mark.parametrize("rule", RULES)
def test_a_pruner_folded_again_from_the_facts_decides_as_the_one_that_lived_through_them(rule: str) -> None:
    lived = Told(RULES[rule]())
    pruned = sum(decision.prune for _, decision in random_events(lived, seed=1, many=250))
    assert bool(pruned) == (rule != "none")
    again = lived.folded_again()
    assert again.trials == lived.trials
    assert list(random_events(again, 2, 150)) == list(random_events(lived, 2, 150))


# -- real curves ---------------------------------------------------------------------------------------


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
    seen = [
        replay(rule, task.sample(seed, 100), 5, steps=(50, 5), **settings)
        for seed in range(3)
        for task in lcbench()
    ]
    assert share[0] < np.mean([each.used for each in seen]) < share[1]
    ranks = [each.rank for each in seen]
    assert np.mean(ranks) <= 1.5 and max(ranks) <= 4
