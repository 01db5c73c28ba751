"""What a study takes over from an earlier one: its ended trials, where the question has stayed the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hpsearch.errors import UsageError
from hpsearch.spec.model import Categorical, Discrete, Objective, Parameter, Spec, key_of
from hpsearch.spec.texts import text_of
from hpsearch.study.history import History
from hpsearch.study.trial import Known


def inherit(spec: Spec, earlier: History) -> tuple[Known, ...]:
    """The ended trials of an earlier study, and those that it knew itself, for a new study of this Spec.

    Raises UsageError, with the differences, where the search space or the objectives are not the same: what
    was learned there would be false here. Unfinished trials are left out: nothing true can be said of them.
    """
    old = earlier.study.spec
    differences = [*_objectives(old, spec), *_parameters(old, spec)]
    if differences:
        raise UsageError(
            f"study {earlier.study.name!r} cannot be continued: {'; '.join(differences)}",
            hint="make them the same, or remove resumePreviousJobId to start anew",
        )
    ended = [Known(trial, earlier.attributes[trial.number]) for trial in earlier.trials if trial.ending]
    if old.sampler.type is spec.sampler.type:
        return (*earlier.known, *ended)
    return tuple(
        replace(known, attributes={k: v for k, v in known.attributes.items() if k == "internal"})
        for known in (*earlier.known, *ended)
    )


def _objectives(old: Spec, new: Spec) -> Iterator[str]:
    def said(objective: Objective) -> str:
        return f"{objective.goal} {objective.metric}"

    before, after = [", ".join(map(said, spec.objectives)) for spec in (old, new)]
    if before != after:
        yield f"its objective is {before}, here it is {after}"


def _parameters(old: Spec, new: Spec) -> Iterator[str]:
    before = {key_of(parameter): parameter for parameter in old.space.parameters}
    after = {key_of(parameter): parameter for parameter in new.space.parameters}
    for key, parameter in before.items():
        if key not in after:
            yield f"parameter {parameter.name} is not here"
        elif after[key] != parameter:
            yield f"parameter {parameter.name} was {_said(parameter)}, here it is {_said(after[key])}"
    for key, parameter in after.items():
        if key not in before:
            yield f"parameter {parameter.name} is new"
    names = [key for key in before if key in after]
    if names != [key for key in after if key in before]:
        yield "the parameters stand in another order"


def _said(parameter: Parameter) -> str:
    """A parameter in one phrase."""
    kind = type(parameter).__name__.upper()
    if isinstance(parameter, Categorical | Discrete):
        return f"{kind} [{', '.join(map(text_of, parameter.values))}]"
    return f"{kind} {text_of(parameter.low)}..{text_of(parameter.high)} on a {parameter.scale} scale"
