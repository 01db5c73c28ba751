"""The Optuna door: proposes params from a history told truly; hides optuna and cmaes.

The study lives in memory and is rebuilt from the store. Each proposal comes from a fresh sampler
seeded by (study seed, trial number), so an interrupted and rebuilt search proposes what an uninterrupted
one would. What a sampler must remember beyond the trials travels as JSON in `Suggestion.attributes`.
"""

from __future__ import annotations

import heapq
import math
import pickle
import re
import warnings
from collections.abc import Container, Iterable, Mapping
from typing import Any

import cmaes
import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpsearch.errors import StoreDamaged, UsageError
from hpsearch.spec.model import (
    Algorithm,
    Categorical,
    Discrete,
    Double,
    Goal,
    Integer,
    Parameter,
    Params,
    Scale,
    Spec,
    Value,
    key_of,
)
from hpsearch.study import points
from hpsearch.study.seeds import seed_of
from hpsearch.study.trial import State, Suggestion, Trial

# What TPE compares, beside the best of all: of 10,000 trials a proposal took 0.2 s, in the driver's loop.
WINDOW, BEST = 1_000, 25
GP_TRIALS = 300  # a GP proposal takes 0.4 s after this many trials, and the time grows with their cube
_TRIAL_ATTRIBUTE = re.compile(r"cma:generation|NSGAIISampler:generation")
_STUDY_ATTRIBUTE = re.compile(r"qmc:[0-9a-f]{64}|NSGAIISampler:parent:[0-9]+")
_OPTIMIZER = "cma:optimizer"
_PROPOSAL = ":relative_params:"
_LEARNED = ("_mean", "_sigma", "_c_1d", "_p_sigma", "_pc")


