"""ParameterSpec of Vertex AI -> Parameter: its values, and the tree of those that depend on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

from hpsearch.spec.conditions import condition
from hpsearch.spec.form import Form, Listed
from hpsearch.spec.model import (
    Categorical,
    Condition,
    Discrete,
    Integer,
    Parameter,
    Params,
    Scale,
    SearchSpace,
    Value,
    key_of,
)
from hpsearch.spec.node import Findings, Node
from hpsearch.spec.scalars import Real, Text, Verbatim
from hpsearch.spec.values import CLOSEST, categorical, discrete, interval, name_of, unused_scale
from hpsearch.spec.words import SCALES

_SPECS = {
    "doubleValueSpec": "DOUBLE",
    "integerValueSpec": "INTEGER",
    "discreteValueSpec": "DISCRETE",
    "categoricalValueSpec": "CATEGORICAL",
}
_CONDITIONS = {
    "parentIntValues": "INTEGER",
    "parentDiscreteValues": "DISCRETE",
    "parentCategoricalValues": "CATEGORICAL",
}


class RangeForm(Form):
    """The range of a number; int64 may be written as text."""

    rules: ClassVar = {"required": ["minValue", "maxValue"]}
    min_value: Real | None = None
    max_value: Real | None = None
    default_value: Real | None = None


class NumbersForm(Form):
    """The numbers of a DISCRETE."""

    rules: ClassVar = {"required": ["values"]}
    values: Listed[Real] | None = None
    default_value: Real | None = None


class TextsForm(Form):
    """The texts of a CATEGORICAL."""

    rules: ClassVar = {"required": ["values"]}
    values: Listed[Verbatim] | None = None
    default_value: Verbatim | None = None


class ParentNumbersForm(Form):
    """The numbers of the parent for which a parameter is active."""

    rules: ClassVar = {"required": ["values"]}
    values: Listed[Real] | None = None


class ParentTextsForm(Form):
    """The texts of the parent for which a parameter is active."""

    rules: ClassVar = {"required": ["values"]}
    values: Listed[Verbatim] | None = None


class ParameterSpecForm(Form):
    """One parameter: its name, exactly one kind of values, and the parameters that depend on it."""

    called = ("parameter", "parameterId")
    rules: ClassVar = {"required": ["parameterId"], "oneOf": [{"required": [key]} for key in _SPECS]}
    parameter_id: Text | None = None
    double_value_spec: RangeForm | None = None
    integer_value_spec: RangeForm | None = None
    discrete_value_spec: NumbersForm | None = None
    categorical_value_spec: TextsForm | None = None
    scale_type: Annotated[Scale | None, SCALES] = None
    conditional_parameter_specs: Listed[ConditionalForm] | None = None


class ConditionalForm(Form):
    """A parameter that is active only for some values of its parent."""

    rules: ClassVar = {"required": ["parameterSpec"], "oneOf": [{"required": [key]} for key in _CONDITIONS]}
    parameter_spec: ParameterSpecForm | None = None
    parent_discrete_values: ParentNumbersForm | None = None
    parent_int_values: ParentNumbersForm | None = None
    parent_categorical_values: ParentTextsForm | None = None


ParameterSpecForm.model_rebuild()


@dataclass(slots=True)
class Tree:
    """What was found: the parameters, children right behind their parents, and places by name.

    `defaults` are by key, with their places.
    """

    parameters: list[Parameter] = field(default_factory=list)
    types: dict[str, Node] = field(default_factory=dict)
    texts: list[Node] = field(default_factory=list)
    defaults: dict[str, tuple[Value, Node]] = field(default_factory=dict)


def tree(forms: Sequence[ParameterSpecForm], findings: Findings) -> Tree:
    """The parameters of the forms and of all below them; no name may be active twice."""
    found = Tree()
    named: dict[str, Node] = {}
    for form in forms:
        for name, node in _grow(form, None, found, findings).items():
            if name in named:
                message = f"parameter {name}: the name stands in line {named[name].line} already"
                findings.error(node, message, "rename one of them")
            named.setdefault(name, node)
    return found


def first(found: Tree, findings: Findings) -> Params | None:
    """The defaults of the active parameters, if each of them has one; else None, with a warning."""
    if not found.defaults:
        return None
    without: list[str] = []
    params: dict[str, Value] = {}

    def choose(parameter: Parameter) -> Value:
        default = found.defaults.get(key_of(parameter))
        if default is None:
            without.append(parameter.name)
            return ""
        params[parameter.name] = default[0]
        return default[0]

    SearchSpace(tuple(found.parameters)).walk(choose)
    if not without:
        return params
    place = next(iter(found.defaults.values()))[1]
    message = f"defaultValue is ignored: parameter {without[0]} is active, too, and has none"
    findings.warn(place, message, "give every parameter one, and they are the first trial")
    return None


def _grow(
    form: ParameterSpecForm, when: Condition | None, found: Tree, findings: Findings
) -> dict[str, Node]:
    """Add a parameter and all below it; the names that were found, with their places."""
    with findings.about(form.subject(form.node)):
        name = name_of(form.parameter_id, "parameterId", form, findings)
        parameter = _parameter(name, form, found, findings)
    if parameter and name:
        parameter = replace(parameter, condition=when)
        found.parameters.append(parameter)
        default = _default(parameter, form, findings)
        if default:
            found.defaults[key_of(parameter)] = default
    names = {name: form.at("parameterId")} if name else {}
    claims: dict[str, list[frozenset[Value]]] = {}
    for conditional in form.conditional_parameter_specs or ():
        with findings.about(form.subject(form.node)):
            active = _condition(conditional, parameter, findings)
        if conditional.parameter_spec is None:
            if conditional.lacks("parameterSpec"):
                hint = "write parameterSpec: with the parameter"
                findings.missing(conditional.node, "parameterSpec", "parameterSpec is missing", hint)
            continue
        below = _grow(conditional.parameter_spec, active, found, findings)
        _claim(below, active, name, claims, findings)
        names = below | names
    return names


def _claim(
    below: dict[str, Node],
    active: Condition | None,
    parent: str,
    claims: dict[str, list[frozenset[Value]]],
    findings: Findings,
) -> None:
    """Refuse names that are active together with the parent's own or with an earlier one of their kind."""
    values = frozenset(active.values) if active else frozenset[Value]()
    for name, node in below.items():
        if name == parent:
            message = f"parameter {name}: a parameter above it has the same name"
            findings.error(node, message, "rename one of them")
        both = next((each & values for each in claims.get(name, ()) if not each.isdisjoint(values)), None)
        if both:
            shown = ", ".join(str(value) for value in sorted(both, key=str)[:3])
            message = f"parameter {name}: it is active twice when {parent} is {shown}"
            findings.error(node, message, "give the two of them disjoint values, or rename one")
        claims.setdefault(name, []).append(values)


