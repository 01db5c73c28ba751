"""Facts as the documented JSON objects (design, section 8): pure, and free of NaN and infinity."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsearch.spec.model import (
    Categorical,
    Constraint,
    Discrete,
    Double,
    Integer,
    Objective,
    Parameter,
    Problem,
    Reading,
    Scale,
    SearchSpace,
    Spec,
    key_of,
)
from hpsearch.study.front import best_of, front_of
from hpsearch.study.trial import State, Study, Trial

if TYPE_CHECKING:  # `check` answers without loading the store's library
    from hpsearch.study.history import History

Json = dict[str, Any]

RUNNING = "running"
INTERRUPTED = "interrupted"
UNREADABLE = "unreadable"

SCALES = {
    Scale.LINEAR: "UNIT_LINEAR_SCALE",
    Scale.LOG: "UNIT_LOG_SCALE",
    Scale.REVERSE_LOG: "UNIT_REVERSE_LOG_SCALE",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def check(reading: Reading) -> Json:
    """The object of `check --json`; without a Spec there are no parameters, and the counts are null."""
    spec = reading.spec
    return {
        "file": reading.file,
        "dialect": reading.dialect,
        "valid": spec is not None,
        "errors": [_problem(problem) for problem in reading.errors],
        "warnings": [_problem(problem) for problem in reading.warnings],
        "parameters": parameters(spec.space) if spec else [],
        "objectives": _objectives(spec) if spec else [],
        "maxTrials": spec.max_trials if spec else None,
        "maxParallelTrials": spec.max_parallel_trials if spec else None,
    }


def parameters(space: SearchSpace) -> list[Json]:
    """The parameters in the order of the file; what does not apply to one is null.

    `condition` names the parent and its values for which the parameter is active.
    """
    names = {key_of(each): each.name for each in space.parameters}
    answers = []
    for each in space.parameters:
        condition = each.condition and {
            "parent": names[each.condition.parent],
            "values": list(each.condition.values),
        }
        answers.append(_parameter(each) | {"condition": condition})
    return answers


def trials(history: History) -> Json:
    """The object of `trials --json`."""
    study = history.study
    return {"study": study.name, "trials": [trial(one, study) for one in history.trials]}


def trial(found: Trial, study: Study) -> Json:
    """One trial; `step` is the last measured, `attempts` a number, the times are UTC."""
    values = objectives_of(found, study.spec)
    return {
        "number": found.number,
        "uid": found.uid,
        "state": str(found.state),
        "reason": found.ending.reason if found.ending else None,
        "params": {name: strict(value) for name, value in found.params.items()},
        "step": found.step,
        "objective": values[study.spec.objective.metric],
        "objectives": values,
        "attempts": len(found.attempts),
        "started": moment(found.attempts[0].started if found.attempts else None),
        "ended": moment(found.ending.time if found.ending else None),
    }


def seen(found: Trial, objective: Objective, spec: Spec) -> tuple[int, float] | None:
    """The (step, value) that counts; the last finite one where none counts yet or ever; infeasible: None."""
    if found.state is State.INFEASIBLE:
        return None
    if found.state is State.COMPLETED:
        return found.outcome(objective, spec.selection)
    return last(found, objective.metric)


def last(found: Trial, metric: str) -> tuple[int, float] | None:
    """The last finite (step, value) of a metric."""
    values = found.values(metric)
    return values[-1] if values else None


def objectives_of(found: Trial, spec: Spec) -> dict[str, float | None]:
    """The value of each objective by its metric, as `seen` has it."""
    pairs = {objective.metric: seen(found, objective, spec) for objective in spec.objectives}
    return {metric: pair[1] if pair else None for metric, pair in pairs.items()}


def ranked(found: Iterable[Trial], spec: Spec) -> list[Trial]:
    """Trials with a first objective, the best first, the earlier one of equals first."""
    pairs = [(one, seen(one, spec.objective, spec)) for one in found]
    scored = [(spec.objective.cost(pair[1]), one.number, one) for one, pair in pairs if pair]
    return [one for _, _, one in sorted(scored, key=lambda each: each[:2])]


def best(history: History) -> Json:
    """The object of `best --json`; while no trial is the best, trial, values and step are null.

    `front`: the trials than which no other is better in every objective, by number; `value` and `step`
    are those of the first objective; `constraints` have the values that the trial kept them with.
    """
    study, spec = history.study, history.study.spec
    winner = best_of(history.trials, study)
    outcome = winner.outcome(spec.objective, spec.selection) if winner else None
    values = objectives_of(winner, spec) if winner else {}
    return {
        "study": study.name,
        "trial": trial(winner, study) if winner else None,
        "metric": spec.objective.metric,
        "goal": str(spec.objective.goal),
        "value": outcome[1] if outcome else None,
        "step": outcome[0] if outcome else None,
        "objectives": [told | {"value": values.get(told["metric"])} for told in _objectives(spec)],
        "constraints": [_constraint(each, winner) for each in spec.constraints],
        "front": [trial(one, study) for one in front_of(history.trials, study)],
    }


def show(history: History, *, owned: bool, tracking_uri: str) -> Json:
    """The object of `show --json`; `tracking_uri` is the study's, fit to be shown, `best` a trial or null."""
    study = history.study
    winner = best_of(history.trials, study)
    return {
        "study": study.name,
        "state": state(history, owned=owned),
        "reason": history.ending.reason if history.ending and not owned else None,
        "counts": counts(history.trials),
        "best": trial(winner, study) if winner else None,
        "metric": study.spec.objective.metric,
        "goal": str(study.spec.objective.goal),
        "maxTrials": study.spec.max_trials,
        "created": moment(study.created),
        "home": str(study.directory.parent.absolute()),
        "directory": str(study.directory.absolute()),
        "storage": study.storage or str(study.directory.absolute()),
        "tracking_uri": tracking_uri,
        "parent_run_id": history.parent_run_id,
    }


