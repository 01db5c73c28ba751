"""The Optuna door: spaces, true states, no repeats, and rebuilding as if never interrupted."""

from __future__ import annotations

import json
import logging
import math
import pickle
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hpsearch.errors import StoreDamaged, UsageError
from hpsearch.spec.model import (
    Algorithm,
    Categorical,
    Discrete,
    Double,
    Goal,
    Integer,
    Objective,
    Parameter,
    Params,
    SamplerSpec,
    Scale,
    SearchSpace,
    Spec,
)
from hpsearch.study import sampling
from hpsearch.study.sampling import OptunaSampler
from hpsearch.study.trial import Ending, Measurement, State, Trial

MIXED = (
    Double("Learning Rate/π", 1e-5, 0.1 + 0.2, Scale.LOG),
    Double("momentum", 0.001, 1.0, Scale.REVERSE_LOG),
    Double("dropout", -0.5, 0.7),
    Integer("units", 1, 1000, Scale.LOG),
    Integer("late", 1, 100, Scale.REVERSE_LOG),
    Discrete("batch", (16, 24.5, 64)),
    Categorical("optimizer", ("sgd", "adam", "rmsprop")),
    Integer("layers", 3, 3),
    Categorical("device", ("cpu",)),
    Double("fixed", 0.5, 0.5, Scale.LOG),
)
SMALL = (Integer("a", -1, 1), Discrete("b", (1, 2.5)), Categorical("c", ("x", "y")), Double("d", 2.0, 2.0))


def spec(
    algorithm: Algorithm,
    space: tuple[Parameter, ...] = MIXED,
    seed: int = 0,
    startup: int | None = None,
    goal: Goal = Goal.MINIMIZE,
) -> Spec:
    return Spec(
        source="x.yaml",
        text="",
        sha256="",
        dialect="hpsearch",
        module="trainer",
        args=(),
        space=SearchSpace(space),
        objectives=(Objective("loss", goal),),
        sampler=SamplerSpec(algorithm, seed, startup),
    )


def loss(params: Params, step: int) -> float:
    """A random but fixed objective: a slope in every number, and noise from the point itself."""
    numbers = [value for value in params.values() if not isinstance(value, str)]
    noise = random.Random(f"{list(params.values())}:{step}").gauss(0, 0.1)
    return sum(math.log1p(abs(x)) for x in numbers) / step + noise


def completed(number: int, **metrics: float) -> Trial:
    """A trial that reported some metrics once, and completed."""
    trial = Trial(number, f"t{number}", {}, 0, measurements=[Measurement(1, metrics)])
    trial.ending = Ending(State.COMPLETED, "done")
    return trial


class Sweep:
    """A search with three trials at a time, whose sampler can be rebuilt after every k-th event."""

    def __init__(self, spec: Spec, trials: int, rebuild_every: int | None = None) -> None:
        self.spec = spec
        self.trials = trials
        self.rebuild_every = rebuild_every
        self.sampler = OptunaSampler(spec)
        self.history: list[tuple[Trial, Mapping[str, object]]] = []
        self.events = 0

    def event(self) -> None:
        self.events += 1
        if self.rebuild_every and self.events % self.rebuild_every == 0:
            self.sampler = OptunaSampler(self.spec)
            self.sampler.restore((t, json.loads(json.dumps(a, allow_nan=False))) for t, a in self.history)

    def suggest(self) -> bool:
        number = len(self.history)
        suggestion = self.sampler.ask(number) if number < self.trials else None
        if suggestion is None:
            return False
        params = json.loads(json.dumps(dict(suggestion.params)))
        assert params == suggestion.params
        self.history.append((Trial(number, f"t{number}", params, 0), suggestion.attributes))
        self.event()
        return True

    def advance(self, trial: Trial) -> None:
        step = len(trial.measurements) + 1
        value = math.nan if trial.number % 11 == 5 and step == 2 else loss(trial.params, step)
        fate = {3: State.PRUNED, 7: State.FAILED, 9: State.INFEASIBLE}.get(trial.number % 10, State.COMPLETED)
        if step > 1 + trial.number % 3:
            trial.ending = Ending(fate, "as it was fated")
            self.sampler.ended(trial)
        else:
            trial.measurements.append(Measurement(step, {"loss": value, "other": 1.0}))
            self.sampler.measured(trial.number, step, value)
        self.event()

    def run(self) -> list[Params]:
        while True:
            running = [trial for trial, _ in self.history if trial.ending is None]
            if (len(running) < 3 and self.suggest()) or not running:
                if not running and len(self.history) == self.trials:
                    break
                continue
            # The order in which trials report is mixed, but the same in every run.
            self.advance(running[self.events % len(running)])
        return [trial.params for trial, _ in self.history]


