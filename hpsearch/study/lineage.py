"""What a study takes over from an earlier one: its ended trials, where what they say is true for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from hpsearch.errors import UsageError
from hpsearch.spec.model import Double, Params, SearchSpace, Spec
from hpsearch.study import points
from hpsearch.study.edits import Difference, classify, objectives, parameters
from hpsearch.study.history import History
from hpsearch.study.trial import Known, State, Trial

# What a Spec says of the values that its trials measured, beside their params: another one makes them untrue.
_MEASURED_BY = ("module", "args", "maxSteps", "program.command", "program.ownDirectory")


def inherit(spec: Spec, earlier: History) -> tuple[Known, ...]:
    """The ended trials of an earlier study, and those that it knew itself, for a new study of this Spec.

    Raises UsageError, with the differences, where the search space or the objectives are not the same: what
    was learned there would be false here. Unfinished trials are left out: nothing true can be said of them.
    """
    old = earlier.study.spec
    differences = [*objectives(old, spec), *parameters(old, spec)]
    if differences:
        raise UsageError(
            f"study {earlier.study.name!r} cannot be continued: {'; '.join(map(str, differences))}",
            hint="make them the same, or remove resumePreviousJobId to start anew",
        )
    return tuple(_kept(each, old, spec) for each in _ended(earlier))


@dataclass(frozen=True, slots=True)
class Fork:
    """What a fork knows of a study, and how many of its trials were left out, by the reason in words."""

    known: tuple[Known, ...]
    left_out: Counter[str]

    def __str__(self) -> str:
        total = len(self.known) + self.left_out.total()
        left = "".join(f"; {count} left out: {reason}" for reason, count in self.left_out.items())
        return f"{len(self.known)} of {total} trials are known{left}"


def fork(spec: Spec, earlier: History) -> Fork:
    """What a new study of this Spec knows of one that may have asked otherwise: trials that are true for it.

    Those are ended trials of the same program, whose params lie inside of the new space, and which measured
    what the new objectives ask for. Under other objectives what was pruned was pruned for another reason.
    """
    old = earlier.study.spec
    others = [each for each in classify(old, spec).differences if _measures_otherwise(each)]
    same = not list(objectives(old, spec))
    known: list[Known] = []
    left_out: Counter[str] = Counter()
    for each in _ended(earlier):
        reason = str(others[0]) if others else _untrue(each.trial, spec, same)
        params = within(spec.space, each.trial.params)
        if reason or params is None:
            left_out[reason or "outside of the search space"] += 1
            continue
        trial = replace(each.trial, params=params)
        # What the sampler kept is about its own space and objectives.
        unchanged = same and not list(parameters(old, spec))
        known.append(_kept(Known(trial, each.attributes), old, spec) if unchanged else Known(trial))
    unfinished = sum(trial.ending is None for trial in earlier.trials)
    if unfinished:
        left_out["not ended"] += unfinished
    return Fork(tuple(known), left_out)


def within(space: SearchSpace, params: Params) -> Params | None:
    """Params as a search space has them, None where they are not a point of it, or of a larger one."""
    try:
        active = space.active(params)
        if active.keys() != params.keys():
            return None
        for name, parameter in active.items():
            points.encode(parameter, params[name])
    except (KeyError, ValueError):
        return None
    return {
        name: float(params[name]) if isinstance(parameter, Double) else params[name]
        for name, parameter in active.items()
    }


def _ended(earlier: History) -> Iterable[Known]:
    yield from earlier.known
    for trial in earlier.trials:
        if trial.ending:
            yield Known(trial, earlier.attributes[trial.number])


def _kept(known: Known, old: Spec, new: Spec) -> Known:
    """A known trial with what its sampler kept, which goes on only to a sampler of its kind."""
    if old.sampler.type is new.sampler.type:
        return known
    return replace(known, attributes={k: v for k, v in known.attributes.items() if k == "internal"})


def _measures_otherwise(difference: Difference) -> bool:
    return difference.subject in _MEASURED_BY or (
        difference.subject.startswith("env ") and bool(difference.why)
    )


def _untrue(trial: Trial, spec: Spec, same: bool) -> str:
    """Why what a trial measured says nothing here; nothing if it does."""
    if same:
        return ""
    if trial.state is not State.COMPLETED:
        return "not completed, which other objectives decided"
    return "" if trial.outcomes(spec) is not None else "another objective, which was not measured"
