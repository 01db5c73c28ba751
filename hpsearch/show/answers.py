"""Facts as the documented JSON objects (design, section 8): pure, and free of NaN and infinity."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsearch.spec.model import Categorical, Discrete, Double, Integer, Parameter, Problem, Reading, Scale
from hpsearch.study.search import best_of
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
        "parameters": [parameter(p) for p in spec.space.parameters] if spec else [],
        "objectives": [{"metric": o.metric, "goal": str(o.goal)} for o in spec.objectives] if spec else [],
        "maxTrials": spec.max_trials if spec else None,
        "maxParallelTrials": spec.max_parallel_trials if spec else None,
    }


def parameter(found: Parameter) -> Json:
    """One parameter; what does not apply to its type is null."""
    answer: Json = {"name": found.name, "type": "", "min": None, "max": None, "values": None, "scale": None}
    match found:
        case Double() | Integer():
            answer |= {"type": type(found).__name__.upper(), "min": found.low, "max": found.high}
        case Discrete() | Categorical():
            answer |= {"type": type(found).__name__.upper(), "values": list(found.values)}
    if not isinstance(found, Categorical):
        answer["scale"] = SCALES[found.scale]
    return answer | {"condition": None}


def trials(history: History) -> Json:
    """The object of `trials --json`."""
    study = history.study
    return {"study": study.name, "trials": [trial(one, study) for one in history.trials]}


def trial(found: Trial, study: Study) -> Json:
    """One trial; `step` is the last measured, `attempts` a number, the times are UTC."""
    return {
        "number": found.number,
        "uid": found.uid,
        "state": str(found.state),
        "reason": found.ending.reason if found.ending else None,
        "params": {name: _strict(value) for name, value in found.params.items()},
        "step": found.step,
        "objective": objective_of(found, study),
        "attempts": len(found.attempts),
        "started": moment(found.attempts[0].started if found.attempts else None),
        "ended": moment(found.ending.time if found.ending else None),
    }


def objective_of(found: Trial, study: Study) -> float | None:
    """The value that counts; the last finite one where nothing counts yet or ever; infeasible: None."""
    objective = study.spec.objective
    if found.state is State.INFEASIBLE:
        return None
    if found.state is State.COMPLETED:
        outcome = found.outcome(objective, study.spec.selection)
        return outcome[1] if outcome else None
    values = found.values(objective.metric)
    return values[-1][1] if values else None


def best(history: History) -> Json:
    """The object of `best --json`; trial, value and step are null while no trial has completed."""
    study = history.study
    winner = best_of(history.trials, study)
    outcome = winner.outcome(study.spec.objective, study.spec.selection) if winner else None
    return {
        "study": study.name,
        "trial": trial(winner, study) if winner else None,
        "metric": study.spec.objective.metric,
        "goal": str(study.spec.objective.goal),
        "value": outcome[1] if outcome else None,
        "step": outcome[0] if outcome else None,
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


def _problem(problem: Problem) -> Json:
    return {name: getattr(problem, name) for name in Problem.__slots__}


def _strict(value: int | float | str) -> int | float | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value
