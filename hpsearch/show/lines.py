"""Facts as lines of text for people: pure; numbers have four significant digits."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpsearch.redaction import redact
from hpsearch.show import answers
from hpsearch.show.progress import Progress
from hpsearch.show.secrets import masked
from hpsearch.spec.model import Constraint, Goal, Params, Problem, PruningRule, Spec, Value
from hpsearch.study.front import broken
from hpsearch.study.trial import Attempt, Ending, Entry, State, StudyEnding, Trial

if TYPE_CHECKING:  # `check` prints without loading the store's library
    from hpsearch.study.history import History

LEADERS = 4  # of a front, in the live view
ORDER = (State.COMPLETED, State.PRUNED, State.FAILED, State.INFEASIBLE)


@dataclass(frozen=True, slots=True)
class Commands:
    """What a user may type next, exactly; `ui` is empty where MLflow is a server of its own."""

    best: str
    resume: str
    ui: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What is said when a run is over; `tracking_uri` is fit to be shown, MLflow refused `set_aside` rows."""

    history: History
    ending: StudyEnding
    undelivered: int
    problem: str | None
    tracking_uri: str
    commands: Commands
    set_aside: int = 0


def commands(
    study: str,
    *,
    home: str | None,
    store: str | None = None,
    embedded: bool,
    local: bool,
    address: str | None,
    program: str = "hpsearch",
) -> Commands:
    """The next commands for a study as `program` takes them.

    `home` and `store` are None where they find it themselves; a password in the latter is left out.
    """
    program = shlex.quote(program)
    place = f" --home {shlex.quote(home)}" if home else ""
    stored = f"{place} --store {shlex.quote(redact(store))}" if store else place
    runner = " --local" if local else f" --address {shlex.quote(address)}" if address else ""
    return Commands(
        best=f"{program} best {study}{stored}",
        resume=f"{program} resume {study}{stored}{runner}",
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


def counted(number: float, noun: str) -> str:
    """A number with its noun: 1 trial, 2 trials, 0.5 GPUs."""
    shown = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{shown} {noun}" if number == 1 else f"{shown} {noun}s"


def duration(seconds: float) -> str:
    """A time span as its two largest units: 45s, 3m 05s, 2h 10m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def size(amount: int) -> str:
    """Bytes in the largest unit that leaves at least one of it: 512 MiB, 1.5 GiB."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = min(max(amount.bit_length() - 1, 0) // 10, len(units) - 1)
    return f"{amount / 1024**power:.4g} {units[power]}"


def plan(spec: Spec) -> str:
    """What a study will do, in one line."""
    rule = f"{spec.pruner.type} pruner" if spec.pruner.type is not PruningRule.NONE else "no pruner"
    wanted = ", ".join(f"{each.goal.lower()} {each.metric}" for each in spec.objectives)
    kept = " and ".join(bound(each) for each in spec.constraints)
    most = f" of at most {counted(spec.max_steps, 'step')}" if _is_paced(spec) else ""
    return (
        f"{wanted}{f' with {kept}' if kept else ''}, {counted(spec.max_trials, 'trial')}{most}, "
        f"{spec.max_parallel_trials} at once, {spec.sampler.type} sampler (seed {spec.sampler.seed}), {rule}"
    )


def _is_paced(spec: Spec) -> bool:
    return spec.paced and not spec.program.command


def progress(step: int | None, spec: Spec) -> str:
    """How far a trial is; a command knows its last step itself."""
    return f"step {step or 0}" + (f"/{spec.max_steps}" if _is_paced(spec) else "")


def bound(constraint: Constraint) -> str:
    """What a constraint asks for: latency at most 100."""
    word = "at most" if constraint.objective.goal is Goal.MINIMIZE else "at least"
    return f"{constraint.objective.metric} {word} {value(constraint.threshold)}"


def program(spec: Spec) -> str:
    """What is run for a trial, before its params; secrets are not shown."""
    if spec.program.command:
        return shlex.join(masked([*spec.program.command, *spec.args]))
    if not spec.module:
        return "nothing to run here"
    given = f" with {shlex.join(masked(list(spec.args)))}" if spec.args else ""
    return f"module {spec.module}{given}"


def resources(spec: Spec) -> str:
    """What a trial asks for; empty where it asks for no GPU and names no memory."""
    wanted = spec.resources
    if not wanted.gpu and wanted.memory is None:
        return ""
    parts = [counted(wanted.cpu, "CPU")] if wanted.cpu else []
    if wanted.gpu:
        fewer = " (or as many as the machine has)" if wanted.hinted else ""
        parts.append(counted(wanted.gpu, "GPU") + fewer)
    if wanted.memory is not None:
        parts.append(f"{size(wanted.memory)} of memory")
    return ", ".join(parts)


def state(found: str, *, owned: bool) -> str:
    """The state of a trial; nothing runs in a study that no driver owns."""
    return "unfinished" if found == State.RUNNING and not owned else found


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


def event(entry: Entry, trial: Trial, spec: Spec, *, standing: str) -> str | None:
    """A committed fact as a line, None for one that is no news; `standing`: what a completed trial is."""
    match entry.fact:
        case Attempt(number=1):
            return f"trial {trial.number} started: {params(trial.params)}"
        case Attempt(number=number, resumed_from=step):
            where = f"from step {step}" if step is not None else "from the beginning"
            return f"trial {trial.number} started again {where} (attempt {number})"
        case Ending(state=State.COMPLETED):
            said = f"trial {trial.number} completed: {outcome(trial, spec)}"
            return f"{said} ({standing})" if standing else said
        case Ending() as ending:
            place = f" at step {trial.step}" if trial.step is not None else ""
            return f"trial {trial.number} {ending.state}{place}: {ending.reason}"
    return None


def outcome(trial: Trial, spec: Spec) -> str:
    """What counts of a trial, with the step: loss 0.5, accuracy 0.9 at step 200; and of its constraints."""
    found = {each.metric: answers.seen(trial, each, spec) for each in spec.objectives}
    found |= {each.objective.metric: answers.last(trial, each.objective.metric) for each in spec.constraints}
    pairs = {metric: pair for metric, pair in found.items() if pair}
    steps = {step for step, _ in pairs.values()}
    if len(steps) == 1:
        said = ", ".join(f"{metric} {value(number)}" for metric, (_, number) in pairs.items())
        return f"{said} at step {steps.pop()}"
    return ", ".join(f"{metric} {value(number)} at step {step}" for metric, (step, number) in pairs.items())


def standing(trial: Trial, found: Progress) -> str:
    """How a completed trial stands among those before it; empty where that is nothing special."""
    if trial.state is not State.COMPLETED:
        return ""
    if not found.leads(trial):
        return unsafe(trial, found.study.spec)
    several = len(found.study.spec.objectives) > 1
    return f"on the front of {len(found.front)}" if several else "best so far"


def leaders(found: Progress) -> list[str]:
    """The best trial so far as a line, or a line for each of a few on the front."""
    spec = found.study.spec
    front = found.front
    told = [f"{outcome(one, spec)}, trial {one.number}: {params(one.params)}" for one in front[:LEADERS]]
    if len(spec.objectives) == 1:
        return [f"best so far: {told[0] if told else '-'}"]
    more = [f"  and {len(front) - LEADERS} more"] if len(front) > LEADERS else []
    return [f"{counted(len(front), 'trial')} on the front so far", *(f"  {one}" for one in told), *more]


def unsafe(trial: Trial, spec: Spec) -> str:
    """Why a trial is not safe; empty if it keeps every constraint."""
    said = []
    for each in broken(trial, spec):
        metric, word = each.objective.metric, "above" if each.objective.goal is Goal.MINIMIZE else "below"
        reported = [one.metrics[metric] for one in trial.measurements if metric in one.metrics]
        if any(map(math.isfinite, reported)):
            said.append(f"{metric} is {word} {value(each.threshold)}")
        else:
            said.append(f"{metric} is {reported[-1]}" if reported else f"{metric} was never reported")
    return f"unsafe: {', '.join(said)}" if said else ""


def nobody(history: History) -> str:
    """Why a study has no best trial."""
    if not any(trial.state is State.COMPLETED for trial in history.trials):
        return f"no trial of study {history.study.name!r} has completed"
    kept = " and ".join(bound(each) for each in history.study.spec.constraints)
    return f"no completed trial of study {history.study.name!r} has {kept}"
