"""The rules that look ahead: by hand on small curves, on any numbers, and on real learning curves."""

from __future__ import annotations

import math
import re
import statistics
import time
import tracemalloc
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from told import MAX, MIN, Outcome, Task, Told, deepobs, lcbench, replay, spec, taskset

from hpsearch.spec.model import Constraint, Goal, Objective, PruningRule, Selection
from hpsearch.study.curves import POINTS, Clock, Curve
from hpsearch.study.forecast import extrapolate, predict
from hpsearch.study.trial import Attempt, Measurement, State

DECAY, CONVEX, MEDIAN = PruningRule.DECAY_CURVE, PruningRule.CONVEX, PruningRule.MEDIAN
RULES = [MEDIAN, DECAY, CONVEX]


def points(*values: float) -> tuple[Any, Any]:
    """A curve measured at steps 100, 200, ..."""
    return np.arange(100.0, 100 * len(values) + 1, 100), np.array(values)


def measured(step: int, value: float) -> Measurement:
    return Measurement(step, {"val_rmse": value}, 1000 * step)


# -- the seconds of running ----------------------------------------------------------------------------


def read(attempts: list[tuple[int, list[int]]]) -> list[float]:
    """The clock at every measurement of attempts (start, times), each told of as soon as it starts."""
    clock, known, seen = Clock(), [], []
    for number, (started, times) in enumerate(attempts, 1):
        known.append(Attempt(number, started))
        seen += [clock.read(known, each) for each in times]
    return seen


def test_an_attempt_runs_from_its_start_to_its_last_measurement_and_waiting_does_not_count() -> None:
    attempts = [(1000, [2000, 4000]), (60_000, []), (90_000, [90_500, 93_000]), (200_000, [200_001])]
    assert read(attempts) == [1.0, 3.0, 3.5, 6.0, 6.001]


def test_an_attempt_that_starts_after_a_measurement_does_not_count_for_it() -> None:
    attempts = [Attempt(1, 1000), Attempt(2, 4000), Attempt(3, 9000)]
    clock = Clock()
    assert [clock.read(attempts, each) for each in (2000, 4000, 4500)] == [1.0, 3.0, 3.5]


def test_the_seconds_of_running_never_decrease_when_clocks_disagree() -> None:
    assert read([(1000, [500, 3000, 2000]), (5000, [4000, 6000])]) == [0.0, 2.0, 2.0, 3.0, 4.0]
    assert Clock().read([], 5000) == 0.0