@pytest.mark.parametrize(
    ("algorithm", "space", "trials"),
    [
        (Algorithm.TPE, MIXED, 40),
        (Algorithm.CMA_ES, MIXED, 40),
        (Algorithm.CMA_ES, (Double("x", 0.1, 0.7),), 40),
        (Algorithm.QMC, MIXED, 40),
        (Algorithm.RANDOM, MIXED, 40),
        (Algorithm.NSGA_II, MIXED, 40),
        (Algorithm.TPE, (Integer("a", 1, 8), Discrete("b", (1, 2, 3, 4, 5))), 40),
        (Algorithm.CMA_ES, (Integer("a", 1, 8), Discrete("b", (1, 2, 3, 4, 5))), 40),
        (Algorithm.QMC, (Integer("a", 1, 8), Discrete("b", (1, 2, 3, 4, 5))), 40),
        (Algorithm.GRID, (Integer("a", 1, 8), Discrete("b", (1, 2, 3, 4, 5))), 40),
        (Algorithm.GP, MIXED[:2], 11),
    ],
)
def test_a_search_rebuilt_after_every_few_events_tries_what_an_uninterrupted_one_tries(
    algorithm: Algorithm, space: tuple[Parameter, ...], trials: int
) -> None:
    file = spec(algorithm, space, seed=7, startup=6)
    uninterrupted = Sweep(file, trials).run()
    assert len(uninterrupted) == trials
    for every in (1, 7) if algorithm is not Algorithm.GP else (7,):
        assert Sweep(file, trials, rebuild_every=every).run() == uninterrupted


@pytest.mark.parametrize("algorithm", [a for a in Algorithm if a not in (Algorithm.GRID, Algorithm.GP)])
def test_the_seed_and_nothing_else_decides_what_is_tried(algorithm: Algorithm) -> None:
    first, again, other = (Sweep(spec(algorithm, seed=seed), 15).run() for seed in (1, 1, 2))
    assert first == again
    assert all(one != two for one, two in zip(first, other, strict=True))


@pytest.mark.parametrize("algorithm", [a for a in Algorithm if a is not Algorithm.GRID])
def test_every_parameter_is_proposed_in_file_order_within_its_bounds_and_in_its_type(
    algorithm: Algorithm,
) -> None:
    for params in Sweep(spec(algorithm, startup=5), 9 if algorithm is Algorithm.GP else 60).run():
        assert list(params) == [parameter.name for parameter in MIXED]
        for parameter in MIXED:
            value = params[parameter.name]
            if isinstance(parameter, Discrete | Categorical):
                assert any(value is listed or (value == listed) for listed in parameter.values)
                assert type(value) in (int, float, str)
            else:
                assert type(value) is (int if isinstance(parameter, Integer) else float)
                assert parameter.low <= value <= parameter.high


def draws(parameter: Parameter, many: int = 400) -> list[Any]:
    sampler = OptunaSampler(spec(Algorithm.RANDOM, (parameter, Double("other", 0, 1))))
    found = [sampler.ask(number) for number in range(many)]
    return [suggestion.params[parameter.name] for suggestion in found if suggestion]


def test_both_ends_of_integers_are_drawn_on_every_scale() -> None:
    for scale in Scale:
        assert set(draws(Integer("n", 1, 4, scale))) == {1, 2, 3, 4}


