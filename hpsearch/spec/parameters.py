"""ParameterSpec of Cloud ML Engine -> Parameter: what each type needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

from hpsearch.spec.form import Form, Listed
from hpsearch.spec.model import Parameter, Scale
from hpsearch.spec.node import Findings, Node
from hpsearch.spec.scalars import Choice, Real, Text, Verbatim
from hpsearch.spec.values import categorical, discrete, interval, name_of, unused_scale
from hpsearch.spec.words import SCALES

_TYPES = Choice(
    words={name: name for name in ("DOUBLE", "INTEGER", "CATEGORICAL", "DISCRETE")},
    meant={
        **dict.fromkeys(("FLOAT", "REAL", "NUMBER", "FLOAT32", "FLOAT64"), "DOUBLE"),
        **dict.fromkeys(("INT", "LONG", "INT32", "INT64"), "INTEGER"),
        **dict.fromkeys(("ENUM", "STRING", "STR", "BOOL", "BOOLEAN", "CATEGORY"), "CATEGORICAL"),
        **dict.fromkeys(("LIST", "CHOICE", "ORDINAL"), "DISCRETE"),
    },
)
_UNUSED = {
    "DOUBLE": ("categoricalValues", "discreteValues"),
    "INTEGER": ("categoricalValues", "discreteValues"),
    "DISCRETE": ("minValue", "maxValue", "categoricalValues"),
    "CATEGORICAL": ("minValue", "maxValue", "discreteValues"),
}


def _asked() -> list[dict[str, Any]]:
    """The keys that each type requires, as a JSON schema says it."""
    ends = ["minValue", "maxValue"]
    keys = {
        "CATEGORICAL": ["categoricalValues"],
        "DISCRETE": ["discreteValues"],
        "DOUBLE": ends,
        "INTEGER": ends,
    }
    return [
        {"if": {"properties": {"type": {"const": name}}}, "then": {"required": required}}
        for name, required in keys.items()
    ]


class ParameterForm(Form):
    """One parameter: its name, its type, and what that type needs."""

    called = ("parameter", "parameterName")
    rules: ClassVar = {"required": ["parameterName", "type"], "allOf": _asked()}
    parameter_name: Text | None = None
    type: Annotated[str | None, _TYPES] = None
    min_value: Real | None = None
    max_value: Real | None = None
    categorical_values: Listed[Verbatim] | None = None
    discrete_values: Listed[Real] | None = None
    scale_type: Annotated[Scale | None, SCALES] = None


def parameters(forms: Iterable[ParameterForm], findings: Findings) -> dict[str, Parameter]:
    """The parameters that are good, by name in the order of the file."""
    found: dict[str, Parameter] = {}
    named: dict[str, Node] = {}
    for form in forms:
        with findings.about(form.subject(form.node)):
            name = name_of(form.parameter_name, "parameterName", form, findings)
            node = form.at("parameterName")
            if name in named:
                message = f"the name stands in line {named[name].line} already"
                findings.error(node, message, "rename one of them")
            elif name:
                named[name] = node
            parameter = _parameter(name, form, findings)
            if parameter:
                found.setdefault(name, parameter)
    return found


def _parameter(name: str, form: ParameterForm, findings: Findings) -> Parameter | None:
    if form.type is None:
        if form.lacks("type"):
            hint = "write type: DOUBLE, INTEGER, CATEGORICAL or DISCRETE"
            findings.missing(form.node, "type", "the parameter has no type", hint)
        return None
    for key in _UNUSED[form.type]:
        if not form.lacks(key):
            article = "an" if form.type == "INTEGER" else "a"
            findings.warn(form.at(key), f"{key} is not used by {article} {form.type}: ignored", "remove it")
    if form.type == "CATEGORICAL":
        unused_scale(form, form.scale_type, findings)
        return categorical(name, "categoricalValues", form.categorical_values, form, findings)
    if form.type == "DISCRETE":
        return discrete(name, "discreteValues", form.discrete_values, form, form.scale_type, findings)
    return interval(name, form.type, form, form.scale_type, findings)