class OptunaSampler:
    """Proposes params for trials by the spec's algorithm; UsageError if it cannot search the space."""

    def __init__(self, spec: Spec) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._spec = spec
        self._distributions = {
            key_of(parameter): _distribution(parameter)
            for parameter in spec.space.parameters
            if not points.is_constant(parameter)
        }
        self._inexact = {key_of(p): p for p in spec.space.parameters if points.is_inexact(p)}
        self._names = {key_of(parameter): parameter.name for parameter in spec.space.parameters}
        self._points = points.Points(spec.space)
        self._several = len(spec.objectives) > 1
        if spec.sampler.type is Algorithm.GRID and self._points.size is None:
            raise UsageError("GRID cannot enumerate a DOUBLE", hint="use DISCRETE values or another sampler")
        if spec.sampler.type is Algorithm.CMA_ES and (self._several or spec.space.conditional):
            what = "several objectives" if self._several else "parameters with conditions"
            raise UsageError(f"CMA_ES cannot search with {what}", hint="use TPE")
        windowed = spec.sampler.type in (Algorithm.TPE, Algorithm.GP)
        self._storage = _Window() if windowed else optuna.storages.InMemoryStorage()
        self._study = optuna.create_study(
            storage=self._storage,
            directions=["minimize" if o.goal is Goal.MINIMIZE else "maximize" for o in spec.objectives],
            pruner=optuna.pruners.NopPruner(),
        )
        self._study_id = self._storage.get_study_id_from_name(self._study.study_name)
        self._numbers: dict[int, int] = {}  # our trial number -> Optuna's, which has no gaps

    def ask(self, number: int) -> Suggestion | None:
        """A proposal for a new trial, or None when every point of a finite space has been tried."""
        if self._points.exhausted:
            return None
        before = dict(self._storage.get_study_system_attrs(self._study_id))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = self._sampler(number)
            asked = self._study.ask()
            params, drawn = self._draw(asked)
        self._numbers[number] = asked.number
        attributes = self._attributes(number, drawn, before)
        instead = self._instead(params, number)
        if instead is not None:
            params, before_drawn, drawn = instead, drawn, self._encode(instead)
            attributes.pop("internal", None)
            if drawn.keys() != before_drawn.keys():
                # Optuna's own trial keeps what was drawn, which is of another branch of the space.
                self._study.tell(asked, state=TrialState.FAIL)
                self._study.add_trial(self._running(number, drawn, attributes))
                self._numbers[number] = asked.number + 1
        self._settle(number, drawn)
        self._points.add(params)
        return Suggestion(params, attributes)

    def measured(self, number: int, step: int, value: float) -> None:
        """Tell a running trial's objective at a step; what is not finite is not told."""
        if math.isfinite(value) and not self._several:
            self._storage.set_trial_intermediate_value(self._trial_id(number), step, value)

    def ended(self, trial: Trial) -> None:
        """Tell how a trial ended; values count for completed trials only."""
        values = trial.outcomes(self._spec) if trial.state is State.COMPLETED else None
        told = _told(trial.state, values)
        if told is TrialState.COMPLETE:
            kept = optuna.trial.create_trial(
                state=TrialState.FAIL, constraints=self._violations(trial)
            ).system_attrs
            for key, value in kept.items():
                self._storage.set_trial_system_attr(self._trial_id(trial.number), key, value)
        self._study.tell(self._numbers[trial.number], values if told is TrialState.COMPLETE else None, told)

    def restore(self, history: Iterable[tuple[Trial, Mapping[str, object]]]) -> None:
        """Take over a history (trials in order of their numbers) into a fresh sampler; StoreDamaged."""
        trials = []
        for trial, attributes in history:
            try:
                trials.append(self._frozen(trial, attributes))
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
                raise StoreDamaged(
                    f"trial {trial.number} cannot be given back to the sampler: {error}",
                    hint="restore the store from a backup, or start a new study",
                ) from error
            self._numbers[trial.number] = len(self._numbers)
        self._study.add_trials(trials)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """A fresh sampler whose draws depend on the study's seed and the trial's number only."""
        settings = self._spec.sampler
        seed = seed_of(settings.seed, number)
        startup = settings.startup_trials
        algorithm = settings.type
        if algorithm is Algorithm.GP and len(self._numbers) >= GP_TRIALS:
            algorithm = Algorithm.TPE
        match algorithm:
            case Algorithm.TPE:
                return optuna.samplers.TPESampler(
                    seed=seed,
                    n_startup_trials=10 if startup is None else startup,
                    multivariate=True,
                    group=self._spec.space.conditional,
                    constant_liar=True,
                )
            case Algorithm.GP:
                return optuna.samplers.GPSampler(
                    seed=seed, n_startup_trials=10 if startup is None else startup
                )
            case Algorithm.CMA_ES:
                return optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=startup or 1)
            case Algorithm.QMC:
                # One sequence for the whole study; only its very first trial is drawn at random.
                first = optuna.samplers.RandomSampler(seed=seed)
                return optuna.samplers.QMCSampler(
                    scramble=True, seed=settings.seed, independent_sampler=first
                )
            case Algorithm.NSGA_II:
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(startup or 50, 2))
            case Algorithm.RANDOM | Algorithm.GRID:
                return optuna.samplers.RandomSampler(seed=seed)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, self._numbers[number])

    def _draw(self, asked: optuna.Trial) -> tuple[Params, dict[str, Value]]:
        """What the sampler proposes: the active params by name, and its internal values by key."""
        drawn: dict[str, Value] = {}

        def choose(parameter: Parameter) -> Value:
            key = key_of(parameter)
            if key not in self._distributions:
                return points.value_at(parameter, 0)
            drawn[key] = _suggested(asked, key, self._distributions[key])
            return points.decode(parameter, drawn[key])

        values = self._spec.space.walk(choose)
        return {self._names[key]: value for key, value in values.items()}, drawn

    def _instead(self, params: Params, number: int) -> Params | None:
        """The point to try instead of the proposed one: the file's first, the grid's next, an untried one."""
        if self._spec.first is not None and len(self._numbers) == 1:
            return self._spec.first
        if self._spec.sampler.type is Algorithm.GRID:
            return self._points.next_untried()
        if self._points.tried(params):
            return self._points.random_untried(seed_of(self._spec.sampler.seed, number, "untried"))
        return None

    def _encode(self, params: Params) -> dict[str, Value]:
        """The internal values by key of some params; ValueError or KeyError if they do not fit the space."""
        active = self._spec.space.active(params)
        if active.keys() != params.keys():
            raise ValueError(f"{', '.join(params.keys() - active.keys())} is not active")
        pairs = {
            key_of(parameter): points.encode(parameter, params[name]) for name, parameter in active.items()
        }
        return {key: internal for key, internal in pairs.items() if key in self._distributions}

    def _settle(self, number: int, drawn: Mapping[str, Value]) -> None:
        """Make what Optuna holds of its proposal the same as what a restart would tell it."""
        trial_id = self._trial_id(number)
        for key, internal in drawn.items():
            distribution = self._distributions[key]
            self._storage.set_trial_param(
                trial_id, key, distribution.to_internal_repr(internal), distribution
            )
        for key in self._storage.get_trial_system_attrs(trial_id).copy():
            if _PROPOSAL in key:  # of all branches of the space, also those that are not active
                self._storage.set_trial_system_attr(trial_id, key, "")

    def _attributes(
        self, number: int, drawn: Mapping[str, Value], before: Mapping[str, Any]
    ) -> dict[str, object]:
        """What Optuna would have to remember of this proposal after a restart, as JSON types."""
        trial = self._storage.get_trial_system_attrs(self._trial_id(number))
        study = self._storage.get_study_system_attrs(self._study_id)
        pickled = "".join(trial[key] for key in trial if key.startswith(_OPTIMIZER))
        kept: dict[str, object] = {
            "internal": {key: t for key, t in drawn.items() if key in self._inexact},
            "trial": {key: value for key, value in trial.items() if _TRIAL_ATTRIBUTE.fullmatch(key)},
            "study": {
                key: self._ours(value)
                for key, value in study.items()
                if _STUDY_ATTRIBUTE.fullmatch(key) and before.get(key) != value
            },
            "optimizer": _optimizer_to_json(pickled) if pickled else {},
        }
        return {key: value for key, value in kept.items() if value}

    def _ours(self, kept: Any) -> Any:
        """A list of Optuna's trial numbers, NSGA-II's parents, as ours; a number as it is."""
        if not isinstance(kept, list):
            return kept
        ours = {optunas: number for number, optunas in self._numbers.items()}
        return [ours[each] for each in kept]

    def _frozen(self, trial: Trial, attributes: Mapping[str, Any]) -> FrozenTrial:
        """A stored trial in Optuna's form; ValueError and the like if it does not fit the space."""
        drawn = self._encode(trial.params)
        if not attributes.keys() <= {"internal", "trial", "study", "optimizer"}:
            raise ValueError(f"unknown attributes: {sorted(attributes)}")
        for key, internal in attributes.get("internal", {}).items():
            parameter, value = self._inexact[key], trial.params[self._names[key]]
            if type(internal) is not float or points.decode(parameter, internal) != value:
                raise ValueError(f"{parameter.name} = {value!r} does not come from {internal!r}")
            drawn[key] = internal
        self._points.add(trial.params)
        most = max(trial.number, len(self._numbers))
        system = self._system(attributes, most)
        for key, kept in _whole_numbers(attributes.get("study", {}), _STUDY_ATTRIBUTE, most).items():
            optunas = [self._numbers[number] for number in kept] if isinstance(kept, list) else kept
            self._storage.set_study_system_attr(self._study_id, key, optunas)
        values = trial.outcomes(self._spec)
        state = TrialState.RUNNING if trial.ending is None else _told(trial.state, values)
        measured = {} if self._several else dict(trial.values(self._spec.objective.metric))
        if state is not TrialState.COMPLETE:
            last = measured[max(measured)] if measured and state is TrialState.PRUNED else None
            values = None if last is None else (last,)
        return optuna.trial.create_trial(
            state=state,
            values=values,
            params=drawn,
            distributions={key: self._distributions[key] for key in drawn},
            intermediate_values=measured,
            constraints=self._violations(trial) if state is TrialState.COMPLETE else None,
            system_attrs=system,
        )

    def _running(self, number: int, drawn: Mapping[str, Value], attributes: Mapping[str, Any]) -> FrozenTrial:
        """A trial that is about to start, in Optuna's form."""
        return optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=dict(drawn),
            distributions={key: self._distributions[key] for key in drawn},
            system_attrs=self._system(attributes, max(number, len(self._numbers))),
        )

    def _system(self, attributes: Mapping[str, Any], most: int) -> dict[str, Any]:
        """What a sampler keeps with a trial, in Optuna's form.

        No generation, sequence index or parent is beyond `most`, the number of trials before.
        """
        system: dict[str, Any] = _whole_numbers(attributes.get("trial", {}), _TRIAL_ATTRIBUTE, most)
        if optimizer := attributes.get("optimizer"):
            system[f"{_OPTIMIZER}:0"] = _optimizer_from_json(optimizer, self._dimensions())
        return system

    def _violations(self, trial: Trial) -> dict[str, float]:
        """How much each constraint is violated at the trial's end; one never measured is violated."""
        found = {}
        for constraint in self._spec.constraints:
            values = trial.values(constraint.objective.metric)
            found[constraint.objective.metric] = constraint.violation(values[-1][1]) if values else math.inf
        return found

    def _dimensions(self) -> int:
        """How many parameters CMA-ES moves: it leaves texts to chance."""
        return sum(not isinstance(d, CategoricalDistribution) for d in self._distributions.values())