# -- curves --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [1, 2, POINTS, POINTS + 1, 2 * POINTS + 1, 1000])
def test_a_curve_keeps_evenly_spread_points_and_the_last(many: int) -> None:
    curve = Curve()
    for step in range(many):
        curve.add(step, -step, Selection.LAST)
    places, costs = curve.points()
    assert list(costs) == [-place for place in places]
    assert (places[0], places[-1]) == (0, many - 1)
    assert min(many, POINTS // 2) <= len(places) <= POINTS + 1
    assert len(set(np.diff(places)[:-1])) <= 1


def test_a_curve_shows_what_the_trial_would_have_ended_with() -> None:
    last, best = Curve(), Curve()
    for step, cost in enumerate([3.0, 1.0, 2.0]):
        last.add(step, cost, Selection.LAST)
        best.add(step, cost, Selection.BEST)
    assert list(last.points()[1]) == [3.0, 1.0, 2.0]
    assert list(best.points()[1]) == [3.0, 1.0, 1.0]


@pytest.mark.parametrize(("rule", "bytes_each"), [(DECAY, 1), (CONVEX, 1), (MEDIAN, 120)])
def test_a_rule_remembers_next_to_nothing_of_each_measurement(rule: PruningRule, bytes_each: int) -> None:
    told = Told(spec(rule, use_elapsed=True))
    for number in range(6):
        told.curve(number, 2.0 + number, 1.0 + number)
    trial = told.trial(9)
    told.attempt(9, 0)

    def measure(first: int) -> int:
        for step in range(first, first + 2000):
            told.record(9, measured(step, 20.0 - step / 1e6))
            told.pruner.decide(trial)
        trial.measurements.clear()
        told.log.clear()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before, after = measure(1), measure(2001)
    finally:
        tracemalloc.stop()
    assert after - before < 2000 * bytes_each


# -- decay curve ---------------------------------------------------------------------------------------


def two_families(goal: Goal = MIN, sign: float = 1.0, selection: Selection = Selection.LAST) -> Told:
    """Four completed trials that fall from 1 to 0.2 and four that stay at 2, each a little apart."""
    told = Told(spec(DECAY, goal, selection=selection))
    for n in range(4):
        told.curve(n, *(sign * (level + n / 100) for level in (1.0, 0.5, 0.3, 0.2)))
        told.curve(n + 10, *[sign * (2 + n / 100)] * 4)
    return told


@pytest.mark.parametrize(("goal", "sign"), [(MIN, 1.0), (MAX, -1.0)])
def test_decay_curve_expects_of_a_trial_what_became_of_those_like_it(goal: Goal, sign: float) -> None:
    told = two_families(goal, sign)
    assert told.prunes(20, sign * 1.03, sign * 0.52, sign * 0.31) == [False] * 3
    assert told.prunes(21, sign * 2.01) == [True]


@pytest.mark.parametrize(("goal", "sign"), [(MIN, 1.0), (MAX, -1.0)])
def test_decay_curve_says_prediction_deviation_probability_and_best(goal: Goal, sign: float) -> None:
    """Where no completed trial has changed after this step, none is expected of this one either."""
    told = Told(spec(DECAY, goal))
    for number in range(5):
        told.curve(number, *[sign * (number + 1)] * 4)
    value, best = f"{sign * 6:g}", f"{sign:g}"
    reason = told.measure(9, 200, sign * 6).reason
    assert reason == (
        f"val_rmse {value} at step 200 is predicted to end at {value} +- 0.033, "
        f"with a probability of less than 0.01 % to beat {best}, the best of 5 completed trials"
    )
    reason = told.measure(8, 200, sign * 1.05).reason
    said = re.search(r"predicted to end at (\S+) \+- (\S+), with a probability of (\S+) %", reason)
    assert said is not None
    assert float(said[1]) == sign * 1.05
    assert 0.01 < float(said[3]) < 0.2
    assert not told.measure(7, 200, sign * 1.02).prune  # so close to the best, anything may happen


def test_decay_curve_is_less_sure_of_a_curve_unlike_any_other() -> None:
    others = [points(1.0 + n / 10, 0.5 + n / 10, 0.2 + n / 20) for n in range(8)]
    alike, unlike = (predict(points(*mine), others, 0.2) for mine in [(1.15, 0.65), (0.2, 0.65)])
    assert alike is not None and unlike is not None
    assert unlike.deviation > 2 * alike.deviation


def test_decay_curve_waits_for_five_completed_trials() -> None:
    told = Told(spec(DECAY))
    for number in range(4):
        told.curve(number, 1.0 + number, 1.0 + number)
    told.curve(20, 1.0, 1.0, state=State.FAILED)
    assert told.prunes(21, 99.0) == [False]
    told.curve(30, 9.0, 9.0)
    assert told.prunes(31, 99.0) == [True]


def test_decay_curve_prunes_nothing_before_its_first_step_nor_where_no_trial_came_to() -> None:
    told = Told(spec(DECAY, min_steps=200))
    for number in range(6):
        told.curve(number, *[1.0 + number] * 4)
    assert told.prunes(9, *[99.0] * 6) == [False, True, True, False, False, False]


def test_decay_curve_by_seconds_compares_what_trials_had_after_the_same_time() -> None:
    told = Told(spec(DECAY, use_elapsed=True))
    for number in range(6):
        for second in range(1, 11):
            told.measure(number, 10 * second, 2.0 - second / 10 + number / 10, seconds=second)
        told.end(number)
    # The same curve, at half and at a quarter of the steps in a second.
    fast = [told.measure(7, 5 * second, 2.0 - second / 10, seconds=second).prune for second in range(1, 10)]
    slow = [told.measure(8, 2 * second, 3.5 - second / 40, seconds=second) for second in range(1, 10)]
    assert not any(fast)
    assert slow[-1].prune and slow[-1].reason.startswith("val_rmse 3.275 at 9.0 s is predicted to end at ")


def test_decay_curve_follows_the_selection_of_the_measurement_that_counts() -> None:
    """A trial which had the best value long ago, and none since, has it still where the best one counts."""
    last, best = two_families(), two_families(selection=Selection.BEST)
    values = (0.15, 2.0, 2.0)
    assert last.prunes(20, *values)[-1]
    assert not any(best.prunes(20, *values))


def test_decay_curve_learns_of_completed_trials_of_all_lengths() -> None:
    told = Told(spec(DECAY))
    for number, steps in enumerate([1, 2, 5, 5, 7, 10]):
        told.curve(number, *[1.0 + number / 10] * steps)
    assert told.prunes(9, 3.0, 3.0, 3.0) == [True] * 3
    assert told.prunes(8, 1.0, 0.9, 0.8) == [False] * 3


def test_decay_curve_prunes_nothing_while_all_completed_trials_are_as_good() -> None:
    told = Told(spec(DECAY))
    for number in range(6):
        told.curve(number, 5.0 - number / 10, 1.0)
    assert told.prunes(9, 9.0) == [False]


def test_decay_curve_tells_apart_the_good_ones_beside_diverged_ones() -> None:
    told = Told(spec(DECAY))
    for number in range(5):
        told.curve(number, 1.0, 0.6 + number / 50, 0.3 + number / 50)
        told.curve(number + 10, 1.0, 1e6 * 10**number, 1e12 * 10.0 ** (3 * number))
    assert told.prunes(20, 1.0, 0.58) == [False, False]
    assert told.prunes(21, 1.0, 1e5) == [False, True]


def test_decay_curve_decides_within_milliseconds_among_hundreds_of_completed_trials() -> None:
    told, draws = Told(spec(DECAY)), np.random.default_rng(0)
    for number in range(250):
        level, rate = draws.uniform(size=2)
        for step in range(1, 101):
            told.record(number, measured(step, level + math.exp(-step / (10 + 40 * rate))))
        told.end(number)
    taken = []
    for step in range(1, 90):
        started = time.perf_counter()
        told.measure(300, step, 0.2 + math.exp(-step / 30))
        taken.append(time.perf_counter() - started)
    assert statistics.median(taken) < 0.02  # about 0.8 ms


def test_decay_curve_learns_from_the_newest_by_number_in_whatever_order_they_complete() -> None:
    shapes = {number: (5.0 - 3 * (number >= 100), 1.0 + number / 1000) for number in range(150)}
    decisions = []
    for order in (sorted(shapes), sorted(shapes, reverse=True), np.random.default_rng(0).permutation(150)):
        told = Told(spec(DECAY))
        for number in map(int, order):
            told.curve(number, *shapes[number])
        decisions.append([told.measure(200 + n, 50 + n, 1.5 + n / 4) for n in range(20)])
    assert decisions[0] == decisions[1] == decisions[2]
    assert len({decision.prune for decision in decisions[0]}) == 2


# -- convex --------------------------------------------------------------------------------------------


def six_completed(sign: float = 1.0, goal: Goal = MIN, **settings: Any) -> Told:
    """Trials of 10 measurements that end at 1, 2, ..., 6."""
    told = Told(spec(CONVEX, goal, **settings))
    for number in range(6):
        told.curve(number, *[sign * 9.0] * 9, sign * (1.0 + number))
    return told


@pytest.mark.parametrize(("goal", "sign"), [(MIN, 1.0), (MAX, -1.0)])
def test_convex_prunes_what_its_slope_does_not_take_to_the_best(goal: Goal, sign: float) -> None:
    told = six_completed(sign, goal)
    # 7 at step 500 and 1 in 100 steps: 2 at step 1000; a little more and it is 1, as good as the best.
    assert told.prunes(20, *(sign * value for value in (11, 10, 9, 8))) == [False] * 4
    decision = told.measure(20, 500, sign * 7)
    assert decision.reason == (
        f"val_rmse {sign * 7:g} at step 500 can by its slope be no better than {sign * 2:g} at step 1000 "
        f"({sign * 2:g} by autoregression), worse than {sign * 1:g}, the best of 6 completed trials"
    )
    assert told.prunes(21, *(sign * value for value in (10.8, 9.6, 8.4, 7.2, 6))) == [False] * 5


def test_convex_goes_by_the_recent_slope_and_from_the_best_so_far() -> None:
    told = six_completed()
    assert told.prunes(20, 100.0, 5.4, 5.2, 5.0, 4.8) == [False] * 4 + [True]  # 3.8 at step 1000
    reason = told.measure(20, 600, 50.0).reason
    assert "can by its slope be no better than 4.8 at step 1000" in reason


def test_convex_expects_what_an_autoregressive_model_comes_to() -> None:
    """Each value is half of the one before and 0.5: 9, 5, 3, 2, 1.5, then 1.25 and 1.125."""
    least, expected = extrapolate(points(9.0, 5.0, 3.0, 2.0, 1.5), 1.5, 700)
    assert expected == pytest.approx(1.125)
    assert least == pytest.approx(1.5 - 2 * 1.15)  # the line of least squares of the last four
    assert extrapolate(points(5.0, 4.0, 3.0), 3.0, 500) == pytest.approx((1.0, 1.0))
    # A fall that becomes steeper is expected to go on as the line of least squares at most.
    least, expected = extrapolate(points(10.0, 9.9, 9.7, 9.3, 8.5), 8.5, 1000)
    assert least == expected == pytest.approx(8.5 - 5 * 0.46)
    assert extrapolate(points(2.0, 3.0, 5.0, 9.0, 17.0), 2.0, 700) == pytest.approx((2.0, 17 + 2 * 14 / 3))


def test_convex_predicts_nothing_of_a_completely_flat_curve() -> None:
    told = six_completed()
    assert told.prunes(20, *[9.0] * 8) == [False] * 8
    assert told.measure(20, 900, 9.1).prune


def test_convex_needs_measurements_and_more_completed_trials_than_that() -> None:
    told = Told(spec(CONVEX, min_measurements=3))
    for number in range(3):
        told.curve(number, *[1.0] * 10)
    assert told.prunes(20, 9.0, 8.9, 8.8, 8.8) == [False] * 4
    told.curve(3, *[1.0] * 10)
    assert told.prunes(21, 9.0, 8.9, 8.8, 8.8) == [False, False, True, True]


def test_convex_waits_for_a_measurement_beyond_its_first_step_by_default_a_tenth_of_the_last() -> None:
    values = (9.0, 8.9, 8.8, 8.8, 8.8)
    cases: list[tuple[int, int | None, int]] = [
        (0, None, 1), (100, None, 1), (199, None, 1), (200, None, 2), (350, None, 3),
        (0, 1000, 0), (300, 1000, 3),
    ]  # fmt: skip
    for first, last, kept in cases:
        told = six_completed(min_measurements=1, min_steps=first, final_step=last)
        told.measure(20, 50, 9.1)
        assert told.prunes(20, *values) == [False] * kept + [True] * (5 - kept)


def test_convex_predicts_at_the_given_step_or_where_the_longest_completed_trial_ended() -> None:
    values = (10.0, 8.9, 7.8, 6.7, 5.6)
    assert not any(six_completed().prunes(20, *values))  # 0.1 at step 1000
    given = six_completed(final_step=900)  # 1.2
    assert given.prunes(20, *values)[-1]
    assert not given.measure(20, 900, 9.0).prune  # nothing is left to be predicted
    longer = six_completed()
    longer.curve(6, *[9.0] * 20)
    longer.curve(7, 9.0)
    assert longer.prunes(20, 9.0, 8.9, 8.8, 8.7) == [False] * 4
    assert "no better than 7.1 at step 2000 (" in longer.measure(20, 500, 8.6).reason


def test_convex_by_seconds_predicts_at_the_end_of_the_slowest_completed_trial() -> None:
    told = Told(spec(CONVEX, use_elapsed=True, min_steps=3))
    for number in range(6):
        for step in range(1, 11):
            told.measure(number, step, 9.0 - step, seconds=step * (1 + number / 10))
        told.end(number)
    seen = [told.measure(9, step, 20.0 - step / 4, seconds=step / 2) for step in range(1, 9)]
    assert [decision.prune for decision in seen] == [False] * 6 + [True, True]
    assert seen[6].reason == (
        "val_rmse 18.25 at 3.5 s can by its slope be no better than 12.5 at 15.0 s "
        "(12.5 by autoregression), worse than -1, the best of 6 completed trials"
    )


# -- both ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [DECAY, CONVEX])
def test_only_safe_trials_are_to_be_beaten(rule: PruningRule) -> None:
    constraint = Constraint(Objective("memory", MIN), 4.0)
    told = Told(replace(spec(rule, min_measurements=3), constraints=(constraint,)))

    def complete(number: int, level: float, memory: float) -> None:
        for step in range(1, 11):
            metrics = {"val_rmse": level + 1 / step, "memory": memory}
            told.record(number, Measurement(100 * step, metrics, 1000 * step))
        told.end(number)

    for number in range(8):
        complete(number, 1.0 + number / 10, 9.0)
    assert not any(told.prunes(20, *(9 + 1 / step for step in range(1, 9))))  # no safe trial yet
    complete(8, 5.0, 4.0)
    assert not any(told.prunes(21, *(4.9 + 1 / step for step in range(1, 9))))
    told.prunes(22, *(9 + 1 / step for step in range(1, 9)))
    assert told.measure(22, 900, 9 + 1 / 9).reason.endswith("5.1, the best safe one of 9 completed trials")


# -- on any numbers ------------------------------------------------------------------------------------

ANY = st.floats(allow_nan=True, allow_infinity=True)
CLOSE = st.floats(0.0, 1.0) | st.sampled_from([0.0, 0.5, 1.0])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seconds", [False, True])
@given(
    completed=st.lists(st.lists(ANY | CLOSE, min_size=1, max_size=8), min_size=5, max_size=9),
    running=st.lists(ANY | CLOSE, min_size=1, max_size=12),
    goal=st.sampled_from(Goal),
    selection=st.sampled_from(Selection),
    gaps=st.lists(st.integers(0, 10**9), min_size=12, max_size=12),
)
@settings(max_examples=150, deadline=None)
def test_no_numbers_make_a_rule_fail(
    rule: PruningRule,
    seconds: bool,
    completed: list[list[float]],
    running: list[float],
    goal: Goal,
    selection: Selection,
    gaps: list[int],
) -> None:
    told = Told(spec(rule, goal, selection=selection, use_elapsed=seconds, min_measurements=3))
    for number, values in enumerate(completed):
        told.curve(number, *values)
    for step, (value, at) in enumerate(zip(running, np.cumsum(gaps), strict=False), 1):
        decision = told.measure(99, 50 * step, value, seconds=float(at))
        assert not decision.prune or math.isfinite(value)
        assert "nan" not in decision.reason


def test_the_largest_and_the_smallest_numbers_are_numbers_too() -> None:
    for low, high in ((-1.7e308, 1.7e308), (5e-324, 1e-323), (-1e-300, 1e300), (0.0, 5e-324)):
        for rule in RULES:
            told = Told(spec(rule, min_measurements=3))
            told.curve(0, *[low] * 10)
            for number in range(1, 7):
                told.curve(number, *[high] * 10)
            assert told.prunes(20, low, low, low, low) == [False] * 4
            told.prunes(21, high, low, high, low)
            if rule is not CONVEX:
                assert told.prunes(22, high, high, high) == [rule is DECAY] * 3


def test_measurements_at_the_same_moment_have_no_slope() -> None:
    moments, costs = np.full(6, 3.0), np.arange(6.0)
    assert all(map(math.isnan, extrapolate((moments, costs), 0.0, 10.0)))


def decisions(
    completed: list[list[float]], running: list[float], rule: PruningRule, goal: Goal
) -> list[bool]:
    told = Told(spec(rule, goal, min_measurements=3))
    for number, values in enumerate(completed):
        told.curve(number, *values)
    return told.prunes(99, *running)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_decides_by_the_shape_of_curves_at_any_scale_and_for_both_goals(rule: PruningRule) -> None:
    draws, pruned = np.random.default_rng(7), 0
    for _ in range(30):
        levels, rates = draws.uniform(0, 1, 9), draws.uniform(50, 500, 9)
        steps = np.arange(100, 1001, 100)
        curves = (levels[:, None] + np.exp(-steps / rates[:, None])).tolist()
        plain = decisions(curves[:8], curves[8], rule, MIN)
        pruned += any(plain)
        for scale in (2.0**-100, 2.0**100, 2.0**900):
            scaled = [[value * scale for value in curve] for curve in curves]
            assert decisions(scaled[:8], scaled[8], rule, MIN) == plain
        turned = [[-value for value in curve] for curve in curves]
        assert decisions(turned[:8], turned[8], rule, MAX) == plain
    assert 5 < pruned < 30


@pytest.mark.parametrize("rule", RULES)
@given(
    drops=st.lists(st.floats(0.01, 1.0), min_size=9, max_size=9),
    heights=st.lists(st.floats(0.2, 100.0), min_size=5, max_size=12),
    best=st.floats(0.01, 0.15),
    offset=st.floats(-1e3, 1e3),
)
@settings(max_examples=150, deadline=None)
def test_the_clear_best_of_a_family_of_convex_curves_is_never_pruned(
    rule: PruningRule, drops: list[float], heights: list[float], best: float, offset: float
) -> None:
    """All trials fall in the same way, ever less from step to step, and this one is below at each."""
    shape = 1.0 + np.append(0.0, np.cumsum(np.sort(drops)))[::-1]
    told = Told(spec(rule, min_measurements=3))
    for number, height in enumerate(heights):
        told.curve(number, *(offset + height * shape))
    assert not any(told.prunes(99, *(offset + best * shape)))


# -- real curves ---------------------------------------------------------------------------------------


@dataclass
class Replay:
    """What a rule made of many tasks, on average."""

    seen: list[Outcome]

    @property
    def used(self) -> float:
        return statistics.mean(each.used for each in self.seen)

    @property
    def regret(self) -> float:
        return statistics.mean(each.regret for each in self.seen)

    @property
    def best_pruned(self) -> float:
        return statistics.mean(each.best_pruned for each in self.seen)

    @property
    def wrongly(self) -> float:
        return sum(each.wrongly for each in self.seen) / sum(each.pruned for each in self.seen)


def replays(rule: PruningRule, tasks: list[Task], every: int, **settings: Any) -> Replay:
    return Replay(
        [replay(rule, task.sample(seed, 100), every, **settings) for task in tasks for seed in range(2)]
    )


@pytest.mark.parametrize(
    ("rule", "every", "used", "regret", "best_pruned", "wrongly"),
    [
        # Measured, in the order of the columns:         docs/decisions/0007 has more of them
        (MEDIAN, 5, 0.45, 0.03, 0.25, 0.03),  #          0.381  0.015  0.14  0.016
        (DECAY, 5, 0.42, 0.02, 0.20, 0.01),  #           0.363  0.006  0.11  0.002
        (CONVEX, 5, 0.70, 0.01, 0.20, 0.01),  #          0.642  0.004  0.14  0.003
        (DECAY, 1, 0.36, 0.01, 0.15, 0.01),  #           0.308  0.002  0.04  0.002
        (CONVEX, 1, 0.48, 0.015, 0.15, 0.01),  #         0.415  0.006  0.07  0.002
    ],
)
def test_on_real_curves_a_rule_saves_training_and_seldom_prunes_what_would_have_been_the_best(
    rule: PruningRule, every: int, used: float, regret: float, best_pruned: float, wrongly: float
) -> None:
    seen = replays(rule, lcbench() + taskset() + deepobs(), every)
    assert 0.15 < seen.used < used
    assert seen.regret < regret
    assert seen.best_pruned < best_pruned
    assert seen.wrongly < wrongly


def test_on_real_curves_without_pruning_all_training_is_used_and_the_best_is_found() -> None:
    seen = replays(PruningRule.NONE, lcbench() + deepobs(), 5).seen
    assert {(each.used, each.regret, each.rank, each.pruned) for each in seen} == {(1.0, 0.0, 1, 0)}


@pytest.mark.parametrize(("rule", "used"), [(MEDIAN, 0.45), (DECAY, 0.35), (CONVEX, 0.92)])
def test_on_real_curves_by_seconds_a_rule_saves_time_and_finds_one_of_the_best(
    rule: PruningRule, used: float
) -> None:
    """Measured: 0.372, 0.260 and 0.835 of the time; by seconds CONVEX must expect the slowest end."""
    seen = replays(rule, lcbench(), 5, by_seconds=True)
    assert seen.used < used
    assert max(each.rank for each in seen.seen) <= 2