def test_log_draws_lie_as_often_in_every_decade_and_reverse_log_draws_are_their_mirror_image() -> None:
    low = draws(Double("x", 1e-4, 1.0, Scale.LOG))
    assert 150 < sum(x < 1e-2 for x in low) < 250
    high = draws(Double("x", 1e-4, 1.0, Scale.REVERSE_LOG))
    assert 150 < sum(x > 1.0001 - 1e-2 for x in high) < 250
    assert high == pytest.approx([1.0001 - x for x in low])


def test_reverse_log_integers_crowd_at_the_upper_end() -> None:
    assert draws(Integer("n", 1, 100, Scale.REVERSE_LOG)) == [
        101 - n for n in draws(Integer("n", 1, 100, Scale.LOG))
    ]


def test_listed_numbers_are_drawn_equally_often_however_far_apart_they_are() -> None:
    found = draws(Discrete("batch", (1, 2, 1000.5)))
    assert all(100 < found.count(value) < 170 for value in (1, 2, 1000.5))
    assert {type(value) for value in found} == {int, float}


@pytest.mark.parametrize("algorithm", [a for a in Algorithm if a is not Algorithm.GP])
def test_a_finite_space_is_tried_without_repeats_until_nothing_is_left(algorithm: Algorithm) -> None:
    sweep = Sweep(spec(algorithm, SMALL, startup=2), 99)
    while len(sweep.history) < 12:
        assert sweep.suggest()
        sweep.advance(sweep.history[-1][0])
        sweep.advance(sweep.history[-1][0])
    assert len({tuple(trial.params.values()) for trial, _ in sweep.history}) == 12
    assert sweep.sampler.ask(12) is None
    rebuilt = OptunaSampler(sweep.spec)
    rebuilt.restore(sweep.history)
    assert rebuilt.ask(12) is None


def test_a_big_finite_space_is_not_enumerated_and_not_repeated() -> None:
    sampler = OptunaSampler(spec(Algorithm.QMC, (Integer("a", 1, 10**9, Scale.LOG), Integer("b", 1, 3))))
    found = [sampler.ask(number) for number in range(200)]
    assert len({tuple(s.params.values()) for s in found if s}) == 200


def test_a_space_of_constants_has_one_point() -> None:
    sampler = OptunaSampler(spec(Algorithm.TPE, (Integer("a", 3, 3), Categorical("b", ("x",)))))
    first = sampler.ask(0)
    assert first is not None and first.params == {"a": 3, "b": "x"}
    assert sampler.ask(1) is None


def test_the_first_parameter_of_a_grid_varies_fastest() -> None:
    sampler = OptunaSampler(spec(Algorithm.GRID, SMALL))
    found = [sampler.ask(number) for number in range(13)]
    assert found[12] is None
    assert [tuple(s.params.values()) for s in found[:5] if s] == [
        (-1, 1, "x", 2.0),
        (0, 1, "x", 2.0),
        (1, 1, "x", 2.0),
        (-1, 2.5, "x", 2.0),
        (0, 2.5, "x", 2.0),
    ]


def test_a_grid_refuses_a_real_range() -> None:
    with pytest.raises(UsageError, match="GRID cannot enumerate a DOUBLE"):
        OptunaSampler(spec(Algorithm.GRID, (Double("x", 0, 1),)))


def told(sampler: OptunaSampler) -> list[tuple[TrialState, float | None, dict[int, float]]]:
    return [(t.state, t.value, t.intermediate_values) for t in sampler._study.trials]


def test_every_state_is_told_truly_and_the_same_after_a_rebuild() -> None:
    sweep = Sweep(spec(Algorithm.RANDOM), 6)
    endings = [State.COMPLETED, State.PRUNED, State.FAILED, State.INFEASIBLE, State.COMPLETED, None]
    values = [(1.0, 2.0), (3.0, math.nan), (4.0,), (math.inf,), (), (5.0,)]
    for state, curve in zip(endings, values, strict=True):
        sweep.suggest()
        trial = sweep.history[-1][0]
        for step, value in enumerate(curve, 1):
            trial.measurements.append(Measurement(step, {"loss": value}))
            sweep.sampler.measured(trial.number, step, value)
        if state:
            trial.ending = Ending(state, "so")
            sweep.sampler.ended(trial)
    expected = [
        (TrialState.COMPLETE, 2.0, {1: 1.0, 2: 2.0}),
        (TrialState.PRUNED, 3.0, {1: 3.0}),
        (TrialState.FAIL, None, {1: 4.0}),
        (TrialState.FAIL, None, {}),
        (TrialState.FAIL, None, {}),
        (TrialState.RUNNING, None, {1: 5.0}),
    ]
    assert told(sweep.sampler) == expected
    rebuilt = OptunaSampler(sweep.spec)
    rebuilt.restore(sweep.history)
    assert told(rebuilt) == expected