class _Window(optuna.storages.InMemoryStorage):
    """Optuna's storage, which shows a sampler the newest trials and the best ones before them.

    A function of the trials alone, so that a rebuilt search is shown what an uninterrupted one is. Inherits
    because Optuna demands it; samplers that find trials by their place in the list do without it.
    """

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Those of some states, in the order of their numbers; all of them where they are copied."""
        if deepcopy or len(self._studies[study_id].trials) <= WINDOW + BEST:
            return super().get_all_trials(study_id, deepcopy, states)
        with self._lock:
            study = self._studies[study_id]
            before, recent = study.trials[:-WINDOW], study.trials[-WINDOW:]
            sign = 1.0 if study.directions[0] is StudyDirection.MINIMIZE else -1.0
            ended = (trial for trial in before if trial.state is TrialState.COMPLETE)
            best = heapq.nsmallest(BEST, ended, key=lambda trial: (sign * trial.values[0], trial.number))
            shown = [*sorted(best, key=lambda trial: trial.number), *recent]
            return [trial for trial in shown if states is None or trial.state in states]


def _distribution(parameter: Parameter) -> BaseDistribution:
    """What Optuna draws for a parameter that is not constant; both ends are included."""
    match parameter:
        case Categorical(values=texts):
            return CategoricalDistribution(texts)
        case Discrete(values=values):
            return IntDistribution(0, len(values) - 1)
        case Integer(low=low, high=high, scale=scale):
            return IntDistribution(low, high, log=scale is not Scale.LINEAR)
        case Double(low=low, high=high, scale=scale):
            return FloatDistribution(low, high, log=scale is not Scale.LINEAR)


def _suggested(asked: optuna.Trial, key: str, distribution: BaseDistribution) -> Value:
    """What Optuna proposes for one parameter, within its bounds, which its transformations may miss."""
    if isinstance(distribution, FloatDistribution):
        low, high = distribution.low, distribution.high
        return min(max(asked.suggest_float(key, low, high, log=distribution.log), low), high)
    if isinstance(distribution, IntDistribution):
        return asked.suggest_int(key, distribution.low, distribution.high, log=distribution.log)
    assert isinstance(distribution, CategoricalDistribution)
    return str(asked.suggest_categorical(key, distribution.choices))


def _told(state: State, values: tuple[float, ...] | None) -> TrialState:
    """Optuna's word for an ending; a trial is complete only with a value for each objective."""
    if state is State.COMPLETED and values:
        return TrialState.COMPLETE
    return TrialState.PRUNED if state is State.PRUNED else TrialState.FAIL