def _parameter(name: str, form: ParameterSpecForm, found: Tree, findings: Findings) -> Parameter | None:
    """The parameter that its one value spec describes, or None with an error."""
    given = [key for key in _SPECS if not form.lacks(key)]
    if len(given) != 1:
        said = f"{' and '.join(given)} stand side by side" if given else "the parameter has no values"
        findings.missing(
            form.node, given[0] if given else "doubleValueSpec", said, "write exactly one *ValueSpec"
        )
        return None
    key = given[0]
    found.types.setdefault(name, form.at(key))
    scale = form.scale_type
    if spec := form.double_value_spec or form.integer_value_spec:
        return interval(name, _SPECS[key], spec, scale, findings)
    if numbers := form.discrete_value_spec:
        return discrete(name, "values", numbers.values, numbers, scale, findings)
    if texts := form.categorical_value_spec:
        unused_scale(form, scale, findings)
        found.texts += texts.at("values").items
        return categorical(name, "values", texts.values, texts, findings)
    return None


def _condition(form: ConditionalForm, parent: Parameter | None, findings: Findings) -> Condition | None:
    """When a conditional parameter is active, or None with an error; the kind must be that of the parent."""
    given = [key for key in _CONDITIONS if not form.lacks(key)]
    if len(given) != 1:
        said = (
            f"{' and '.join(given)} stand side by side" if given else "the values of the parent are missing"
        )
        key = given[0] if given else "parentCategoricalValues"
        findings.missing(form.node, key, said, "write exactly one of " + ", ".join(_CONDITIONS))
        return None
    if parent is None:
        return None
    values = form.parent_int_values or form.parent_discrete_values or form.parent_categorical_values
    kind = type(parent).__name__.upper()
    if _CONDITIONS[given[0]] != kind:
        message = f"{given[0]} cannot be a condition on a {kind}"
        right = next((key for key, each in _CONDITIONS.items() if each == kind), "")
        hint = f"write {right}" if right else "a DOUBLE cannot be a parent; use DISCRETE"
        findings.error(form.at(given[0]), message, hint)
        return None
    if values is None:
        return None
    if values.lacks("values"):
        findings.missing(values.node, "values", "values is missing", "list values of the parent")
        return None
    if values.refused("values"):
        return None
    return condition(parent, values.at("values"), findings)


def _default(parameter: Parameter, form: ParameterSpecForm, findings: Findings) -> tuple[Value, Node] | None:
    """The default with its place; one that the parameter cannot take is an error."""
    spec = (
        form.double_value_spec
        or form.integer_value_spec
        or form.discrete_value_spec
        or form.categorical_value_spec
    )
    if spec is None or spec.default_value is None:
        return None
    place, given = spec.at("defaultValue"), spec.default_value
    value: Value | None = None
    match parameter:
        case Categorical(values=texts):
            value = given if given in texts else None
        case Discrete(values=numbers):
            value = next((each for each in numbers if abs(each - float(given)) < CLOSEST), None)
        case Integer(low=low, high=high):
            value = int(given) if low <= float(given) <= high and float(given) == int(given) else None
        case _:
            value = float(given) if parameter.low <= float(given) <= parameter.high else None
    if value is None:
        message = f"parameter {parameter.name}: defaultValue {place.shown} is none of its values"
        findings.error(place, message, "give one that it can take, or remove the line")
        return None
    return value, place
