"""Facts as lines of text for people: pure; numbers have four significant digits."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpsearch.spec.model import Params, Problem, PruningRule, Spec, Value
from hpsearch.study.trial import Attempt, Ending, Entry, State, StudyEnding, Trial

if TYPE_CHECKING:  # `check` prints without loading the store's library
    from hpsearch.study.history import History

ORDER = (State.COMPLETED, State.PRUNED, State.FAILED, State.INFEASIBLE)


@dataclass(frozen=True, slots=True)
class Commands:
    """What a user may type next, exactly; `ui` is empty where MLflow is a server of its own."""

    best: str
    resume: str
    ui: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What is said when a run is over; `tracking_uri` is fit to be shown."""

    history: History
    ending: StudyEnding
    undelivered: int
    problem: str | None
    tracking_uri: str
    commands: Commands


def commands(
    study: str,
    *,
    home: str | None,
    embedded: bool,
    local: bool,
    address: str | None,
    program: str = "hpsearch",
) -> Commands:
    """The next commands for a study as `program` takes them; `home` is None where they find it themselves."""
    program = shlex.quote(program)
    place = f" --home {shlex.quote(home)}" if home else ""
    runner = " --local" if local else f" --address {shlex.quote(address)}" if address else ""
    return Commands(
        best=f"{program} best {study}{place}",
        resume=f"{program} resume {study}{place}{runner}",
        ui=f"{program} ui{place}" if embedded else "",
    )


def value(found: Value | None) -> str:
    """A value, `-` where there is none."""
    if found is None:
        return "-"
    return f"{found:.4g}" if isinstance(found, float) else str(found)


def params(found: Params) -> str:
    """Params as name=value, in the order of the file."""
    return " ".join(f"{name}={value(one)}" for name, one in found.items())


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 trial, 2 trials."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration(seconds: float) -> str:
    """A time span as its two largest units: 45s, 3m 05s, 2h 10m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def plan(spec: Spec) -> str:
    """What a study will do, in one line."""
    rule = f"{spec.pruner.type} pruner" if spec.pruner.type is not PruningRule.NONE else "no pruner"
    return (
        f"{spec.objective.goal.lower()} {spec.objective.metric}, "
        f"{counted(spec.max_trials, 'trial')} of at most {counted(spec.max_steps, 'step')}, "
        f"{spec.max_parallel_trials} at once, {spec.sampler.type} sampler (seed {spec.sampler.seed}), {rule}"
    )


def counts(found: Mapping[State, int]) -> str:
    """How many trials ended in each state, and how many are unfinished when nobody runs them."""
    said = [f"{found[s]} {s}" for s in ORDER if found[s] or s is State.COMPLETED]
    if found[State.RUNNING]:
        said.append(f"{found[State.RUNNING]} unfinished")
    return ", ".join(said)


def problem(file: str, found: Problem, kind: str = "") -> str:
    """A problem as compilers write it: file:line:column: path: message (value 'x'); hint."""
    shown = f" (value '{found.value}')" if found.value else ""
    parts = [f"{file}:{found.line}:{found.column}", kind, found.path, f"{found.message}{shown}"]
    line = ": ".join(part for part in parts if part)
    return f"{line}; {found.hint}" if found.hint else line


def event(entry: Entry, trial: Trial, spec: Spec, *, best: bool) -> str | None:
    """A committed fact as a line, None for one that is no news; `best`: the trial is the best so far."""
    match entry.fact:
        case Attempt(number=1):
            return f"trial {trial.number} started: {params(trial.params)}"
        case Attempt(number=number, resumed_from=step):
            where = f"from step {step}" if step is not None else "from the beginning"
            return f"trial {trial.number} started again {where} (attempt {number})"
        case Ending() as ending:
            return _ended(ending, trial, spec, best=best)
    return None


def _ended(ending: Ending, trial: Trial, spec: Spec, *, best: bool) -> str:
    outcome = trial.outcome(spec.objective, spec.selection)
    if ending.state is State.COMPLETED and outcome:
        said = f"{spec.objective.metric} {value(outcome[1])} at step {outcome[0]}"
        return f"trial {trial.number} completed: {said}" + " (best so far)" * best
    place = f" at step {trial.step}" if trial.step is not None else ""
    return f"trial {trial.number} {ending.state}{place}: {ending.reason}"