def test_what_is_learned_follows_the_goal() -> None:
    for goal, better in ((Goal.MINIMIZE, min), (Goal.MAXIMIZE, max)):
        sampler = OptunaSampler(spec(Algorithm.TPE, (Double("x", 0.0, 1.0),), startup=5, goal=goal))
        for number in range(40):
            suggestion = sampler.ask(number)
            assert suggestion is not None
            x = float(suggestion.params["x"])
            sampler.measured(number, 1, x)
            sampler.ended(completed(number, loss=x))
        late = [t.params["x"] for t in sampler._study.trials[20:]]
        assert abs(sum(late) / 20 - better(0.0, 1.0)) < 0.25


def test_trial_numbers_may_have_gaps_and_start_at_any_number() -> None:
    sampler = OptunaSampler(spec(Algorithm.TPE))
    sampler.restore([])
    for number in (5, 9):
        assert sampler.ask(number)
        sampler.measured(number, 1, 1.0)
        sampler.ended(completed(number, loss=1.0))
    assert [state for state, _, _ in told(sampler)] == [TrialState.COMPLETE] * 2


# -- damage, and what may hide in a store --------------------------------------------------------------


def cma_history() -> list[tuple[Trial, Mapping[str, Any]]]:
    sweep = Sweep(spec(Algorithm.CMA_ES, startup=3), 30)
    sweep.run()
    assert sum("optimizer" in attributes for _, attributes in sweep.history) >= 2
    return sweep.history


def test_restoring_unpickles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    history = cma_history()
    sampler = OptunaSampler(spec(Algorithm.CMA_ES))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    sampler.restore(history)
    assert len(told(sampler)) == 30


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