def _whole_numbers(kept: Mapping[str, Any], names: re.Pattern[str], most: int) -> dict[str, Any]:
    """Stored attributes, once proved to be known names with whole numbers up to `most` or lists of them.

    Above all no text passes: Optuna would unpickle one that is called `cma:optimizer`.
    """
    for name, value in kept.items():
        numbers = value if isinstance(value, list) else [value]
        if not names.fullmatch(name) or any(type(n) is not int or not 0 <= n <= most for n in numbers):
            raise ValueError(f"{name!r} = {value!r} is not an attribute of a sampler")
    return dict(kept)


def _optimizer_to_json(pickled: str) -> dict[str, object]:
    """What CMA-ES has learned (every float in hexadecimal, bit for bit) from Optuna's own pickle."""
    # Optuna has put this text into our own memory a moment ago: nothing from a store comes here.
    state = pickle.loads(bytes.fromhex(pickled)).__getstate__()
    learned = {name: [float(x).hex() for x in np.atleast_1d(state[name])] for name in _LEARNED}
    return {"_g": state["_g"], **learned}


def _optimizer_from_json(kept: Mapping[str, Any], dimensions: int) -> str:
    """The pickle Optuna expects, of an optimizer built here; ValueError or TypeError if damaged.

    All but what was learned follows from the number of dimensions (optuna 5.0, samplers/_cmaes.py,
    `_init_optimizer`, on the unit cube).
    """
    known = kept.keys() == {"_g", *_LEARNED}
    if dimensions < 1 or not known or type(kept["_g"]) is not int or kept["_g"] < 1:
        raise ValueError("the state of CMA-ES is damaged")
    optimizer = cmaes.CMA(
        mean=np.full(dimensions, 0.5),
        sigma=np.float64(1 / 6),
        bounds=np.tile([0.0, 1.0], (dimensions, 1)),
        n_max_resampling=10 * dimensions,
    )
    state = optimizer.__getstate__()
    state["_g"] = kept["_g"]
    for name in _LEARNED:
        learned = np.array([float.fromhex(text) for text in kept[name]])
        if learned.shape != np.atleast_1d(state[name]).shape or not np.isfinite(learned).all():
            raise ValueError(f"the state of CMA-ES is damaged: {name} has {learned.size} values")
        state[name] = learned[0] if name == "_sigma" else learned
    if state["_sigma"] <= 0:
        raise ValueError(f"the state of CMA-ES is damaged: its step size is {state['_sigma']}")
    optimizer.__setstate__(state)
    return pickle.dumps(optimizer).hex()