def studies(home: Path, found: Sequence[tuple[str, Json | None]]) -> Json:
    """The object of `list --json`: each study as `show` has it; else `unreadable`."""
    broken = {"state": UNREADABLE, "counts": None, "best": None}
    return {
        "home": str(home.absolute()),
        "studies": [answer or {"study": name, **broken} for name, answer in found],
    }


def state(history: History, *, owned: bool) -> str:
    """`running` while a driver owns the study, else how the last one ended; killed: `interrupted`."""
    if owned:
        return RUNNING
    return str(history.ending.outcome) if history.ending else INTERRUPTED


def counts(found: Iterable[Trial]) -> dict[str, int]:
    """How many trials are in each state; those not ended count as running."""
    seen = Counter(one.state for one in found)
    order = (State.COMPLETED, State.PRUNED, State.FAILED, State.INFEASIBLE, State.RUNNING)
    return {str(one): seen[one] for one in order}


def moment(milliseconds: int | None) -> str | None:
    """Milliseconds since the epoch as ISO 8601 text in UTC: 2026-01-31T12:00:00.000Z."""
    if milliseconds is None:
        return None
    time = _EPOCH + timedelta(milliseconds=milliseconds)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def strict(value: int | float | str) -> int | float | str | None:
    """A value as strict JSON has it: null for NaN and infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parameter(found: Parameter) -> Json:
    answer: Json = {"name": found.name, "type": "", "min": None, "max": None, "values": None, "scale": None}
    match found:
        case Double() | Integer():
            answer |= {"type": type(found).__name__.upper(), "min": found.low, "max": found.high}
        case Discrete() | Categorical():
            answer |= {"type": type(found).__name__.upper(), "values": list(found.values)}
    if not isinstance(found, Categorical):
        answer["scale"] = SCALES[found.scale]
    return answer


def _objectives(spec: Spec) -> list[Json]:
    return [{"metric": each.metric, "goal": str(each.goal)} for each in spec.objectives]


def _constraint(found: Constraint, winner: Trial | None) -> Json:
    kept = last(winner, found.objective.metric) if winner else None
    told = {"metric": found.objective.metric, "goal": str(found.objective.goal)}
    return told | {"threshold": strict(found.threshold), "value": kept[1] if kept else None}


def _problem(problem: Problem) -> Json:
    return {name: getattr(problem, name) for name in Problem.__slots__}
