"""What the values of a parameter must be, in every dialect: its name, its range, its list."""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

from hpsearch.spec.form import Form
from hpsearch.spec.model import Categorical, Discrete, Double, Integer, Scale
from hpsearch.spec.node import Findings, Kind, Node

MAX_NAME = 250
MAX_DISCRETE = 1_000
# Vertex AI takes closer values for one.
CLOSEST = 1e-10
# REST says double for bounds: larger whole numbers are not exact.
MAX_WHOLE = 2**53


class Bounded(Protocol):
    """A form with the two ends of a range."""

    @property
    def min_value(self) -> int | float | None:
        """The lower end."""

    @property
    def max_value(self) -> int | float | None:
        """The upper end."""

    @property
    def node(self) -> Node:
        """The map that was read."""

    def at(self, key: str) -> Node:
        """The node of a value that was given, or else the map."""

    def lacks(self, key: str) -> bool:
        """True if the file has no value for the key."""


def name_of(given: str | None, key: str, form: Form, findings: Findings) -> str:
    """The name, checked: it becomes one command-line token and a key of the stores."""
    node = form.at(key)
    if not given:
        if form.lacks(key) or given == "":
            findings.missing(form.node, key, "the parameter has no name", f"write {key}:")
        return ""
    bad = next((c for c in given if c.isspace() or c == "=" or not c.isprintable()), "")
    if bad:
        findings.error(node, f'the name holds "{bad}"', "use letters, digits, `_`, `-` and `.`")
    if len(given) > MAX_NAME:
        findings.error(node, f"the name has {len(given)} characters; at most {MAX_NAME} fit", "shorten it")
    return given


def interval(
    name: str, kind: str, form: Bounded, scale: Scale | None, findings: Findings
) -> Double | Integer | None:
    """A DOUBLE or an INTEGER; equal bounds are a constant, for which the scale says nothing."""
    low, high, scale = form.min_value, form.max_value, scale or Scale.LINEAR
    for key, bound in (("minValue", low), ("maxValue", high)):
        if form.lacks(key):
            hint = f"{kind} needs minValue and maxValue"
            findings.missing(form.node, key, f"{key} is missing", hint)
        elif bound is not None:
            _whole(key, bound, kind, form, findings)
            if low != high:
                _positive(bound, form.at(key), scale, findings)
    if low is None or high is None:
        return None
    if low > high:
        message = f"minValue {form.at('minValue').text} is above maxValue {form.at('maxValue').text}"
        findings.error(form.at("minValue"), message, "swap them")
    if kind == "INTEGER":
        return Integer(name, int(low), int(high), scale)
    return Double(name, float(low), float(high), scale)


def _whole(key: str, bound: int | float, kind: str, form: Bounded, findings: Findings) -> None:
    if kind != "INTEGER":
        return
    node = form.at(key)
    if bound != int(bound):
        hint = f"write {round(bound)}, or make it a DOUBLE"
        findings.error(node, f"{key} {node.text} of an INTEGER is not whole", hint)
    elif abs(bound) > MAX_WHOLE:
        findings.error(node, f"{key} {node.text} is too large for an INTEGER", f"give at most {MAX_WHOLE}")


def _positive(value: int | float, node: Node, scale: Scale, findings: Findings) -> None:
    if scale is not Scale.LINEAR and value <= 0:
        word = "UNIT_LOG_SCALE" if scale is Scale.LOG else "UNIT_REVERSE_LOG_SCALE"
        message = f"{node.name} is {node.text}, but {word} needs numbers above 0"
        findings.error(node, message, "give a small positive number, or scaleType: UNIT_LINEAR_SCALE")


def discrete(
    name: str, key: str, given: list[int | float] | None, form: Form, scale: Scale | None, findings: Findings
) -> Discrete | None:
    """A DISCRETE of the numbers listed under a key, in increasing order."""
    node, scale = form.at(key), scale or Scale.LINEAR
    if given is None or not node.elements:
        _no_values(key, "[16, 32, 64]", form, findings)
        return None
    if len(node.elements) > MAX_DISCRETE:
        message = f"{key} has {len(node.elements)} values; at most {MAX_DISCRETE:,} are allowed"
        findings.error(node, message, "use INTEGER or DOUBLE for a range")
        return None
    pairs = list(zip(given, node.elements, strict=True))
    for value, element in pairs:
        if len(pairs) > 1:
            _positive(value, element, scale, findings)
    ordered = sorted(pairs, key=lambda pair: pair[0])
    for (low, first), (high, second) in pairwise(ordered):
        if high - low < CLOSEST:
            _too_close(first, second, same=low == high, findings=findings)
    values = tuple(_plain(value) for value, _ in ordered)
    if ordered != pairs:
        shown = ", ".join(f"{value:g}" for value in values[:5])
        hint = f"write {shown}{', ...' * (len(values) > 5)}"
        findings.warn(node, f"{key} is not increasing: sorted", hint)
    return Discrete(name, values, scale)


def _too_close(one: Node, other: Node, *, same: bool, findings: Findings) -> None:
    first, second = sorted((one, other), key=lambda node: (node.line, node.column))
    what = "stands twice" if same else f"is closer than {CLOSEST:g} to {first.text}"
    message = f"{second.name} {second.text} {what} (see line {first.line})"
    findings.error(second, message, "remove one of them")


def _plain(value: int | float) -> int | float:
    """Whole values as int, as far as they are exact."""
    return int(value) if value == int(value) and abs(value) <= MAX_WHOLE else float(value)


def categorical(
    name: str, key: str, given: list[str] | None, form: Form, findings: Findings
) -> Categorical | None:
    """A CATEGORICAL of the texts listed under a key, each once."""
    node = form.at(key)
    if given is None or not node.elements:
        _no_values(key, '["adam", "sgd"]', form, findings)
        return None
    kept: dict[str, Node] = {}
    for value, element in zip(given, node.elements, strict=True):
        if value in kept:
            message = f"{element.name} {element.shown} stands twice (see line {kept[value].line}): dropped"
            findings.warn(element, message, "remove it")
        kept.setdefault(value, element)
    return Categorical(name, tuple(kept))


def _no_values(key: str, example: str, form: Form, findings: Findings) -> None:
    """Tell of a list that is missing or empty; one that was refused, whole or in part, is told already."""
    hint = f"write {key}: {example}"
    if form.lacks(key):
        findings.missing(form.node, key, f"{key} is missing", hint)
    elif form.at(key).kind is Kind.LIST and not form.refused(key):
        findings.error(form.at(key), f"{key} is empty", hint)


def unused_scale(form: Form, scale: Scale | None, findings: Findings) -> None:
    """Warn of a scale on a CATEGORICAL, which has none."""
    if scale:
        findings.warn(form.at("scaleType"), "scaleType is not used by a CATEGORICAL: ignored", "remove it")
