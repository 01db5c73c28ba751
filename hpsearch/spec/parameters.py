"""ParameterSpec of Cloud ML Engine -> Parameter: what each type needs, and what its values must be."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated

from hpsearch.spec.form import Form, Listed
from hpsearch.spec.model import Categorical, Discrete, Double, Integer, Parameter, Scale
from hpsearch.spec.node import Findings, Kind, Node
from hpsearch.spec.scalars import Choice, Real, Text, Verbatim

MAX_NAME = 250
MAX_DISCRETE = 1_000
# Vertex AI takes closer values for one.
CLOSEST = 1e-10
# REST says double for bounds: larger whole numbers are not exact.
MAX_WHOLE = 2**53

_TYPES = Choice(
    words={name: name for name in ("DOUBLE", "INTEGER", "CATEGORICAL", "DISCRETE")},
    meant={
        **dict.fromkeys(("FLOAT", "REAL", "NUMBER", "FLOAT32", "FLOAT64"), "DOUBLE"),
        **dict.fromkeys(("INT", "LONG", "INT32", "INT64"), "INTEGER"),
        **dict.fromkeys(("ENUM", "STRING", "STR", "BOOL", "BOOLEAN", "CATEGORY"), "CATEGORICAL"),
        **dict.fromkeys(("LIST", "CHOICE", "ORDINAL"), "DISCRETE"),
    },
)
_SCALES = Choice(
    words={
        "NONE": None,
        "UNIT_LINEAR_SCALE": Scale.LINEAR,
        "UNIT_LOG_SCALE": Scale.LOG,
        "UNIT_REVERSE_LOG_SCALE": Scale.REVERSE_LOG,
        "SCALE_TYPE_UNSPECIFIED": None,
    },
    lenient={
        f"{prefix}{name}{suffix}": scale
        for name, scale in (("LINEAR", Scale.LINEAR), ("LOG", Scale.LOG), ("REVERSE_LOG", Scale.REVERSE_LOG))
        for prefix, suffix in (("", ""), ("UNIT_", ""), ("", "_SCALE"))
    },
    meant={
        "LOGARITHMIC": "UNIT_LOG_SCALE",
        "LOGUNIFORM": "UNIT_LOG_SCALE",
        "UNIFORM": "UNIT_LINEAR_SCALE",
    },
)
_UNUSED = {
    "DOUBLE": ("categoricalValues", "discreteValues"),
    "INTEGER": ("categoricalValues", "discreteValues"),
    "DISCRETE": ("minValue", "maxValue", "categoricalValues"),
    "CATEGORICAL": ("minValue", "maxValue", "discreteValues"),
}


class ParameterForm(Form):
    """One item of `params`."""

    parameter_name: Text | None = None
    type: Annotated[str | None, _TYPES] = None
    min_value: Real | None = None
    max_value: Real | None = None
    categorical_values: Listed[Verbatim] | None = None
    discrete_values: Listed[Real] | None = None
    scale_type: Annotated[Scale | None, _SCALES] = None

    @classmethod
    def subject(cls, node: Node) -> str:
        """The parameter's name, where it has one."""
        name = node.entries.get("parameterName") or node.entries.get("parameter_name")
        return f"parameter {name.shown}" if name and name.kind is Kind.SCALAR and name.text else ""


def parameters(forms: Iterable[ParameterForm], findings: Findings) -> dict[str, Parameter]:
    """The parameters that are good, by name in the order of the file."""
    found: dict[str, Parameter] = {}
    named: dict[str, Node] = {}
    for form in forms:
        with findings.about(form.subject(form.node)):
            name = _name(form, named, findings)
            parameter = _parameter(name, form, findings)
            if parameter:
                found.setdefault(name, parameter)
    return found


def _name(form: ParameterForm, named: dict[str, Node], findings: Findings) -> str:
    """The name, checked: it becomes one command-line token and a key of the stores."""
    name, node = form.parameter_name, form.at("parameterName")
    if not name:
        if form.lacks("parameterName") or name == "":
            findings.missing(form.node, "parameterName", "the parameter has no name", "write parameterName:")
        return ""
    bad = next((c for c in name if c.isspace() or c in "=/" or not c.isprintable()), "")
    if bad:
        findings.error(node, f'the name holds "{bad}"', "use letters, digits, `_`, `-` and `.`")
    if len(name) > MAX_NAME:
        findings.error(node, f"the name has {len(name)} characters; at most {MAX_NAME} fit", "shorten it")
    if name in named:
        findings.error(node, f"the name stands in line {named[name].line} already", "rename one of them")
    named.setdefault(name, node)
    return name


def _parameter(name: str, form: ParameterForm, findings: Findings) -> Parameter | None:
    if form.type is None:
        if form.lacks("type"):
            hint = "write type: DOUBLE, INTEGER, CATEGORICAL or DISCRETE"
            findings.missing(form.node, "type", "the parameter has no type", hint)
        return None
    unused = [key for key in _UNUSED[form.type] if not form.lacks(key)]
    if form.type == "CATEGORICAL" and form.scale_type:
        unused.append("scaleType")
    for key in unused:
        findings.warn(form.at(key), f"{key} is not used by a {form.type}: ignored", "remove it")
    if form.type == "CATEGORICAL":
        return _categorical(name, form, findings)
    if form.type == "DISCRETE":
        return _discrete(name, form, findings)
    return _range(name, form, findings)


