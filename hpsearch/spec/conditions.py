"""Parameters that are active only for some values of another, and the block's `conditions`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from hpsearch.spec.model import Categorical, Condition, Discrete, Double, Integer, Parameter, Value, key_of
from hpsearch.spec.node import Findings, Kind, Node
from hpsearch.spec.scalars import nearest, number, refuse, scalar
from hpsearch.spec.values import CLOSEST


@dataclass(frozen=True, slots=True)
class Asked:
    """One entry of `conditions`: the two names, with their places, and the values of the parent."""

    child: Node
    parent: Node
    values: Node


def _conditions(node: Node, info: ValidationInfo[Findings]) -> list[Asked]:
    """The entries that are well formed: `child: {parent: [values]}`."""
    if node.kind is not Kind.MAP:
        refuse(f"{node.name} is {node.shown} where a map is due", "write `child: {parent: [values]}`")
    found = []
    for child, entry in node.entries.items():
        place = Node(Kind.SCALAR, *entry.named, path=entry.path, text=child)
        if entry.kind is not Kind.MAP or len(entry.entries) != 1:
            message = f"the condition of {child} needs exactly one parent"
            info.context.error(place, message, f"write {child}: {{parent: [values]}}")
            continue
        ((parent, values),) = entry.entries.items()
        above = Node(Kind.SCALAR, *values.named, path=values.path, text=parent)
        if values.kind is Kind.LIST:
            found.append(Asked(place, above, values))
        else:
            message = f"{values.name} is {values.shown}, not a list"
            info.context.error(values, message, f"write [{values.text}]")
    return found


_VALUES = {"type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean"]}}
Conditions = Annotated[
    list[Any],
    BeforeValidator(_conditions),
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": _VALUES,
            },
        }
    ),
]


def condition(parent: Parameter, listed: Node, findings: Findings) -> Condition | None:
    """The condition that the listed values of a parent set; None with an error where it cannot be met."""
    if isinstance(parent, Double):
        hint = "a DOUBLE cannot be a parent; make it a DISCRETE"
        findings.error(listed, f"{parent.name} is a DOUBLE: no condition can be set on it", hint)
        return None
    if not listed.elements:
        findings.error(listed, f"{listed.name} is empty: it would never be active", "list some values")
        return None
    known = frozenset(parent.values) if isinstance(parent, Categorical) else frozenset[str]()
    values: dict[Value, None] = {}
    good = True
    for item in listed.elements:
        try:
            value = _own(parent, item, known, findings)
        except PydanticCustomError as error:
            findings.error(item, error.message(), str((error.context or {}).get("hint", "")))
            good = False
            continue
        if value is None:
            message = f"{item.name} {item.shown} is no value of {parent.name}"
            findings.error(item, message, f"use values that {parent.name} can take")
            good = False
        else:
            values[value] = None
    return Condition(key_of(parent), tuple(values)) if good else None


def _own(parent: Parameter, node: Node, known: frozenset[str], findings: Findings) -> Value | None:
    """The parent's own value that a node means; DISCRETE ones are matched as Vertex AI does."""
    if isinstance(parent, Categorical):
        scalar(node)
        return node.text if node.text in known else None
    value = number(node, findings)
    if isinstance(parent, Integer):
        return int(value) if value == int(value) and parent.low <= value <= parent.high else None
    assert isinstance(parent, Discrete)
    index = bisect_left(parent.values, value - CLOSEST)
    near = parent.values[index : index + 2]
    return next((each for each in near if abs(each - value) <= CLOSEST), None)


def conditioned(
    parameters: Iterable[Parameter], asked: Iterable[Asked], names: Mapping[str, Any], findings: Findings
) -> tuple[Parameter, ...]:
    """The parameters with their conditions, children right behind their parents, else in the given order.

    `names` are all parameters of the file, also those that have errors of their own.
    """
    good = {parameter.name: parameter for parameter in parameters}
    above: dict[str, Asked] = {}
    for each in asked:
        if _known(each.child, names, findings) & _known(each.parent, names, findings):
            above[each.child.text] = each
    found: dict[str, Parameter] = {}
    for name in _downwards(good, above):
        found[name] = good[name]
        if name in above:
            with findings.about(f"parameter {name}"):
                when = condition(found[above[name].parent.text], above[name].values, findings)
            found[name] = replace(good[name], condition=when)
    _refuse_circles(good, found, above, findings)
    return tuple(found.values())


def _downwards(names: Iterable[str], above: Mapping[str, Asked]) -> Iterator[str]:
    """The names from those without a parent downwards, children right behind their parents."""
    top: list[str] = []
    below: dict[str, list[str]] = {}
    for name in names:
        (below.setdefault(above[name].parent.text, []) if name in above else top).append(name)
    waiting = top[::-1]
    while waiting:
        name = waiting.pop()
        yield name
        waiting += reversed(below.get(name, []))


def _known(place: Node, names: Mapping[str, Any], findings: Findings) -> bool:
    if place.text in names:
        return True
    meant = nearest(place.text, names, findings)
    hint = f"did you mean {meant}?" if meant else "use the name of a parameter of this file"
    findings.error(place, f"{place.text} is no parameter", hint)
    return False


def _refuse_circles(
    good: Mapping[str, Parameter],
    found: Mapping[str, Parameter],
    above: Mapping[str, Asked],
    findings: Findings,
) -> None:
    """Refuse what was never reached because it depends on itself; each circle is told once."""
    told: set[str] = set()
    for name in good:
        parent, met = name, set[str]()
        while parent in above and parent not in found and parent not in met:
            met.add(parent)
            parent = above[parent].parent.text
        if parent == name and met and name not in told:
            told |= met
            message = f"{name} depends on itself: it would never be active"
            findings.error(above[name].child, message, "remove one of the conditions")
