"""Search spaces with conditions and several objectives: what is active, what is tried, what is learned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from hpsearch.errors import StoreDamaged, UsageError
from hpsearch.spec.model import (
    Algorithm,
    Categorical,
    Condition,
    Constraint,
    Discrete,
    Double,
    Goal,
    Integer,
    Objective,
    Parameter,
    Params,
    SamplerSpec,
    SearchSpace,
    Spec,
    key_of,
)
from hpsearch.study.points import Points
from hpsearch.study.sampling import OptunaSampler
from hpsearch.study.trial import Ending, Measurement, State, Suggestion, Trial

SGD = Condition("optimizer", ("sgd", "nesterov"))
ADAM = Condition("optimizer", ("adam",))
OPTIMIZER = Categorical("optimizer", ("adam", "sgd", "nesterov"))
# `rate` has one range below adam and another below the others; `decay` hangs on a child.
TREE: tuple[Parameter, ...] = (
    OPTIMIZER,
    Double("rate", 1e-4, 1e-2, condition=ADAM),
    Double("rate", 0.1, 1.0, condition=SGD),
    Discrete("momentum", (0, 0.5, 0.9), condition=SGD),
    Integer("decay", 1, 9, condition=Condition(f"{SGD.key}/momentum", (0.9,))),
    Integer("units", 1, 64),
)
FINITE: tuple[Parameter, ...] = (
    Integer("layers", 1, 3),
    Categorical("first", ("a", "b"), condition=Condition("layers", (2, 3))),
    Discrete("second", (1, 2.5), condition=Condition("layers", (3,))),
    Categorical("fixed", ("x",)),
)


def spec(
    space: tuple[Parameter, ...],
    algorithm: Algorithm = Algorithm.TPE,
    objectives: tuple[Objective, ...] = (Objective("loss", Goal.MINIMIZE),),
    **more: Any,
) -> Spec:
    return Spec(
        source="x.yaml",
        text="",
        sha256="",
        dialect="vertex_ai",
        module="trainer",
        args=(),
        space=SearchSpace(space),
        objectives=objectives,
        sampler=SamplerSpec(algorithm, 3, 5),
        **more,
    )


def loss(params: Params) -> float:
    return sum(
        (i + 1) * len(str(v)) + (v if isinstance(v, int | float) else 0)
        for i, v in enumerate(params.values())
    )


class Sweep:
    """Two trials at a time, by a sampler that is rebuilt from its history after every k-th of them."""

    def __init__(self, file: Spec, rebuild_every: int | None = None) -> None:
        self.file = file
        self.rebuild_every = rebuild_every
        self.sampler = OptunaSampler(file)
        self.history: list[tuple[Trial, Mapping[str, object]]] = []
        self.asked: Suggestion | None = None  # last

    def run(self, trials: int) -> list[Params]:
        while len(self.history) < trials and (suggestion := self.sampler.ask(len(self.history))):
            number, self.asked = len(self.history), suggestion
            params = json.loads(json.dumps(dict(suggestion.params)))
            attributes = json.loads(json.dumps(dict(suggestion.attributes), allow_nan=False))
            self.history.append((Trial(number, f"t{number}", params, 0), attributes))
            if number:
                self.end(self.history[number - 1][0])
            if self.rebuild_every and number % self.rebuild_every == 0:
                self.sampler = OptunaSampler(self.file)
                self.sampler.restore(self.history)
        return [trial.params for trial, _ in self.history]

    def end(self, trial: Trial) -> None:
        names = [o.metric for o in self.file.objectives] + [c.objective.metric for c in self.file.constraints]
        metrics = {name: loss(trial.params) * (-1.0) ** i for i, name in enumerate(names)}
        trial.measurements.append(Measurement(1, metrics))
        self.sampler.measured(trial.number, 1, metrics["loss"])
        trial.ending = Ending(State.FAILED if trial.number % 7 == 5 else State.COMPLETED, "as it was fated")
        self.sampler.ended(trial)


ALGORITHMS = [Algorithm.TPE, Algorithm.RANDOM, Algorithm.QMC, Algorithm.NSGA_II, Algorithm.GP]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_trial_has_its_active_params_only_within_the_bounds_of_their_branch(algorithm: Algorithm) -> None:
    seen = Sweep(spec(TREE, algorithm)).run(25 if algorithm is not Algorithm.GP else 7)
    assert {params["optimizer"] for params in seen} >= {"adam", "sgd"}
    for params in seen:
        rate = params["rate"]
        assert isinstance(rate, float)
        if params["optimizer"] == "adam":
            assert 1e-4 <= rate <= 1e-2
            assert list(params) == ["optimizer", "rate", "units"]
        else:
            assert 0.1 <= rate <= 1.0
            decay = ["decay"] if params["momentum"] == 0.9 else []
            assert list(params) == ["optimizer", "rate", "momentum", *decay, "units"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("space", [TREE, FINITE], ids=["tree", "finite"])
def test_a_rebuilt_sampler_proposes_what_an_uninterrupted_one_does(
    algorithm: Algorithm, space: tuple[Parameter, ...]
) -> None:
    trials = 30 if algorithm is not Algorithm.GP else 7
    uninterrupted = Sweep(spec(space, algorithm)).run(trials)
    for every in (1, 4) if algorithm is not Algorithm.GP else (5,):
        assert Sweep(spec(space, algorithm), rebuild_every=every).run(trials) == uninterrupted


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("algorithm", [Algorithm.NSGA_II, Algorithm.TPE, Algorithm.QMC])
def test_points_replaced_by_those_of_another_branch_do_not_shift_what_a_sampler_remembers(
    algorithm: Algorithm, seed: int
) -> None:
    space = (
        OPTIMIZER,
        Integer("beta", 1, 3, condition=ADAM),
        Discrete("momentum", (0, 0.9), condition=SGD),
        Integer("units", 1, 4),
    )
    first: Params = {"optimizer": "adam", "beta": 2, "units": 3}
    file = replace(spec(space, algorithm, first=first), sampler=SamplerSpec(algorithm, seed, 4))
    sweep = Sweep(file)
    sweep.run(5)
    # What one long life has kept must mean the same to the next one, at any point of it.
    for trials in range(5, 26):
        rebuilt = OptunaSampler(file)
        rebuilt.restore(sweep.history)
        asked = rebuilt.ask(trials)
        uninterrupted = sweep.run(trials + 1)
        assert len(uninterrupted) == trials + 1
        assert asked == sweep.asked
    assert len({tuple(params.items()) for params in uninterrupted}) == 26
    for every in (1, 5):
        assert Sweep(file, rebuild_every=every).run(26) == uninterrupted


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, Algorithm.GRID])
def test_a_finite_tree_is_tried_without_repeats_until_nothing_is_left(algorithm: Algorithm) -> None:
    seen = Sweep(spec(FINITE, algorithm)).run(100)
    # 1 | 2 with a or b | 3 with a or b and 1 or 2.5
    assert len(seen) == 1 + 2 + 4
    assert len({tuple(params.items()) for params in seen}) == 7
    assert all(params["fixed"] == "x" for params in seen)


def test_a_grid_goes_through_a_tree_with_the_first_parameter_fastest() -> None:
    roots = (Discrete("batch", (16, 32)), OPTIMIZER, Integer("n", 1, 2, condition=ADAM))
    seen = Sweep(spec(roots, Algorithm.GRID)).run(100)
    assert [tuple(params.values()) for params in seen] == [
        (16, "adam", 1),
        (32, "adam", 1),
        (16, "adam", 2),
        (32, "adam", 2),
        (16, "sgd"),
        (32, "sgd"),
        (16, "nesterov"),
        (32, "nesterov"),
    ]


@st.composite
def finite_spaces(draw: st.DrawFn) -> SearchSpace:
    """Trees of small parameters, children right behind their parents."""

    def grow(name: str, depth: int, condition: Condition | None) -> list[Parameter]:
        low = draw(st.integers(-2, 2))
        here = Integer(name, low, low + draw(st.integers(0, 3)), condition=condition)
        found: list[Parameter] = [here]
        for child in range(draw(st.integers(0, 2)) if depth < 3 else 0):
            values = draw(st.sets(st.integers(here.low, here.high), min_size=1))
            found += grow(f"{name}{child}", depth + 1, Condition(key_of(here), tuple(sorted(values))))
        return found

    return SearchSpace(tuple(p for root in range(draw(st.integers(1, 2))) for p in grow(f"p{root}", 1, None)))


@given(finite_spaces())
@settings(deadline=None)
def test_the_points_of_any_tree_are_those_of_trying_everything(space: SearchSpace) -> None:
    ranges = [range(p.low, p.high + 1) for p in space.parameters if isinstance(p, Integer)]
    everything = set()
    for values in product(*ranges):
        chosen = dict(zip((p.name for p in space.parameters), values, strict=True))
        everything.add(tuple(space.walk(lambda p, chosen=chosen: chosen[p.name]).values()))  # type: ignore[misc]
        if len(everything) > 300:
            return
    points = Points(space)
    assert points.size is not None
    seen = []
    while not points.exhausted:
        point = points.next_untried()
        points.add(point)
        seen.append(tuple(point.values()))
        assert set(space.active(point)) == set(point)
    assert len(seen) == points.size
    assert set(seen) == everything


def test_a_big_parent_is_not_enumerated() -> None:
    parent = Integer("n", 0, 10**12)
    points = Points(SearchSpace((parent, Integer("m", 1, 5, condition=Condition("n", (7, 10**12))))))
    assert points.size == 10**12 + 1 + 8
    assert points.next_untried() == {"n": 0}


def test_the_params_that_a_file_gives_come_first_and_are_learned_from() -> None:
    first: Params = {"optimizer": "sgd", "rate": 0.25, "momentum": 0.9, "decay": 3, "units": 64}
    sweep = Sweep(spec(TREE, first=first))
    assert sweep.run(12)[0] == first
    assert len({tuple(params.items()) for (params,) in zip(sweep.run(12), strict=True)}) == 12
    rebuilt = OptunaSampler(sweep.file)
    rebuilt.restore(sweep.history)
    assert rebuilt.ask(12) == sweep.sampler.ask(12)


@pytest.mark.parametrize("wrong", [{"momentum": 0.5}, {"rate": 0.5}, {"decay": 1}])
def test_params_that_are_not_active_are_not_given_to_the_sampler(wrong: dict[str, Any]) -> None:
    trial = Trial(0, "t", {"optimizer": "adam", "rate": 1e-3, "units": 1, **wrong}, 0)
    with pytest.raises(StoreDamaged, match="trial 0 cannot be given back"):
        OptunaSampler(spec(TREE)).restore([(trial, {})])


def test_cma_es_refuses_what_it_cannot_model() -> None:
    with pytest.raises(UsageError, match="CMA_ES cannot search with parameters with conditions"):
        OptunaSampler(spec(TREE, Algorithm.CMA_ES))
    with pytest.raises(UsageError, match="several objectives"):
        OptunaSampler(spec((Double("x", 0, 1),), Algorithm.CMA_ES, TWO))


# -- several objectives --------------------------------------------------------------------------------

TWO = (Objective("loss", Goal.MINIMIZE), Objective("speed", Goal.MAXIMIZE))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_several_objectives_are_told_and_the_same_after_a_rebuild(algorithm: Algorithm) -> None:
    trials = 20 if algorithm is not Algorithm.GP else 7
    sweep = Sweep(spec(TREE[-1:] + TREE[:1], algorithm, TWO))
    seen = sweep.run(trials)
    told = sweep.sampler._study.trials
    assert [t.state for t in told[:6]] == [TrialState.COMPLETE] * 5 + [TrialState.FAIL]
    assert told[0].values == [loss(seen[0]), -loss(seen[0])]
    assert Sweep(sweep.file, rebuild_every=3).run(trials) == seen


@pytest.mark.parametrize("algorithm", [Algorithm.TPE, Algorithm.NSGA_II])
def test_the_front_of_two_objectives_is_approached(algorithm: Algorithm) -> None:
    """Schaffer's problem in four numbers: the sums of x^2 and of (x-2)^2, with the front at 0 <= x <= 2."""
    space = tuple(Double(name, -100, 100) for name in "abcd")
    sampler = OptunaSampler(spec(space, algorithm, (TWO[0], Objective("other", Goal.MINIMIZE))))
    distances = []
    for number in range(150):
        suggestion = sampler.ask(number)
        assert suggestion
        xs = [float(x) for x in suggestion.params.values()]
        distances.append(sum(abs(x - 1) for x in xs))
        trial = Trial(number, "t", suggestion.params, 0)
        measured = {"loss": sum(x * x for x in xs), "other": sum((x - 2) ** 2 for x in xs)}
        trial.measurements.append(Measurement(1, measured))
        trial.ending = Ending(State.COMPLETED, "done")
        sampler.ended(trial)
    assert sum(distances[-20:]) < sum(distances[:20]) / 2


def test_a_constraint_is_learned_and_the_same_after_a_rebuild() -> None:
    safe = Constraint(Objective("memory", Goal.MINIMIZE), 0.3)
    file = spec((Double("x", 0, 1),), objectives=(Objective("loss", Goal.MAXIMIZE),), constraints=(safe,))
    sampler, xs = OptunaSampler(file), []
    history: list[tuple[Trial, Mapping[str, object]]] = []
    for number in range(60):
        suggestion = sampler.ask(number)
        assert suggestion
        x = float(suggestion.params["x"])
        xs.append(x)
        trial = Trial(number, "t", suggestion.params, 0)
        trial.measurements.append(Measurement(1, {"loss": x, "memory": x}))
        trial.ending = Ending(State.COMPLETED, "done")
        sampler.ended(trial)
        history.append((trial, suggestion.attributes))
    # The best by the objective alone is 1; nothing above 0.3 is safe.
    assert sum(x < 0.45 for x in xs[-20:]) >= 15
    rebuilt = OptunaSampler(file)
    rebuilt.restore(history)
    assert rebuilt.ask(60) == sampler.ask(60)