@pytest.mark.parametrize("where", ["trial", "study", "optimizer", "internal"])
def test_a_pickle_planted_in_the_store_is_refused_and_never_run(where: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    planted = {"cma:optimizer:0": pickle.dumps(Evil(canary)).hex(), "cma:optimizer": "80"}
    history = [(t, {**a, where: planted} if t.number == 20 else a) for t, a in cma_history()]
    sampler = OptunaSampler(spec(Algorithm.CMA_ES))
    with pytest.raises(StoreDamaged, match="trial 20"):
        sampler.restore(history)
    assert not canary.exists()


@pytest.mark.parametrize(
    "damage",
    [
        {"optimizer": {"_g": 1}},
        {"optimizer": {"_g": "1"}},
        {"optimizer": {"_sigma": ["-0x1p-3"]}},
        {"optimizer": {"_mean": []}},
        {"optimizer": {"_mean": ["nan"] * 6}},
        {"optimizer": {"_mean": [0.5] * 6}},
        {"optimizer": {"_mean": ["0x1p99999"] * 6}},
        {"optimizer": {"_rng": 1}},
        {"optimizer": [1]},
        {"trial": {"cma:generation": "1"}},
        {"trial": {"cma:generation": -1}},
        {"trial": {"cma:generation": True}},
        {"trial": {"fixed_params": 1}},
        {"trial": 5},
        {"study": {"qmc:" + "0" * 64: 10**18}},
        {"study": {"NSGAIISampler:parent:1": [0, 10**6]}},
        {"internal": {"momentum": 0.123}},
        {"internal": {"momentum": "0.5"}},
        {"internal": {"nobody": 0.5}},
        {"surprise": {}},
    ],
)
def test_damaged_attributes_are_named_instead_of_believed(damage: dict[str, Any]) -> None:
    history = cma_history()
    trial, attributes = next((t, a) for t, a in history if "optimizer" in a)
    for key, value in damage.items():
        whole = isinstance(value, dict) and isinstance(attributes.get(key), dict) and value != {"_g": 1}
        merged = {**attributes[key], **value} if whole else value
        history[trial.number] = (trial, {**attributes, key: merged})
    with pytest.raises(StoreDamaged, match=f"trial {trial.number} "):
        OptunaSampler(spec(Algorithm.CMA_ES)).restore(history)


@pytest.mark.parametrize(
    "change",
    [
        {"units": 5000},
        {"units": 2.5},
        {"batch": 17},
        {"optimizer": "lion"},
        {"dropout": "0.1"},
        {"units": None},
    ],
)
def test_params_outside_of_the_space_are_not_given_to_the_sampler(change: dict[str, Any]) -> None:
    history = Sweep(spec(Algorithm.RANDOM), 2)
    history.run()
    trial, _ = history.history[1]
    trial.params = {**trial.params, **change}
    with pytest.raises(StoreDamaged, match=r"trial 1 .*not in the search space"):
        OptunaSampler(spec(Algorithm.RANDOM)).restore(history.history)


# -- the behaviour of the libraries that this door builds on --------------------------------------------


def test_optuna_learns_in_cma_es_only_what_the_store_keeps_and_the_rest_follows_from_the_dimensions() -> None:
    study = optuna.create_study(sampler=optuna.samplers.CmaEsSampler(seed=1))
    distributions = {name: optuna.distributions.FloatDistribution(0.1, 0.9) for name in "abc"}
    for _ in range(40):
        trial = study.ask(distributions)
        study.tell(trial, sum((x - 0.3) ** 2 for x in trial.params.values()))
    kept = [
        "".join(v for k, v in t.system_attrs.items() if k.startswith("cma:optimizer")) for t in study.trials
    ]
    pickles = [text for text in kept if text]
    assert len(pickles) >= 4
    for text in pickles:
        rebuilt = sampling._optimizer_from_json(sampling._optimizer_to_json(text), 3)
        ours, theirs = (pickle.loads(bytes.fromhex(p)).__getstate__() for p in (rebuilt, text))
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"_funhist_values"}:  # read only by should_stop, which Optuna never calls
            assert type(ours[name]) is type(theirs[name]), name
            assert pickle.dumps(ours[name]) == pickle.dumps(theirs[name]), name


def test_optuna_numbers_the_trials_of_a_study_in_memory_by_their_ids() -> None:
    # NSGA-II remembers parents by id; a rebuilt study must give the same ids.
    study = optuna.create_study(storage=optuna.storages.InMemoryStorage())
    study.add_trials([optuna.trial.create_trial(state=TrialState.FAIL) for _ in range(3)])
    study.ask()
    assert [t._trial_id for t in study.trials] == [t.number for t in study.trials] == [0, 1, 2, 3]


def test_optuna_takes_the_last_intermediate_value_of_a_pruned_trial_and_uses_it() -> None:
    study = optuna.create_study()
    trial = study.ask()
    trial.report(5.0, 1)
    trial.report(3.0, 7)
    assert study.tell(trial, state=TrialState.PRUNED).value == 3.0


def test_the_door_is_silent_and_leaves_the_root_logger_alone(capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    Sweep(spec(Algorithm.CMA_ES), 8).run()  # Optuna warns of texts in CMA-ES
    Sweep(spec(Algorithm.QMC), 8).run()
    assert (root.level, list(root.handlers)) == before
    assert capfd.readouterr() == ("", "")


def test_a_history_of_a_thousand_trials_is_taken_over_quickly() -> None:
    sweep = Sweep(spec(Algorithm.RANDOM), 1000)
    sweep.run()
    sampler = OptunaSampler(spec(Algorithm.TPE))
    started = time.perf_counter()
    sampler.restore((trial, attributes) for trial, attributes in sweep.history)
    assert time.perf_counter() - started < 2.0  # about 0.2 s on a free core
    started = time.perf_counter()
    assert sampler.ask(1000)
    assert time.perf_counter() - started < 1.0  # about 0.05 s