def _range(name: str, form: ParameterForm, findings: Findings) -> Double | Integer | None:
    """A DOUBLE or an INTEGER; equal bounds are a constant, for which the scale says nothing."""
    low, high, scale = form.min_value, form.max_value, form.scale_type or Scale.LINEAR
    for key, bound in (("minValue", low), ("maxValue", high)):
        if form.lacks(key):
            other = "minValue and maxValue"
            findings.missing(form.node, key, f"{key} is missing", f"{form.type} needs {other}")
        elif bound is not None:
            _bound(key, bound, form, findings)
            if low != high:
                _positive(bound, form.at(key), scale, findings)
    if low is None or high is None:
        return None
    if low > high:
        message = f"minValue {form.at('minValue').text} is above maxValue {form.at('maxValue').text}"
        findings.error(form.at("minValue"), message, "swap them")
    if form.type == "INTEGER":
        return Integer(name, int(low), int(high), scale)
    return Double(name, float(low), float(high), scale)


def _bound(key: str, bound: int | float, form: ParameterForm, findings: Findings) -> None:
    if form.type != "INTEGER":
        return
    node = form.at(key)
    if bound != int(bound):
        findings.error(
            node, f"{key} {node.text} of an INTEGER is not whole", f"write {round(bound)}, or type: DOUBLE"
        )
    elif abs(bound) > MAX_WHOLE:
        findings.error(node, f"{key} {node.text} is too large for an INTEGER", f"give at most {MAX_WHOLE}")


def _positive(value: int | float, node: Node, scale: Scale, findings: Findings) -> None:
    if scale is not Scale.LINEAR and value <= 0:
        word = "UNIT_LOG_SCALE" if scale is Scale.LOG else "UNIT_REVERSE_LOG_SCALE"
        message = f"{node.name} is {node.text}, but {word} needs numbers above 0"
        findings.error(node, message, "give a small positive number, or scaleType: UNIT_LINEAR_SCALE")


def _discrete(name: str, form: ParameterForm, findings: Findings) -> Discrete | None:
    node = form.at("discreteValues")
    if form.discrete_values is None or not node.elements:
        _no_values("discreteValues", "[16, 32, 64]", form, findings)
        return None
    if len(node.elements) > MAX_DISCRETE:
        message = f"discreteValues has {len(node.elements)} values; at most {MAX_DISCRETE:,} are allowed"
        findings.error(node, message, "use INTEGER or DOUBLE for a range")
        return None
    pairs = list(zip(form.discrete_values, node.elements, strict=True))
    for value, element in pairs:
        if len(pairs) > 1:
            _positive(value, element, form.scale_type or Scale.LINEAR, findings)
    ordered = sorted(pairs, key=lambda pair: pair[0])
    for (low, first), (high, second) in pairwise(ordered):
        if high - low < CLOSEST:
            _too_close(
                *sorted((first, second), key=lambda n: (n.line, n.column)), same=low == high, to=findings
            )
    values = tuple(_plain(value) for value, _ in ordered)
    if ordered != pairs:
        shown = ", ".join(f"{value:g}" for value in values[:5])
        findings.warn(
            node, "discreteValues is not increasing: sorted", f"write {shown}{', ...' * (len(values) > 5)}"
        )
    return Discrete(name, values, form.scale_type or Scale.LINEAR)


def _too_close(first: Node, second: Node, *, same: bool, to: Findings) -> None:
    what = "stands twice" if same else f"is closer than {CLOSEST:g} to {first.text}"
    to.error(second, f"{second.name} {second.text} {what} (see line {first.line})", "remove one of them")


def _plain(value: int | float) -> int | float:
    """Whole values as int, as far as they are exact."""
    return int(value) if value == int(value) and abs(value) <= MAX_WHOLE else float(value)


def _categorical(name: str, form: ParameterForm, findings: Findings) -> Categorical | None:
    node = form.at("categoricalValues")
    if form.categorical_values is None or not node.elements:
        _no_values("categoricalValues", '["adam", "sgd"]', form, findings)
        return None
    kept: dict[str, Node] = {}
    for value, element in zip(form.categorical_values, node.elements, strict=True):
        if value in kept:
            message = f"{element.name} {element.shown} stands twice (see line {kept[value].line}): dropped"
            findings.warn(element, message, "remove it")
        kept.setdefault(value, element)
    return Categorical(name, tuple(kept))


def _no_values(key: str, example: str, form: ParameterForm, findings: Findings) -> None:
    """Tell of a list that is missing or empty; one that was refused, whole or in part, is told already."""
    hint = f"write {key}: {example}"
    if form.lacks(key):
        findings.missing(form.node, key, f"{key} is missing", hint)
    elif form.at(key).kind is Kind.LIST and not form.refused(key):
        findings.error(form.at(key), f"{key} is empty", hint)
