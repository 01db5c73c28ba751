"""What an edited file changes of a study that exists: each difference in words, and whether it may go on.

Pure. What would make earlier results untrue, or what sampler and trials were told, is refused; the rest is
the user's to change at any time. The rules are a table, in which every field of a Spec stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from pydantic.alias_generators import to_camel

from hpsearch.redaction import redact
from hpsearch.spec.model import Categorical, Discrete, Objective, Parameter, Spec, key_of
from hpsearch.spec.texts import text_of

LONGEST = 300  # characters of a value in a sentence

_OTHER_QUESTION = "what is better would change under the trials that were compared by it"
_OTHER_SPACE = "the sampler's proposals were drawn from the other space"
_OTHER_PROGRAM = "what was measured came from the other program"
_OTHER_LENGTH = "values at another number of steps cannot be compared"
_OTHER_STEPS = "pruners compare trials at the same steps"
_OTHER_DRAWS = "the proposals so far, and what each trial drew, came from the other one"
# Only our own step loop learns the same from a batch however many share it; of other trainers each process
# mostly takes batches of its own.
_OTHER_SPLIT = "what was measured came from another number of processes that learn together"
_OTHER_START = "what a study knows from its start was copied then"

# Why a change of a field is refused; an empty text: it goes on. Fields of a part may stand together. Those
# that are None only mirror others, or say where the text came from.
RULES: Mapping[str, str | None] = {
    "source": None,
    "text": None,
    "sha256": None,
    "dialect": None,
    "paced": None,
    "module": _OTHER_PROGRAM,
    "args": _OTHER_PROGRAM,
    "space": _OTHER_SPACE,
    "objectives": _OTHER_QUESTION,
    "constraints": _OTHER_QUESTION,
    "selection": _OTHER_QUESTION,
    "max_trials": "",
    "max_parallel_trials": "",
    "max_steps": _OTHER_LENGTH,
    "measure_every": _OTHER_STEPS,
    "sampler.type": _OTHER_DRAWS,
    "sampler.seed": _OTHER_DRAWS,
    "sampler.startup_trials": "",
    # Rules are folded over the facts: what was pruned stays pruned, for the reason that it has.
    "pruner": "",
    "resources": "",
    "resources.workers": _OTHER_SPLIT,
    "limits": "",
    "tracking": "",
    "stopping": "",
    "checkpoints": "",
    "program.command": _OTHER_PROGRAM,
    "program.env": _OTHER_PROGRAM,
    "program.own_directory": _OTHER_PROGRAM,
    "program.job_dir": "",
    "program.output": "",
    "program.region": "",
    "program.job": None,
    "first": "",
    "previous": _OTHER_START,
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that a file says otherwise; None: nothing. `why` is empty where the study may go on."""

    subject: str
    old: str | None
    new: str | None
    why: str = ""

    def __str__(self) -> str:
        if self.new is None:
            return f"{self.subject} is not here"
        if self.old is None:
            return f"{self.subject} is new"
        return f"{self.subject} was {self.old}, here it is {self.new}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """All differences of two files, and those that keep a study from going on with the new one."""

    differences: tuple[Difference, ...]

    @property
    def refused(self) -> tuple[Difference, ...]:
        """The differences that must not be."""
        return tuple(each for each in self.differences if each.why)


def classify(old: Spec, new: Spec) -> Verdict:
    """What a new file says otherwise than the one that a study goes by."""
    return Verdict(tuple(_differences(old, new)))


def objectives(old: Spec, new: Spec) -> Iterator[Difference]:
    """Whether the objectives differ."""
    before, after = [", ".join(map(_objective, spec.objectives)) for spec in (old, new)]
    if before != after:
        yield Difference("its objective", before, after, RULES["objectives"] or "")


def parameters(old: Spec, new: Spec) -> Iterator[Difference]:
    """The parameters that differ, and whether those of both stand in the same order."""
    why = RULES["space"] or ""
    before = {key_of(parameter): parameter for parameter in old.space.parameters}
    after = {key_of(parameter): parameter for parameter in new.space.parameters}
    for key, parameter in before.items():
        name = f"parameter {parameter.name}"
        if key not in after:
            yield Difference(name, _parameter(parameter), None, why)
        elif after[key] != parameter:
            yield Difference(name, _parameter(parameter), _parameter(after[key]), why)
    for key, parameter in after.items():
        if key not in before:
            yield Difference(f"parameter {parameter.name}", None, _parameter(parameter), why)
    both = [key for key in before if key in after]
    now = [key for key in after if key in before]
    if both != now:
        yield Difference("the order of the parameters", _said(both), _said(now), why)


def _differences(old: Spec, new: Spec) -> Iterator[Difference]:
    for field in fields(Spec):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after or _rule(field.name) is None:
            continue
        if field.name == "space":
            yield from parameters(old, new)
        elif field.name == "objectives":
            yield from objectives(old, new)
        elif is_dataclass(before):
            yield from _parts(field.name, before, after)
        else:
            yield Difference(to_camel(field.name), _said(before), _said(after), _rule(field.name) or "")


def _parts(name: str, old: Any, new: Any) -> Iterator[Difference]:
    for field in fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        why = _rule(f"{name}.{field.name}")
        if before == after or why is None:
            continue
        if field.name == "env":
            yield from _variables(dict(before), dict(after), why)
        else:
            yield Difference(f"{name}.{to_camel(field.name)}", _said(before), _said(after), why)


def _variables(old: Mapping[str, str], new: Mapping[str, str], why: str) -> Iterator[Difference]:
    """Variables of the environment by name; a secret one that changed was renewed, and may go on."""
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) == new.get(name):
            continue
        shown = [
            None if given is None else redact(f"{name}={given}").partition("=")[2]
            for given in (old.get(name), new.get(name))
        ]
        renewed = shown[0] is not None and shown[0] == shown[1]
        yield Difference(f"env {name}", shown[0], shown[1], "" if renewed else why)


def _rule(path: str) -> str | None:
    """Why a change of this field is refused; one that the table does not know is."""
    if path in RULES:
        return RULES[path]
    return RULES.get(path.partition(".")[0], "nothing is known of what it changes")


def _objective(objective: Objective) -> str:
    return f"{objective.goal} {objective.metric}"


def _parameter(parameter: Parameter) -> str:
    """A parameter in one phrase."""
    kind = type(parameter).__name__.upper()
    if parameter.condition:
        kind = f"{kind} if {parameter.condition.key},"
    if isinstance(parameter, Categorical):
        return f"{kind} {_said(parameter.values)}"
    if isinstance(parameter, Discrete):
        return f"{kind} {_said(parameter.values)} on a {parameter.scale} scale"
    return f"{kind} {text_of(parameter.low)}..{text_of(parameter.high)} on a {parameter.scale} scale"


def _said(value: object) -> str:
    """A value in one phrase, without what nobody may read."""
    match value:
        case None:
            text = "not given"
        case bool():
            text = str(value).lower()
        case int() | float() | str():
            text = text_of(value)
        case Mapping():
            text = ", ".join(f"{name}={_said(one)}" for name, one in value.items())
        case list() | tuple():
            text = f"[{', '.join(map(_said, value))}]"
        case _ if is_dataclass(value):
            text = ", ".join(f"{f.name}={_said(getattr(value, f.name))}" for f in fields(value))
        case _:
            text = str(value)
    text = redact(text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
