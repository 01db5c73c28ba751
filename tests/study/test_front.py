"""The Pareto front of a study and its best trial: defined by brute force, safe trials only, quick."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hpsearch.spec.model import Constraint, Double, Goal, Objective, SearchSpace, Selection, Spec
from hpsearch.study.front import best_of, front_of
from hpsearch.study.trial import Ending, Measurement, State, Study, Trial

GOALS = st.lists(st.sampled_from(list(Goal)), min_size=1, max_size=4)
LATENCY = Constraint(Objective("latency", Goal.MINIMIZE), 100.0)


def study(goals: Sequence[Goal], *constraints: Constraint, selection: Selection = Selection.LAST) -> Study:
    spec = Spec(
        source="x.yaml",
        text="",
        sha256="",
        dialect="vertex_ai",
        module="",
        args=(),
        space=SearchSpace((Double("x", 0.0, 1.0),)),
        objectives=tuple(Objective(f"m{place}", goal) for place, goal in enumerate(goals)),
        constraints=constraints,
        selection=selection,
    )
    return Study("s", "u", 0, spec, Path("s"))


def trial(
    number: int, *rows: Sequence[float], state: State = State.COMPLETED, latency: float | None = None
) -> Trial:
    """A trial that measured its objectives in each row, and its latency each time."""
    made = Trial(number, f"u-{number}", {}, 0)
    for step, row in enumerate(rows, 1):
        metrics = {f"m{place}": value for place, value in enumerate(row)}
        made.measurements.append(
            Measurement(step, metrics if latency is None else {**metrics, "latency": latency})
        )
    made.ending = Ending(state, "so it ended")
    return made


def numbers(trials: Sequence[Trial], made: Study) -> list[int]:
    return [one.number for one in front_of(trials, made)]


@given(goals=GOALS, data=st.data())
def test_the_front_is_what_no_other_trial_dominates(goals: list[Goal], data: st.DataObject) -> None:
    made = study(goals)
    row = st.lists(st.integers(-3, 3).map(float), min_size=len(goals), max_size=len(goals))
    rows = data.draw(st.lists(row, max_size=12))
    trials = [trial(number, values) for number, values in enumerate(rows)]
    costs = [[o.cost(v) for o, v in zip(made.spec.objectives, values, strict=True)] for values in rows]

    def dominated(one: list[float]) -> bool:
        return any(all(a <= b for a, b in zip(other, one, strict=True)) and other != one for other in costs)

    expected = [number for number, cost in enumerate(costs) if not dominated(cost)]
    assert numbers(data.draw(st.permutations(trials)), made) == expected
    best = best_of(trials, made)
    assert (best is None) == (not rows)
    if best:
        assert best.number in expected
        assert costs[best.number][0] == min(cost[0] for cost in costs)


def test_only_completed_trials_with_all_objectives_are_on_the_front() -> None:
    made = study([Goal.MINIMIZE, Goal.MAXIMIZE])
    trials = [
        trial(0, (9.0, 0.1)),
        trial(1, (1.0, 0.9), state=State.PRUNED),
        trial(2, (1.0, math.nan)),
        trial(3, (1.0,)),
        trial(4, (1.0, 0.9), state=State.FAILED),
    ]
    assert numbers(trials, made) == [0]
    assert best_of(trials, made) is trials[0]


def test_only_safe_trials_are_on_the_front_or_the_best() -> None:
    made = study([Goal.MINIMIZE, Goal.MAXIMIZE], LATENCY)
    trials = [trial(0, (1.0, 0.9), latency=100.5), trial(1, (1.0, 0.9)), trial(2, (5.0, 0.5), latency=100.0)]
    assert numbers(trials, made) == [2]
    assert best_of(trials, made) is trials[2]
    assert best_of(trials[:2], made) is None


def test_a_constraint_looks_at_the_last_finite_value() -> None:
    made, safe = study([Goal.MINIMIZE], LATENCY), trial(0, (1.0,))
    for step, latency in enumerate((200.0, 50.0, math.nan), 2):
        safe.measurements.append(Measurement(step, {"latency": latency}))
    assert best_of([safe], made) is safe
    safe.measurements.append(Measurement(9, {"latency": 101.0}))
    assert best_of([safe], made) is None


def test_what_counts_follows_the_selection() -> None:
    trials = [trial(0, (1.0, 0.1), (3.0, 0.9)), trial(1, (2.0, 0.2), (2.0, 0.2))]
    goals = [Goal.MINIMIZE, Goal.MAXIMIZE]
    assert numbers(trials, study(goals)) == [0, 1]
    assert numbers(trials, study(goals, selection=Selection.BEST)) == [0]


def test_equals_stay_on_the_front_together_and_the_earlier_is_the_best() -> None:
    made, trials = study([Goal.MINIMIZE, Goal.MINIMIZE]), [trial(n, (1.0, 2.0)) for n in range(3)]
    assert numbers(trials, made) == [0, 1, 2]
    assert best_of(trials[::-1], made) is trials[0]


def test_ten_thousand_trials_that_are_all_on_the_front_take_less_than_a_second() -> None:
    made, dice = study([Goal.MINIMIZE] * 3), random.Random(0)
    trials = []
    for number in range(10_000):
        point = [abs(dice.gauss(0, 1)) for _ in range(3)]
        length = math.hypot(*point)
        trials.append(trial(number, [-value / length for value in point]))
    started = time.process_time()
    assert len(front_of(trials, made)) == 10_000
    assert time.process_time() - started < 1.0
